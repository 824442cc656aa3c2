"""Agents with everything that is theirs: workers, outbox, ledger, rows. Only the network is in memory."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from pathlib import Path

import pytest

from federation import client
from federation.messages import PostKind
from federation.rounds import JobState, Phase
from federation.transport.inprocess import Faults
from silo.metrics import METRIC_NAMES
from silo.site import Site
from tests.contracts.small_federation import InProcess, in_process, make_small_federation
from tests.support.supervisor import outbox_rows

pytestmark = pytest.mark.e2e


def has_erased(site: Site) -> bool:
    tables = ("secrets", "contributions")
    return not any(outbox_rows(site.directory, f"SELECT * FROM {table}") for table in tables)


async def cancel(running: InProcess, job: str) -> None:
    leader = running.federation.parties.parties[running.federation.leader]
    await client.cancel(running.connect(leader.name), leader, job)


def test_a_job_with_metrics_survives_a_bad_network_and_a_lost_aggregate(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path, holdout="random", metrics_epsilon=1.0)

    async def play() -> None:
        async with in_process(federation, agents=False) as running:
            running.start("shop-a")
            running.start("shop-b")
            running.start(
                "shop-c",
                Faults(
                    random.Random(1), drop_request=0.1, drop_answer=0.1, duplicate=0.2, max_delay_seconds=0.02
                ),
            )
            job = await running.submit()
            await running.follow(job, lambda state: state.round == 2)
            await running.stop("shop-b")
            (aggregate,) = (federation.directory("shop-b") / "jobs" / job).glob("aggregate-1-1.npy")
            aggregate.unlink()
            running.start("shop-b")
            state = await running.finish(job)
            assert (state.outcome, state.burned) == ("completed", 0)
            metrics = []
            for name, site in running.sites.items():
                directory = federation.directory(name) / "jobs" / job
                card = json.loads((directory / "model-card.json").read_text())
                assert card["job"] == job
                metrics.append(card["metrics"])
                assert (directory / "model.safetensors").exists()
                receipts = json.loads((directory / "receipts.json").read_text())
                assert len(receipts) == len(federation.names) * (len(federation.names) - 1)
                assert not list(directory.glob("aggregate-*"))
                account = site.ledger.status("customers")
                assert account.outstanding == ()
                assert sum(item.count for item in account.committed) == 2
                assert account.epsilon_spent <= federation.plan.privacy.target_epsilon
                assert has_erased(site)
            assert set(metrics[0]) == set(METRIC_NAMES)
            assert metrics[0] == metrics[1] == metrics[2]

    asyncio.run(play())


def test_jobs_that_end_early_erase_secrets_and_give_the_rest_back(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path, max_burned_rounds=1)

    def ready(silos: set[str]) -> object:
        def holds(state: JobState) -> bool:
            posts = state.roster_posts(PostKind.EPHEMERAL, round=1, attempt=1)
            return silos <= {post.sender for post in posts}

        return holds

    async def play() -> None:
        async with in_process(federation) as running:
            job = await running.submit()
            await running.follow(job, lambda state: state.phase is Phase.EXCHANGING)
            await running.stop("shop-c")
            await running.follow(job, ready({"shop-a", "shop-b"}))  # type: ignore[arg-type]
            await cancel(running, job)
            running.start("shop-c")
            assert (await running.finish(job)).outcome == "cancelled"
            spent = {}
            for name, site in running.sites.items():
                account = site.ledger.status("customers")
                assert account.outstanding == ()
                spent[name] = sum(item.count for item in account.committed)
                assert has_erased(site)
            assert (spent["shop-a"], spent["shop-b"]) == (1, 1)
            assert spent["shop-c"] <= 1

            job = await running.submit()
            await running.follow(job, lambda state: state.phase is Phase.EXCHANGING)
            await running.stop("shop-b")
            shutil.rmtree(federation.directory("shop-b") / "outbox")
            running.start("shop-b")
            state = await running.finish(job)
            assert (state.outcome, state.reason) == ("cancelled", "cancelled by shop-b")
            assert state.post(PostKind.STREAM, "shop-b", round=1, attempt=1) is None
            assert all(site.ledger.status("customers").outstanding == () for site in running.sites.values())

    asyncio.run(play())


def test_a_policy_that_says_no_ends_the_job_with_codes_only(tmp_path: Path) -> None:
    federation = make_small_federation(tmp_path, budget_epsilon=5.0)

    async def play() -> None:
        async with in_process(federation) as running:
            assert (await running.finish(await running.submit())).outcome == "completed"
            state = await running.finish(await running.submit())
            assert state.outcome == "denied"
            for name in federation.names:
                denial = state.post(PostKind.DENIAL, name)
                assert denial is not None
                assert {reason["code"] for reason in denial.body["reasons"]} == {"budget_exceeded"}
                reasons = json.loads(
                    (federation.directory(name) / "jobs" / state.job / "denial.json").read_text()
                )
                assert reasons[0]["found"]
                assert running.sites[name].ledger.status("customers").outstanding == ()

    asyncio.run(play())
