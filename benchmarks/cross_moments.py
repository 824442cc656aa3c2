"""What encrypted cross-moments cost: milliseconds, bytes and memory, and how near they come to the clear.

Two processes, as two silos would be: the label silo encrypts and sends block by block while the feature silo
multiplies and adds; then the noised sums come back and are opened. CPU time is each process's own. "Before
noise" is a second, shorter run whose noise is ten million times smaller than a row.

    python benchmarks/cross_moments.py
    python benchmarks/cross_moments.py --slots 500 --json -
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
from process_tree import peak_rss_bytes
from reporting import MEGA, Page, Terminal, add_json_option, header, write

from privacy.encryption.crossmoments.frames import LABEL_FRAME_BYTES, PUBLIC_KEY_BYTES, SUM_FRAME_BYTES
from privacy.encryption.crossmoments.noise import MomentsNoiseSource, noise_std
from privacy.encryption.crossmoments.parameters import MomentsShape
from privacy.events import SAMPLER, GaussianEvent

BLOCK = 128
ROW_ITEMS = 5
NOISE_MULTIPLIER = 0.76243  # the moments' 70 % of epsilon 8, delta 1e-5
WITHOUT_NOISE = 1e-7
GOAL_SECONDS, GOAL_BYTES, GOAL_SLOT_BYTES, GOAL_ERROR = 120.0, 2e9, 45_000, 1e-3


def feature_features(shape: MomentsShape) -> np.ndarray:
    rows = np.random.default_rng(2).normal(size=(shape.num_slots, shape.num_features))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def label_block(shape: MomentsShape, start: int) -> np.ndarray:
    """Labels of one block, from the block's own seed: no silo ever holds all of them dense."""
    rng = np.random.default_rng([1, start])
    rows = np.zeros((min(BLOCK, shape.num_slots - start), shape.num_items))
    for row in rows:
        row[rng.choice(shape.num_items, min(ROW_ITEMS, shape.num_items), replace=False)] = 1.0
    return rows


def usage() -> dict[str, float]:
    return {"cpu_seconds": time.process_time(), "peak_rss_bytes": peak_rss_bytes(psutil.Process())}


def feature_silo(connection: Connection, shape: MomentsShape, noise_multiplier: float) -> None:
    """The other process: multiply and add what comes, send back the noised sums."""
    from privacy.encryption.crossmoments.feature import FeatureHalf

    features = feature_features(shape)
    start_cpu = time.process_time()
    half = FeatureHalf(shape, connection.recv_bytes())
    for start in range(0, shape.num_slots, BLOCK):
        block = features[start : start + BLOCK]
        half.absorb((connection.recv_bytes() for _ in block), block)
    absorbed = time.process_time() - start_cpu
    promised = GaussianEvent(noise_multiplier=noise_multiplier, sampler=SAMPLER)
    noised = half.release(MomentsNoiseSource(promised, shape))
    for frame in noised.frames:
        connection.send_bytes(frame)
    released = time.process_time() - start_cpu - absorbed
    connection.send(usage() | {"absorb_seconds": absorbed, "release_seconds": released})


def run(shape: MomentsShape, noise_multiplier: float) -> dict[str, Any]:
    """Compute once; the label silo is this process."""
    from privacy.encryption.crossmoments.label import LabelHalf

    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=feature_silo, args=(other, shape, noise_multiplier))
    process.start()
    start, start_cpu, sent = time.perf_counter(), time.process_time(), 0
    label = LabelHalf.generate(shape)
    mine.send_bytes(label.public_key())
    exact = np.zeros((shape.num_items, shape.num_features))
    features, own_work = feature_features(shape), 0.0
    for first in range(0, shape.num_slots, BLOCK):
        rows = label_block(shape, first)
        before = time.process_time()
        for frame in label.encrypt(rows):
            mine.send_bytes(frame)
            sent += len(frame)
        own_work += time.process_time() - before
        exact += rows.T @ features[first : first + BLOCK]
    frames = [mine.recv_bytes() for _ in range(shape.num_sums)]
    before = time.process_time()
    opened = label.open(frames).values
    opening = time.process_time() - before
    wall = time.perf_counter() - start
    feature = mine.recv()
    process.join()
    return {
        "wall_seconds": wall,
        "label": usage()
        | {
            "cpu_seconds": time.process_time() - start_cpu,
            "encrypt_seconds": own_work,
            "open_seconds": opening,
        },
        "feature": feature,
        "upload_bytes": sent,
        "download_bytes": sum(map(len, frames)),
        "difference_max": float(np.abs(opened - exact).max()),
        "difference_std": float((opened - exact).std()),
        "noise_std": noise_std(noise_multiplier, shape),
    }


