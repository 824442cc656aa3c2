from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from federation.rounds import Phase
from tests.contracts.small_federation import in_process, make_small_federation


@pytest.mark.e2e
def test_a_job_runs_from_proposal_to_witnessed_model(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path)

    async def play() -> None:
        async with in_process(federation) as running:
            job = await running.submit()
            state = await running.finish(job)
            assert (state.outcome, state.burned) == ("completed", 0)
            for name in federation.names:
                directory = federation.directory(name) / "jobs" / job
                card = json.loads((directory / "model-card.json").read_text())
                assert card["job"] == job
                assert "metrics" not in card
                assert (directory / "model.safetensors").exists()
                kept = json.loads((directory / "receipts.json").read_text())
                assert len(kept) == len(federation.names) * (len(federation.names) - 1)
                assert not list(directory.glob("aggregate-*"))
                account = running.sites[name].ledger.status("customers")
                assert account.outstanding == ()
                assert sum(item.count for item in account.committed) == 1

    asyncio.run(play())
