from __future__ import annotations

import asyncio
import contextlib
import hashlib
import multiprocessing
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from federation.aggregation import AggregationError, SumWorker
from privacy.encryption.frames import FrameError, StreamSummary, read_stream, write_stream
from privacy.packing import Integers, Layout
from tests.contracts.secure_roster import Roster, add_streams

Streams = tuple[Roster, Layout, dict[str, Integers], list[Path]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Streams:
    """Three silos' streams of three frames, as files."""
    folder = tmp_path_factory.mktemp("spool")
    roster, layout = Roster(3), Layout.with_values_per_slot(3, 2, 20_000)
    levels = roster.levels(layout)
    paths = []
    for name, frames in roster.streams(layout, levels).items():
        paths.append(folder / f"{name}.stream")
        with paths[-1].open("wb") as file:
            write_stream(file, frames)
    return roster, layout, levels, paths


def summed(paths: list[Path], layout: Layout, out: Path, worker: SumWorker | None = None) -> StreamSummary:
    return asyncio.run((worker or SumWorker()).sum(paths, layout.num_frames, out))


def test_the_sum_opens_and_is_what_its_summary_says(written: Streams, tmp_path: Path) -> None:
    roster, layout, levels, paths = written
    out = tmp_path / "sum"
    summary = summed(paths, layout, out)
    content = out.read_bytes()
    assert summary.num_frames == layout.num_frames
    assert summary.num_bytes == len(content)
    assert summary.sha256 == hashlib.sha256(content).hexdigest()
    with out.open("rb") as file:
        frames = list(read_stream(file, layout.num_frames))
    np.testing.assert_array_equal(roster.open(frames, layout), sum(levels.values()))


def test_a_silo_that_repeats_the_sum_gets_the_same_bytes(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written
    first = summed(paths, layout, tmp_path / "first")
    assert summed(paths[::-1], layout, tmp_path / "second") == first
    streams = []
    for path in paths:
        with path.open("rb") as file:
            streams.append(list(read_stream(file, layout.num_frames)))
    with (tmp_path / "here").open("wb") as file:
        assert write_stream(file, add_streams(*streams)) == first
    changed = [*paths[:2], paths[1]]
    assert summed(changed, layout, tmp_path / "third").sha256 != first.sha256


def test_one_worker_sums_round_after_round_and_rounds_of_several_jobs(
    written: Streams, tmp_path: Path
) -> None:
    _, layout, _, paths = written

    async def many() -> list[StreamSummary]:
        worker = SumWorker()
        sums = (worker.sum(paths, layout.num_frames, tmp_path / f"sum-{index}") for index in range(3))
        return list(await asyncio.gather(*sums))

    assert len(set(asyncio.run(many()))) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(lambda content: content[:-1], "cut short", id="cut short"),
        pytest.param(lambda content: content + b"\0", "bytes follow", id="too long"),
        pytest.param(lambda content: b"", "missing", id="empty"),
        pytest.param(
            lambda content: content[:4] + b"\x0a\x02\x80\x20" + content[8:], "other parameters", id="altered"
        ),
        pytest.param(
            lambda content: b"\4\0\0\0\x0a\x02\x80\x20" + content, "no possible length", id="protobuf"
        ),
    ],
)
def test_a_damaged_stream_is_named_and_leaves_nothing(
    written: Streams, tmp_path: Path, damage: object, reason: str
) -> None:
    _, layout, _, paths = written
    bad = tmp_path / "shop-b.stream"
    bad.write_bytes(damage(paths[1].read_bytes()))  # type: ignore[operator]
    out = tmp_path / "out" / "sum"
    out.parent.mkdir()
    with pytest.raises(FrameError, match=reason) as refusal:
        summed([paths[0], bad, paths[2]], layout, out)
    assert refusal.value.where == "shop-b.stream"
    assert not list(out.parent.iterdir())


def test_a_failed_sum_leaves_the_one_before_it(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written
    out = tmp_path / "sum"
    summed(paths, layout, out)
    before = out.read_bytes()
    with pytest.raises(FrameError):
        summed(paths[:1], layout, out)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_missing_stream_or_directory_is_the_systems_own_error(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written
    with pytest.raises(FileNotFoundError, match="absent"):
        summed([*paths[:2], tmp_path / "absent"], layout, tmp_path / "sum")
    with pytest.raises(FileNotFoundError):
        summed(paths, layout, tmp_path / "nowhere" / "sum")


def test_the_worker_lives_within_its_address_space(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(AggregationError):
        summed(paths, layout, tmp_path / "sum", SumWorker(memory_bytes=64 << 20))
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert (
        summed(paths, layout, tmp_path / "sum", SumWorker(memory_bytes=512 << 20)).num_frames
        == layout.num_frames
    )


def test_the_accumulator_does_not_grow_with_silos_or_frames(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written
    long = tmp_path / "long"
    long.write_bytes(paths[0].read_bytes() * 100)
    silos = [long] * 12  # 12 silos of 300 frames, 10 MB each, in one address space of 320 MB
    worker = SumWorker(memory_bytes=320 << 20)
    assert asyncio.run(worker.sum(silos, 100 * layout.num_frames, tmp_path / "sum")).num_frames == 300


def test_closing_ends_a_running_sum(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written

    async def close_while_summing() -> None:
        worker = SumWorker()
        task = asyncio.create_task(worker.sum(paths, layout.num_frames, tmp_path / "sum"))
        await asyncio.sleep(0.05)
        worker.close()
        with pytest.raises(AggregationError, match="died"):
            await task

    asyncio.run(close_while_summing())
    assert not children()


def test_cancelling_ends_the_process(written: Streams, tmp_path: Path) -> None:
    _, layout, _, paths = written

    async def cancel() -> None:
        task = asyncio.create_task(SumWorker().sum(paths, layout.num_frames, tmp_path / "sum"))
        await asyncio.sleep(0.05)
        assert children()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(cancel())
    assert not children()


def test_a_kept_process_sums_again_after_a_refusal_or_a_death_and_ends_when_closed(
    written: Streams, tmp_path: Path
) -> None:
    _, layout, _, paths = written

    async def sums() -> None:
        worker, out = SumWorker(keeps_process=True), tmp_path / "sum"
        first = await worker.sum(paths, layout.num_frames, out)
        (kept,) = children()
        assert await worker.sum(paths, layout.num_frames, out) == first
        assert children() == [kept]
        with pytest.raises(FrameError):
            await worker.sum(paths[:1], layout.num_frames, out)
        assert not children()
        assert await worker.sum(paths, layout.num_frames, out) == first
        (anew,) = children()
        psutil.Process(anew).kill()
        while any(child.pid == anew for child in multiprocessing.active_children()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await worker.sum(paths, layout.num_frames, out) == first
        worker.close()
        assert not children()

    asyncio.run(sums())


def test_the_coordinators_side_loads_no_key_holder_and_no_tenseal() -> None:
    code = (
        "import sys, federation.aggregation;"
        "assert not {'tenseal', 'privacy.encryption.keyholder', 'privacy.securesum'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def children() -> list[int]:
    """Summing processes of this one (multiprocessing's resource tracker stays)."""
    return [
        child.pid
        for child in psutil.Process(os.getpid()).children()
        if "spawn_main" in " ".join(child.cmdline())
    ]
