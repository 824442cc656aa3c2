"""The agent takes up a newer policy, or a freeze, while it runs; what it refuses it says, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from federation.messages import PostKind
from federation.rounds import JobState, Phase
from policies.administration import freeze_policy, sign_policy
from silo import status
from silo.rollout import PolicyWatch
from silo.site import Site, utc_now
from silo.status import describe, gather
from tests.contracts.decision_scene import altered
from tests.contracts.small_federation import SmallFederation, in_process, make_small_federation


@pytest.fixture
def federation(tmp_path: Path) -> SmallFederation:
    return make_small_federation(tmp_path, silos=("shop-a", "shop-b"))


def edit(federation: SmallFederation, old: str, new: str, *, version: int = 2, signed: bool = True) -> None:
    path = federation.directory("shop-a") / "policy.yaml"
    text = path.read_text()
    assert old in text
    lines = [f"version: {version}" if line.startswith("version:") else line for line in text.splitlines()]
    path.write_text("\n".join(lines).replace(old, new) + "\n")
    if signed:
        sign_policy(federation.directory("shop-a"), utc_now())


def look(watch: PolicyWatch) -> list[tuple[str, str | None]]:
    with capture_logs() as logs:
        watch.look()
    return [(entry["event"], entry.get("code")) for entry in logs]


class TestWatch:
    def test_a_newer_version_is_in_the_ledger_at_once(self, federation):
        with Site(federation.directory("shop-a")) as site:
            watch = PolicyWatch(site)
            assert look(watch) == [("policy_in_force", None)]
            edit(federation, "epsilon: 8.0", "epsilon: 9.0")
            assert look(watch) == [("policy_in_force", None)]
            account = site.ledger.status("customers")
            assert (account.budget.epsilon, account.policy_version) == (9.0, 2)
            assert look(watch) == []

    def test_what_is_refused_is_said_once_and_changes_nothing(self, federation):
        with Site(federation.directory("shop-a")) as site:
            watch = PolicyWatch(site)
            look(watch)
            edit(federation, "epsilon: 8.0", "epsilon: 9.0", signed=False)
            assert look(watch) == [("policy_in_force", None), ("policy_refused", "signature")]
            assert look(watch) == []
            assert site.ledger.status("customers").budget.epsilon == 8.0
            sign_policy(federation.directory("shop-a"), utc_now())
            assert look(watch) == [("policy_in_force", None)]

    def test_without_any_policy_in_force_it_says_so_and_goes_on_looking(self, federation):
        with Site(federation.directory("shop-a")) as site:
            watch = PolicyWatch(site)
            (federation.directory("shop-a") / "policy.sig.json").unlink()
            assert look(watch) == [("no_policy_in_force", "unsigned")]
            assert look(watch) == []
            sign_policy(federation.directory("shop-a"), utc_now())
            assert look(watch) == [("policy_in_force", None)]

    def test_a_read_only_disk_is_said_and_tried_again(self, federation, monkeypatch):
        with Site(federation.directory("shop-a")) as site:
            watch = PolicyWatch(site)

            def refuse(*_: object) -> None:
                raise OSError(30, "Read-only file system")

            with monkeypatch.context() as patch:
                patch.setattr("silo.policy_archive.write_atomically", refuse)
                assert look(watch) == [("no_policy_in_force", "host")]
            assert look(watch) == [("policy_in_force", None)]

    def test_runs_until_it_is_cancelled(self, federation):
        async def play() -> None:
            with Site(federation.directory("shop-a")) as site:
                task = asyncio.create_task(PolicyWatch(site).run())
                await asyncio.sleep(0.1)
                assert not task.done()
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                assert site.ledger.status("customers").policy_version == 1

        asyncio.run(play())


def said(federation: SmallFederation) -> str:
    found = asyncio.run(gather(federation.directory("shop-a")))
    return "\n".join(line for line in describe(found) if isinstance(line, str))


def test_status_says_what_was_refused_and_what_is_frozen(federation, monkeypatch):
    monkeypatch.setattr(status, "PATIENCE_SECONDS", 0.05)
    with Site(federation.directory("shop-a")) as site:
        PolicyWatch(site).look()
    assert "not in force" not in said(federation)
    edit(federation, "epsilon: 8.0", "epsilon: 9.0", signed=False)
    freeze_policy(federation.directory("shop-a"), utc_now(), reason="we look into a leak")
    text = said(federation)
    assert "policy.yaml is not in force, version 1 stays: [signature]" in text
    assert "takes no new job: frozen since" in text
    assert "we look into a leak" in text
    assert "version 3 or later" in text


@pytest.mark.e2e
class TestAgent:
    def test_a_frozen_silo_denies_and_a_newer_policy_accepts_without_restart(self, tmp_path: Path) -> None:
        federation = make_small_federation(tmp_path)

        async def play() -> None:
            async with in_process(federation) as running:
                freeze_policy(federation.directory("shop-a"), utc_now())
                state = await running.finish(await running.submit())
                assert state.outcome == "denied"
                denial = state.post(PostKind.DENIAL, "shop-a")
                assert denial is not None
                assert [reason["code"] for reason in denial.body["reasons"]] == ["policy_frozen"]
                assert running.sites["shop-a"].ledger.state().jobs == {}
                edit(federation, "epsilon: 8.0", "epsilon: 7.0")
                assert (await running.finish(await running.submit())).outcome == "completed"
                assert running.sites["shop-a"].ledger.status("customers").policy_version == 2

        asyncio.run(play())

    def test_running_jobs_keep_their_policy_through_freeze_and_new_versions(self, tmp_path: Path) -> None:
        federation = make_small_federation(tmp_path)

        async def play() -> None:
            async with in_process(federation) as running:
                job = await running.submit()
                await running.follow(job, lambda state: state.phase is not Phase.PROPOSED)
                edit(federation, "max_epsilon_per_plan: 4.0", "max_epsilon_per_plan: 0.5")
                freeze_policy(federation.directory("shop-a"), utc_now())
                assert (await running.finish(job)).outcome == "completed"
                kept = running.sites["shop-a"].policy_of(job)
                assert kept is not None
                assert kept.version == 1

        asyncio.run(play())

    def test_stop_cancels_a_running_job_and_gives_the_rest_back(self, tmp_path: Path) -> None:
        federation = make_small_federation(tmp_path)

        async def play() -> None:
            async with in_process(federation, agents=False) as running:
                running.start("shop-a")
                running.start("shop-b")
                job = await running.submit()
                await running.follow(job, has_accepted("shop-a"))
                freeze_policy(federation.directory("shop-a"), utc_now(), stop_jobs=True)
                running.start("shop-c")
                state = await running.finish(job)
                assert (state.outcome, state.reason) == ("cancelled", "cancelled by shop-a")
                account = running.sites["shop-a"].ledger.status("customers")
                assert (account.committed, account.outstanding) == ((), ())

        asyncio.run(play())


def has_accepted(silo: str) -> object:
    def holds(state: JobState) -> bool:
        return state.post(PostKind.ACCEPTANCE, silo) is not None

    return holds


@pytest.mark.e2e
def test_two_jobs_at_once_do_not_overdraw_a_partners_cap(tmp_path: Path) -> None:
    """Both are allowed while neither has reserved; what counts is asked again just before reserving."""
    federation = make_small_federation(tmp_path, budget_epsilon=20.0)
    edit(federation, "scope: lifetime,", "scope: lifetime, max_epsilon_with: {shop-b: 5.0},")

    async def play() -> None:
        async with in_process(federation, agents=False) as running:
            other = altered(federation.plan, {"holdout": {"kind": "random", "fraction": 0.2, "seed": 1}})
            jobs = [await running.submit(), await running.submit(other)]
            assert jobs[0] != jobs[1]
            for name in federation.names:
                running.start(name)
            outcomes = sorted([(await running.finish(job)).outcome or "" for job in jobs])
            assert outcomes == ["completed", "denied"]
            assert running.sites["shop-a"].ledger.status("customers").epsilon_spent <= 5.0

    asyncio.run(play())
