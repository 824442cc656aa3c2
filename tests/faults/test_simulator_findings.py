"""What the simulator found, each reduced to the few steps that it takes (``tests/simulation``)."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from federation import client
from federation.messages import BlobRef
from federation.store import Store
from tests.contracts.small_federation import in_process, make_small_federation
from tests.support.supervisor import outbox_rows


def test_a_job_may_be_cancelled_while_its_last_bytes_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread reads finished bytes; the end of their job deletes them meanwhile, and that is no failure."""
    federation = make_small_federation(tmp_path)
    is_checking, may_check, complete = threading.Event(), threading.Event(), Store.complete_blob

    def wait_and_complete(self: Store, ref: BlobRef, sha256: str) -> None:
        is_checking.set()
        may_check.wait()
        complete(self, ref, sha256)

    monkeypatch.setattr(Store, "complete_blob", wait_and_complete)

    async def play() -> None:
        async with in_process(federation, agents=False) as running:
            submitted = asyncio.create_task(running.submit())
            await asyncio.to_thread(is_checking.wait)
            (job,) = running.coordinator._board.jobs
            leader = federation.parties.parties[federation.leader]
            await client.cancel(running.connect(leader.name), leader, job)
            assert (await running.finish(job)).outcome == "cancelled"
            may_check.set()
            assert await submitted == job

    asyncio.run(play())


def test_secrets_that_a_backup_brings_back_after_their_job_are_erased(tmp_path: Path) -> None:
    """The outbox alone comes from a backup; the job's own note says that it is finished."""
    federation = make_small_federation(tmp_path)

    async def play() -> None:
        async with in_process(federation) as running:
            job = await running.submit()
            leader = federation.parties.parties[federation.leader]
            await client.cancel(running.connect(leader.name), leader, job)
            await running.finish(job)
            running.sites["shop-b"].outbox.store_secret(job, "job-secrets", b"from a backup" * 8)
            await running.stop("shop-b")
            running.start("shop-b")
            directory = federation.directory("shop-b")
            async with asyncio.timeout(20):
                while outbox_rows(directory, "SELECT * FROM secrets"):  # noqa: ASYNC110 - another's work
                    await asyncio.sleep(0.05)
            raw = b"".join(path.read_bytes() for path in (directory / "outbox").iterdir())
            assert b"from a backup" not in raw

    asyncio.run(play())
