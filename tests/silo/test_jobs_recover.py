"""Silos that differ, were away, or have lost a sum: jobs of real agents with the network in memory."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typing_extensions import override

from federation.messages import Absence, PostKind, seal
from federation.rounds import JobState, StalePostError, owing
from privacy.noise import NoisedIntegers, NoiseShare
from privacy.randomness import unsafe_seeded_words
from silo import tasks
from silo.checkpoints import load_checkpoint
from silo.models.base import get_family
from silo.rows import load_rows
from silo.session import end_session
from silo.site import Site
from silo.tasks import OpenTask
from silo.tensor_files import sha256_of
from silo.worker import Worker
from tests.contracts.small_federation import InProcess, SmallFederation, in_process, make_small_federation
from tests.support.real_jobs import check_charges, check_every_round_has_one_digest, check_one_checkpoint

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


class InlineWorker(Worker):
    """The worker's tasks in this process, one silo after the other."""

    @override
    async def run(self, function: Callable[..., Any], *args: object) -> Any:
        await asyncio.sleep(0)
        return function(*args)


class WrongOpening(InlineWorker):
    """Opens one round's sum to other integers than everybody else, so many times."""

    def __init__(self, round: int, times: int) -> None:
        super().__init__()
        self._left = times
        self._round = round

    @override
    async def open(self, task: OpenTask) -> bytes:
        opened = await super().open(task)
        if self._left and f"aggregate-{self._round}-" in task.target.name:
            self._left -= 1
            np.save(task.target, np.load(task.target) + 1)
            return bytes(32)
        return opened


def trained(tmp_path: Path, **changes: Any) -> SmallFederation:
    fields: dict[str, Any] = {
        "family": "autoencoder",
        "features": 5,
        "hidden": 3,
        "rounds": 4,
        "bias_epsilon": 0.0,
        "input_dropout": 0.0,
        "target_epsilon": 3.0,
        "verify_sums": 0.0,
    }
    return make_small_federation(tmp_path, **(fields | changes))


def start_all(running: InProcess, **workers: Worker) -> None:
    for name in running.federation.names:
        running.start(name, worker=workers.get(name.replace("-", "_")) or InlineWorker())


def repairs(federation: SmallFederation, name: str, job: str) -> list[str]:
    path = federation.directory(name) / "jobs" / job / "repairs.json"
    return list(json.loads(path.read_bytes())) if path.exists() else []


def test_a_silo_that_opened_something_else_repairs_itself_on_the_record(tmp_path: Path) -> None:
    federation = trained(tmp_path)

    async def play() -> JobState:
        async with in_process(federation, agents=False) as running:
            start_all(running, shop_b=WrongOpening(2, times=1))
            return await running.finish(await running.submit())

    state = asyncio.run(play())
    assert (state.outcome, state.burned) == ("completed", 0)
    repaired = [place for place in state.posts if place.kind is PostKind.REPAIRED]
    assert [(place.sender, place.round, place.attempt) for place in repaired] == [("shop-b", 2, 1)]
    check_every_round_has_one_digest(state)
    check_one_checkpoint(federation, state.job)
    assert repairs(federation, "shop-b", state.job) == [
        "round 2: opened another sum than all others; repaired"
    ]
    assert repairs(federation, "shop-a", state.job) == []


def test_a_silo_that_cannot_repair_itself_burns_the_attempt(tmp_path: Path) -> None:
    federation = trained(tmp_path, max_burned_rounds=1)

    async def play() -> JobState:
        async with in_process(federation, agents=False) as running:
            start_all(running, shop_b=WrongOpening(2, times=2))
            return await running.finish(await running.submit())

    state = asyncio.run(play())
    assert (state.outcome, state.burned) == ("completed", 1)
    assert state.post(PostKind.BURN, "shop-b", round=2, attempt=1) is not None
    assert state.opened == (1, 2, 1, 1)
    check_one_checkpoint(federation, state.job)
    assert "burned" in repairs(federation, "shop-b", state.job)[0]


