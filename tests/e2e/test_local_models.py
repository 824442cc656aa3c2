"""Local models beside the model of a real job: agents with the network in memory, then the commands."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

import cli
from privacy.ledger.ledger import LedgerState
from silo.local.files import PARTS_FILE
from tests.contracts.small_federation import in_process, make_small_federation

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_a_real_jobs_model_is_blended_and_the_account_stays_as_it_is(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path, holdout="random", num_items=20)
    directory = federation.directory("shop-b")

    def typed(*words: str) -> str:
        done = CliRunner().invoke(cli.app, [*words, "--dir", str(directory), "--json", "-"])
        assert done.exit_code == 0, done.output
        return done.stdout

    async def play() -> tuple[str, LedgerState, LedgerState]:
        async with in_process(federation) as running:
            job = await running.submit()
            assert (await running.finish(job)).outcome == "completed"
            ledger = running.sites["shop-b"].ledger
            before = ledger.state()
            typed("fit", "--local")
            kept = json.loads(typed("compare", "--keep"))
            assert [row["name"] for row in kept["models"]][-1] == f"federated:{job}"
            assert kept["older_than_rows"] == []
            return job, before, ledger.state()

    job, before, after = asyncio.run(play())
    assert after == before
    someone = federation.rows["shop-b"]["user_id"][0]
    found = json.loads(typed("recommend", "--user", someone))
    assert found["model"] == "blend"
    assert set(found["jobs"]) <= {job}
    assert found["private_parts"] or found["jobs"]
    elsewhere = [path for path in tmp_path.rglob("*") if path.name in (PARTS_FILE, "blend.json")]
    assert {path.parent.parent for path in elsewhere} == {directory / "local"}
    bundle = tmp_path / "bundle.zip"
    typed("audit", "export", "--out", str(bundle))
    with zipfile.ZipFile(bundle) as archive:
        assert f"jobs/{job}/model-card.json" in archive.namelist()
        assert [name for name in archive.namelist() if "local" in name or "blend" in name] == []
