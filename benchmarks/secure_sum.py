"""What the secure sum costs: bytes and CPU time against plaintext float32, memory, and error.

Every secure step is measured beside its plaintext counterpart, on the same vectors in the same process:
protect against writing a float32 file, sum against adding float32 files, open against reading one. CPU time
is the process's own (waiting for the disk or for other programs is not in it) and a median over repeats.
Drawing the noise is measured apart: it is the price of privacy, not of the sum.

    python benchmarks/secure_sum.py
    python benchmarks/secure_sum.py --silos 4 --values 100000 --repeats 1 --growth 4 8
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from process_tree import FORKED, peak_rss_bytes
from reporting import MEGA, Page, Terminal, add_json_option, header, write

from federation.aggregation import SumWorker
from privacy.encryption.frames import read_stream, write_stream
from privacy.encryption.keyholder import KeyHolder
from privacy.encryption.summation import Summation
from privacy.noise import DiscreteGaussian, WordSource
from privacy.packing import Layout
from privacy.securesum import open_sum, protect

MOVIELENS_1M_VALUES = 3883 * 3884 // 2
VALUES_PER_SLOT = 2
FLOAT32_BYTES = 4
SHARE_STD = 4096 * 1.158 / math.sqrt(3)  # epsilon 4, delta 1e-5, four silos of which one colludes
GOAL_MILLISECONDS = 25.0  # a silo, for 100,000 values
GROWTH_TOLERANCE = 1.10
POLL_SECONDS = 0.004
STEPS = ("protect", "sum", "open")

R = TypeVar("R")


@dataclass(frozen=True)
class Roster:
    """Everything that the silos of one attempt have: names, keys, vectors."""

    names: tuple[str, ...]
    pair_keys: dict[str, dict[str, bytes]]
    tag_key: bytes
    holder: KeyHolder

    @classmethod
    def make(cls, num_silos: int) -> Roster:
        """Make keys as an attempt's key agreement would (agreeing on them takes milliseconds)."""
        names = tuple(f"silo-{number:02}" for number in range(num_silos))
        pair_keys: dict[str, dict[str, bytes]] = {name: {} for name in names}
        for one, other in combinations(names, 2):
            pair_keys[one][other] = pair_keys[other][one] = os.urandom(32)
        return cls(names, pair_keys, os.urandom(32), KeyHolder.generate())

    def protect(self, name: str, levels: NDArray[np.int64], layout: Layout, path: Path) -> None:
        """Write one silo's frames."""
        with path.open("wb") as file:
            frames = protect(
                levels,
                layout,
                contributors=len(self.names),
                pair_keys=self.pair_keys[name],
                me=name,
                tag_key=self.tag_key,
                holder=self.holder,
            )
            write_stream(file, frames)

    def open(self, path: Path, layout: Layout) -> NDArray[np.int64]:
        """Decrypt and check the sum."""
        with path.open("rb") as file:
            frames = read_stream(file, layout.num_frames)
            sums: NDArray[np.int64] = open_sum(
                frames, layout, contributors=len(self.names), tag_key=self.tag_key, holder=self.holder
            )
            return sums


def cpu_seconds(function: Callable[..., R], *arguments: Any) -> tuple[float, R]:
    """Call a function; returns the CPU time of this process that it took, and its answer."""
    start = time.process_time()
    answer = function(*arguments)
    return time.process_time() - start, answer


def random_levels(layout: Layout, num_silos: int) -> list[NDArray[np.int64]]:
    """One vector a silo, over the whole range of levels."""
    rng = np.random.default_rng(num_silos)
    return [rng.integers(0, layout.max_level, layout.values, endpoint=True) for _ in range(num_silos)]


def sum_streams(paths: Sequence[Path], layout: Layout, out: Path) -> None:
    """Add streams frame by frame, as the coordinator's worker does."""
    summation = Summation()
    files = [path.open("rb") for path in paths]
    try:
        readers = [read_stream(file, layout.num_frames) for file in files]
        with out.open("wb") as target:
            write_stream(
                target,
                (summation.sum_frames(next(r) for r in readers) for _ in range(layout.num_frames)),
            )
    finally:
        for file in files:
            file.close()


def add_floats(paths: Sequence[Path], out: Path) -> None:
    """Add float32 files, one in memory at a time."""
    total = np.fromfile(paths[0], dtype="<f4")
    for path in paths[1:]:
        total += np.fromfile(path, dtype="<f4")
    total.tofile(out)