def test_a_lost_or_altered_sum_is_fetched_again_and_a_lost_state_replayed(tmp_path: Path) -> None:
    federation = trained(tmp_path, rounds=6)

    async def play() -> JobState:
        async with in_process(federation, agents=False) as running:
            start_all(running)
            job = await running.submit()
            await running.follow(job, lambda state: len(state.opened) >= 2)
            await running.stop("shop-b")
            directory = federation.directory("shop-b") / "jobs" / job
            end_session(directory)
            (directory / "state.safetensors").unlink(missing_ok=True)
            altered = directory / "aggregate-1-1.npy"
            np.save(altered, np.load(altered) + 1)
            (directory / "aggregate-2-1.npy").unlink(missing_ok=True)
            running.start("shop-b", worker=InlineWorker())
            return await running.finish(job)

    state = asyncio.run(play())
    assert (state.outcome, state.burned) == ("completed", 0)
    check_one_checkpoint(federation, state.job)
    assert len(repairs(federation, "shop-b", state.job)) == 1
    assert "round 1" in repairs(federation, "shop-b", state.job)[0]


@pytest.mark.parametrize("returns", [True, False])
def test_an_absent_silo_keeps_what_it_has_and_returns_with_all(tmp_path: Path, returns: bool) -> None:
    """Whoever is back before the end has the whole model; whoever is not has that of its rounds."""
    federation = trained(
        tmp_path, rounds=6, noise_placement="silo", min_silos=2, max_burned_rounds=3, round_minutes=30.0
    )
    lost = "shop-c"

    async def play() -> JobState:
        async with in_process(federation, agents=False) as running:
            start_all(running)
            job = await running.submit()
            await running.follow(job, lambda state: len(state.opened) >= 2)
            await running.stop(lost)
            state = await running.follow(job, lambda state: lost in waited_for(state))
            await declare_absent(running, state, lost)
            await running.follow(job, lambda state: len(state.opened) >= 4)
            if returns:
                running.start(lost, worker=InlineWorker())
                return await running.finish(job)
            await running.finish(job)
            running.start(lost, worker=InlineWorker())
            return await running.finish(job)

    state = asyncio.run(play())
    assert (state.outcome, state.num_rounds) == ("completed", 6)
    check_charges(federation, state)
    card = json.loads((federation.directory(lost) / "jobs" / state.job / "model-card.json").read_bytes())
    if returns:
        check_one_checkpoint(federation, state.job)
        assert card["note"] is None
    else:
        opened = card["rounds"]["opened"]
        assert 1 <= opened < 6
        assert card["note"] == f"after {opened} of 6 rounds: this silo was absent"
        digests = {
            name: sha256_of(federation.directory(name) / "jobs" / state.job / "checkpoint.safetensors")
            for name in federation.names
        }
        assert digests["shop-a"] == digests["shop-b"] != digests[lost]


def test_an_absent_silo_that_lost_its_records_stays_away_and_stops_nobody(tmp_path: Path) -> None:
    federation = trained(
        tmp_path, rounds=6, noise_placement="silo", min_silos=2, max_burned_rounds=3, round_minutes=30.0
    )
    lost = "shop-c"

    async def play() -> tuple[JobState, dict[str, Any]]:
        async with in_process(federation, agents=False) as running:
            start_all(running)
            job = await running.submit()
            await running.follow(job, lambda state: len(state.opened) >= 2)
            await running.stop(lost)
            state = await running.follow(job, lambda state: lost in waited_for(state))
            await declare_absent(running, state, lost)
            shutil.rmtree(federation.directory(lost) / "outbox")
            running.start(lost, worker=InlineWorker())
            state = await running.finish(job)
            return state, running.sites[lost].job_note(job)

    state, note = asyncio.run(play())
    assert state.outcome == "completed"
    assert not [place for place in state.posts if place.kind in (PostKind.CANCEL, PostKind.RETURN)]
    assert (note["outcome"], note["absent"]) == ("completed", False)
    assert not (federation.directory(lost) / "jobs" / state.job / "model.safetensors").exists()
    accounts = spent(federation, lost)
    assert accounts == len(
        [p for p in state.posts if p.sender == lost and p.kind is PostKind.EPHEMERAL and p.round]
    )