def measure(slots: int, items: int, features: int, exact_slots: int) -> dict[str, Any]:
    norm = math.sqrt(min(ROW_ITEMS, items))
    shape = MomentsShape(slots, items, features, max_row_norm=norm)
    noised = run(shape, NOISE_MULTIPLIER)
    exact_shape = MomentsShape(min(exact_slots, slots), items, features, max_row_norm=norm)
    exact = run(exact_shape, WITHOUT_NOISE)
    peak = max(noised[silo]["peak_rss_bytes"] for silo in ("label", "feature"))
    return {
        "shape": asdict(shape),
        "frame_bytes": {
            "label": LABEL_FRAME_BYTES,
            "sum": SUM_FRAME_BYTES,
            "public_key": PUBLIC_KEY_BYTES,
        },
        "noised": noised,
        "milliseconds_per_slot": {
            "encrypt": 1e3 * noised["label"]["encrypt_seconds"] / slots,
            "multiply_and_add": 1e3 * noised["feature"]["absorb_seconds"] / slots,
        },
        "before_noise": {"slots": exact_shape.num_slots, "max_error": exact["difference_max"]},
        "goals": {
            "wall_seconds": {"asked": GOAL_SECONDS, "is_met": noised["wall_seconds"] <= GOAL_SECONDS},
            "peak_rss_bytes": {"asked": GOAL_BYTES, "is_met": peak <= GOAL_BYTES},
            "bytes_per_slot": {"asked": GOAL_SLOT_BYTES, "is_met": LABEL_FRAME_BYTES <= GOAL_SLOT_BYTES},
            "max_error": {"asked": GOAL_ERROR, "is_met": exact["difference_max"] <= GOAL_ERROR},
        },
    }


def show(result: dict[str, Any], page: Page) -> None:
    """Print what one computation costs, and the goals."""
    shape, noised, per_slot = result["shape"], result["noised"], result["milliseconds_per_slot"]
    page.table(
        f"{shape['num_slots']:,} slots × {shape['num_items']:,} items × {shape['num_features']} features",
        ("silo", "CPU s", "CPU ms per slot", "sends MB", "peak MB"),
        [
            (
                name,
                f"{noised[name]['cpu_seconds']:.1f}",
                f"{per_slot[work]:.2f}",
                f"{noised[sends] / MEGA:.1f}",
                f"{noised[name]['peak_rss_bytes'] / MEGA:.0f}",
            )
            for name, work, sends in (
                ("label", "encrypt", "upload_bytes"),
                ("feature", "multiply_and_add", "download_bytes"),
            )
        ],
    )
    before = result["before_noise"]["max_error"]
    page.say(
        f"{noised['wall_seconds']:.1f} s from key to moments, both silos at work at once; "
        f"{result['frame_bytes']['label']:,} bytes per slot. Opened moments differ from the clear ones by "
        f"{noised['difference_std']:.4f} (std; noise promised: {noised['noise_std']:.4f}), "
        f"before noise by at most {before:.1e}."
    )
    page.table(
        "goals",
        ("of", "asked", "met"),
        [
            (name, f"{goal['asked']:g}", "yes" if goal["is_met"] else "no")
            for name, goal in result["goals"].items()
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slots", type=int, default=6000)
    parser.add_argument("--items", type=int, default=1500)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--exact-slots", type=int, default=1000, help="slots of the run without noise")
    add_json_option(parser, "cross_moments")
    asked = parser.parse_args(arguments)
    page = Terminal(asked.json)
    given = sys.argv[1:] if arguments is None else arguments
    result = header("cross_moments", " ".join(["python benchmarks/cross_moments.py", *given]))
    result |= measure(asked.slots, asked.items, asked.features, asked.exact_slots)
    show(result, page)
    write(result, asked.json)
    return 0 if all(goal["is_met"] for goal in result["goals"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