def secure_once(levels: list[NDArray[np.int64]], layout: Layout, folder: Path) -> dict[str, Any]:
    """One whole secure sum with fresh keys: CPU seconds of each step, bytes, and the error."""
    roster = Roster.make(len(levels))
    paths, protecting = [], []
    for name, own in zip(roster.names, levels, strict=True):
        path = folder / f"{name}.frames"
        protecting.append(cpu_seconds(roster.protect, name, own, layout, path)[0])
        paths.append(path)
    out = folder / "sum.frames"
    summing, _ = cpu_seconds(sum_streams, paths, layout, out)
    opening, opened = cpu_seconds(roster.open, out, layout)
    error = int(np.abs(opened - np.sum(levels, axis=0)).max())
    return {
        "cpu_seconds": {"protect": median(protecting), "sum": summing, "open": opening},
        "upload_bytes": paths[0].stat().st_size,
        "download_bytes": out.stat().st_size,
        "max_error": error,
    }


def plain_once(floats: list[NDArray[np.float32]], folder: Path) -> dict[str, float]:
    """CPU seconds of the same sum in the clear, as float32 files."""
    paths, serialising = [], []
    for number, own in enumerate(floats):
        path = folder / f"{number}.f4"
        serialising.append(cpu_seconds(own.tofile, path)[0])
        paths.append(path)
    out = folder / "sum.f4"
    adding, _ = cpu_seconds(add_floats, paths, out)
    reading, _ = cpu_seconds(np.fromfile, out, "<f4")
    return {"protect": median(serialising), "sum": adding, "open": reading}