def spent(federation: SmallFederation, name: str) -> int:
    with Site(federation.directory(name)) as site:
        account = site.ledger.status("customers")
        assert account.outstanding == ()
        return sum(item.count for item in account.committed)


def waited_for(state: JobState) -> tuple[str, ...]:
    return owing(state) if state.round else ()


async def declare_absent(running: InProcess, state: JobState, silo: str) -> None:
    """Say what a coordinator says when the plan's minutes are over, without waiting for them."""
    hub = running.federation.parties.hub
    while True:
        round_, attempt = state.absence_place
        body = Absence(silos=(silo,))
        envelope = seal(
            body, job=state.job, sender=hub.name, identity=hub.identity, round=round_, attempt=attempt
        )
        try:
            await running.connect(hub.name).post(envelope.to_bytes())
            return
        except StalePostError:
            state = await running.follow(state.job, lambda latest: silo in waited_for(latest))


def same_noise(signal: Any, shape: Any, contributors: int) -> NoisedIntegers:
    """Noise that depends on nothing but the signal it hides, so that two runs can be compared."""
    share = NoiseShare(
        shape.share_std_among(contributors),
        num_shares=shape.num_shares_among(contributors),
        sensitivity=shape.sensitivity,
        promised=shape.step_event,
    )
    seed = int.from_bytes(np.asarray(signal).tobytes()[:12], "big")
    return share.add_to(
        np.clip(signal, shape.step_signal_min, shape.step_signal_max),
        unsafe_source=unsafe_seeded_words(seed),
    )


@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_distributed_run_is_the_reference_to_the_bit(
    tmp_path: Path, is_interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silos, keys, masks, packing, encryption, restarts: the weights are those of one loop over all rows."""
    federation = trained(tmp_path, optimizer="adam")
    monkeypatch.setattr(tasks, "add_noise", same_noise)

    async def play() -> JobState:
        async with in_process(federation, agents=False) as running:
            start_all(running)
            job = await running.submit()
            for rounds in (1, 2, 3) if is_interrupted else ():
                await running.follow(job, lambda state, rounds=rounds: len(state.opened) >= rounds)  # type: ignore[misc]
                name = federation.names[rounds % 3]
                await running.stop(name)
                end_session(federation.directory(name) / "jobs" / job)
                running.start(name, worker=InlineWorker())
            return await running.finish(job)

    state = asyncio.run(play())
    assert (state.outcome, state.burned) == ("completed", 0)
    check_one_checkpoint(federation, state.job)
    found = load_checkpoint(
        federation.directory(federation.leader) / "jobs" / state.job / "checkpoint.safetensors"
    )
    expected = reference(federation, state)
    assert found.keys() == expected.keys()
    for name, table in expected.items():
        np.testing.assert_array_equal(found[name], table)


def reference(federation: SmallFederation, state: JobState) -> Any:
    """The same training in one loop: no federation, no encryption, every silo's rows at hand."""
    plan, names = federation.plan, federation.names
    families = {name: get_family(plan)(plan, federation.catalogue) for name in names}
    rows = {}
    for name, site_directory in ((name, federation.directory(name)) for name in names):
        dataset = dataset_of(site_directory, state.job)
        rows[name] = load_rows(site_directory, plan, dataset).train
    learned = families[names[0]].initial_state()
    for index, shape in enumerate(state.shapes):
        sums = np.zeros(shape.values, dtype=np.int64)
        for name in names:
            signal = families[name].contribute(rows[name], learned, index, shape)
            noised = same_noise(signal, shape, len(names)).values
            sums += np.clip(noised, shape.offset, shape.signal_max + shape.headroom)
        learned = families[names[0]].absorb(learned, sums, index, shape, len(names))
    return families[names[0]].checkpoint(learned)


def dataset_of(directory: Path, job: str) -> Any:
    from silo.finished import load_finished

    return load_finished(directory, job).dataset