def measure_cost(num_silos: int, values: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Bytes, CPU time and error of one size of roster and vector."""
    layout = Layout.with_values_per_slot(num_silos, VALUES_PER_SLOT, values)
    levels = random_levels(layout, num_silos)
    floats = [own.astype("<f4") for own in levels]
    secure, plain = [], []
    for _ in range(repeats):
        secure.append(secure_once(levels, layout, folder))
        plain.append(plain_once(floats, folder))
    costs = {step: median(run["cpu_seconds"][step] for run in secure) for step in STEPS}
    baseline = {step: median(run[step] for run in plain) for step in STEPS}
    float_bytes = FLOAT32_BYTES * values
    return {
        "silos": num_silos,
        "values": values,
        "bits": layout.bits,
        "values_per_slot": layout.values_per_slot,
        "frames": layout.num_frames,
        "upload_bytes": secure[0]["upload_bytes"],
        "upload_ratio_to_float32": secure[0]["upload_bytes"] / float_bytes,
        "download_bytes": secure[0]["download_bytes"],
        "download_ratio_to_float32": secure[0]["download_bytes"] / float_bytes,
        "cpu_seconds": costs,
        "plain_cpu_seconds": baseline,
        "cpu_ratio_to_plain": {step: costs[step] / baseline[step] for step in STEPS},
        "max_error": max(run["max_error"] for run in secure),
    }


def measure_noise(values: int, repeats: int) -> dict[str, Any]:
    """CPU time of drawing one silo's noise share."""
    sampler = DiscreteGaussian(SHARE_STD)
    runs = [cpu_seconds(sampler.sample, values, WordSource.from_os())[0] for _ in range(repeats)]
    return {"values": values, "share_std": SHARE_STD, "cpu_seconds": median(runs)}


async def worker_peak(streams: Sequence[Path], num_frames: int, out: Path) -> int:
    """Sum in the coordinator's worker process; returns the most memory the process had, in bytes."""
    task = asyncio.create_task(SumWorker().sum(streams, num_frames, out))
    worker: psutil.Process | None = None
    peak = 0
    while not task.done():
        await asyncio.sleep(POLL_SECONDS)
        try:
            worker = worker or _forked_child()
            peak = max(peak, peak_rss_bytes(worker) if worker else 0)
        except psutil.Error:
            continue
    await task
    return peak


def _forked_child() -> psutil.Process | None:
    return next((p for p in psutil.Process().children() if FORKED in p.cmdline()), None)


def measure_growth(rosters: Sequence[int], values: int, repeats: int, folder: Path) -> dict[str, Any]:
    """Peak memory of the sum worker by number of silos, all with vectors of the same length."""
    largest = max(rosters)
    layout = Layout.with_values_per_slot(largest, VALUES_PER_SLOT, values)
    roster = Roster.make(largest)
    rng = np.random.default_rng(0)
    paths = [folder / f"{name}.frames" for name in roster.names]
    for name, path in zip(roster.names, paths, strict=True):
        roster.protect(name, rng.integers(0, layout.max_level, values), layout, path)
    out = folder / "sum.frames"
    peaks = {
        number: int(
            median(asyncio.run(worker_peak(paths[:number], layout.num_frames, out)) for _ in range(repeats))
        )
        for number in rosters
    }
    smallest = min(rosters)
    ratio = peaks[largest] / peaks[smallest]
    return {
        "values": values,
        "stream_bytes": paths[0].stat().st_size,
        "peak_rss_bytes": {str(number): peak for number, peak in peaks.items()},
        "largest_to_smallest": ratio,
        "bytes_per_added_silo": (peaks[largest] - peaks[smallest]) / max(1, largest - smallest),
        "grows": ratio > GROWTH_TOLERANCE,
    }


def milliseconds_a_silo(row: dict[str, Any]) -> float:
    """CPU milliseconds of one silo's part in a secure sum of 100,000 values, noise sampling apart."""
    seconds = row["cpu_seconds"]
    total = seconds["protect"] + seconds["open"] + seconds["sum"] / row["silos"]
    return float(1e3 * total * 100_000 / row["values"])


def show(result: dict[str, Any], page: Page) -> None:
    """Print the three tables."""
    cost = result["cost"]
    page.table(
        "bytes of one silo, against float32 of the same values",
        ("silos", "values", "bits", "up MB", "× f32", "down MB", "× f32", "error"),
        [
            (
                row["silos"],
                f"{row['values']:,}",
                row["bits"],
                f"{row['upload_bytes'] / MEGA:.2f}",
                f"{row['upload_ratio_to_float32']:.3f}",
                f"{row['download_bytes'] / MEGA:.2f}",
                f"{row['download_ratio_to_float32']:.3f}",
                row["max_error"],
            )
            for row in cost
        ],
    )
    page.table(
        "CPU seconds (in brackets × plaintext); protect and open in one silo, sum at the coordinator",
        ("silos", "values", *STEPS),
        [
            (
                row["silos"],
                f"{row['values']:,}",
                *(
                    f"{row['cpu_seconds'][step]:.3f} ({row['cpu_ratio_to_plain'][step]:.0f})"
                    for step in STEPS
                ),
            )
            for row in cost
        ],
    )
    page.table(
        "CPU milliseconds for each silo and 100,000 values: protect, open, and its part of the sum; "
        f"goal {GOAL_MILLISECONDS:g}",
        ("silos", "values", "together", "met"),
        [
            (row["silos"], f"{row['values']:,}", f"{cost:.1f}", "yes" if cost <= GOAL_MILLISECONDS else "NO")
            for row, cost in ((row, milliseconds_a_silo(row)) for row in result["cost"])
        ],
    )
    page.table(
        "drawing one silo's noise, CPU seconds",
        ("values", "seconds", "draws a second"),
        [
            (f"{row['values']:,}", f"{row['cpu_seconds']:.3f}", f"{row['values'] / row['cpu_seconds']:,.0f}")
            for row in result["noise"]
        ],
    )
    growth = result["memory"]
    page.table(
        f"peak memory of the coordinator's sum worker, {growth['values']:,} values",
        ("silos", "MB", "streams together, MB"),
        [
            (silos, f"{peak / MEGA:.1f}", f"{int(silos) * growth['stream_bytes'] / MEGA:.0f}")
            for silos, peak in growth["peak_rss_bytes"].items()
        ],
    )
    page.say(f"largest error of an integer sum: {result['max_error']} (must be 0)")
    page.say(
        f"memory, most silos against fewest: {growth['largest_to_smallest']:.3f} "
        f"(at most {GROWTH_TOLERANCE}); {growth['bytes_per_added_silo'] / 1e3:.0f} kB for each added silo"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--silos", type=int, nargs="+", default=[2, 4, 8], help="sizes of the roster")
    parser.add_argument(
        "--values", type=int, nargs="+", default=[100_000, 1_000_000, MOVIELENS_1M_VALUES], help="lengths"
    )
    parser.add_argument("--growth", type=int, nargs="+", default=[4, 8, 16, 32], help="rosters for memory")
    parser.add_argument("--growth-values", type=int, default=1_000_000, help="length for memory")
    parser.add_argument("--repeats", type=int, default=3, help="a figure is the median of so many")
    parser.add_argument("--out", type=Path, help="folder for the streams; default: a temporary one")
    add_json_option(parser, "secure_sum")
    asked = parser.parse_args(arguments)
    page = Terminal(asked.json)
    with tempfile.TemporaryDirectory(dir=asked.out) as name:
        folder = Path(name)
        cost = []
        for values in asked.values:
            for silos in asked.silos:
                page.say(f"{silos} silos, {values:,} values …")
                cost.append(measure_cost(silos, values, asked.repeats, folder))
        noise = [measure_noise(values, asked.repeats) for values in asked.values]
        page.say("memory of the sum worker …")
        memory = measure_growth(asked.growth, asked.growth_values, asked.repeats, folder)
    command = (
        f"python benchmarks/secure_sum.py --silos {_words(asked.silos)} --values {_words(asked.values)} "
        f"--growth {_words(asked.growth)} --growth-values {asked.growth_values} --repeats {asked.repeats}"
    )
    result = header("secure_sum", command) | {
        "cost": cost,
        "noise": noise,
        "memory": memory,
        "max_error": max(row["max_error"] for row in cost),
    }
    show(result, page)
    write(result, asked.json)
    return 1 if result["max_error"] or memory["grows"] else 0


def _words(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))


if __name__ == "__main__":
    sys.exit(main())
