"""Neural training through the whole engine: many rounds, real processes, the same weights in every silo."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.stats import chi2

from federation.messages import PostKind
from federation.rounds import JobState, Phase
from federation.steps import Step
from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import schedule
from privacy.events import GaussianEvent, SelfComposedEvent
from silo.finished import load_finished
from silo.metrics import METRIC_NAMES
from silo.progress import PROGRESS_FILE, read_progress
from silo.tensor_files import sha256_of
from tests.contracts.small_federation import (
    SmallFederation,
    in_process,
    make_small_federation,
    nodes,
    state_on_disk,
    submit,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ROUNDS = 3
BY_CHANCE = 1e-6


def finished_jobs(federation: SmallFederation, job: str) -> list[dict[str, object]]:
    """What every agent noted at its end of the job; waits for all."""

    def notes() -> list[dict[str, object]]:
        paths = [federation.directory(name) / "jobs" / job / "state.json" for name in federation.names]
        return [json.loads(path.read_bytes()) for path in paths if path.exists()]

    wait_until(
        lambda: len(notes()) == len(federation.names) and all(note["finished"] for note in notes()),
        seconds=150,
    )
    return notes()


def test_shared_noise_over_several_rounds_ends_with_one_checkpoint(tmp_path: Path) -> None:
    federation = make_small_federation(
        tmp_path,
        family="autoencoder",
        features=6,
        hidden=4,
        rounds=ROUNDS,
        bias_epsilon=0.5,
        target_epsilon=3.0,
        holdout="random",
        metrics_epsilon=0.5,
    )
    with nodes(federation) as running:
        for node in running.values():
            node.start()
        job = submit(federation)
        finished_jobs(federation, job)
        assert [node.end() for node in running.values()] == [0] * len(running)
    state = state_on_disk(federation, job)
    assert state is not None
    assert (state.outcome, state.burned, state.num_rounds) == ("completed", 0, ROUNDS + 2)
    assert [shape.purpose for shape in state.shapes] == ["popularity", *["training"] * ROUNDS, "metrics"]
    checkpoints, cards = set(), []
    for name in federation.names:
        directory = federation.directory(name) / "jobs" / job
        cards.append(json.loads((directory / "model-card.json").read_bytes()))
        checkpoints.add(sha256_of(directory / "checkpoint.safetensors"))
        assert (directory / PROGRESS_FILE).stat().st_mode & 0o077 == 0
        noted = read_progress(directory)
        assert [entry["round"] for entry in noted] == list(range(1, ROUNDS + 2))
        assert all(math.isfinite(entry["local_loss"]) for entry in noted)
        assert not (directory / "state.safetensors").exists()
        assert b"local_loss" not in (federation.root / f"{name}.log").read_bytes()
        assert load_finished(federation.directory(name), job).recommender.num_items == len(
            federation.catalogue
        )
    assert {card["checkpoint"] for card in cards} == checkpoints
    assert len(checkpoints) == 1
    assert set(cards[0]["metrics"]) == set(METRIC_NAMES)
    assert cards[0]["rounds"] == {"opened": ROUNDS, "planned": ROUNDS}
    assert cards[0]["note"] is None
    assert 0 < cards[0]["privacy"]["epsilon"] <= federation.plan.privacy.target_epsilon


def test_local_steps_are_charged_one_by_one_and_a_later_job_starts_from_their_weights(tmp_path: Path) -> None:
    steps = 3
    federation = make_small_federation(
        tmp_path,
        silos=("shop-a", "shop-b"),
        family="autoencoder",
        features=6,
        hidden=4,
        rounds=2,
        bias_epsilon=0.0,
        noise_placement="silo",
        local_steps=steps,
        local_learning_rate=0.05,
        optimizer="sgd",
        learning_rate=0.5,
        target_epsilon=1.5,
    )

    async def play() -> None:
        async with in_process(federation) as running:
            first = await running.finish(await running.submit())
            assert first.outcome == "completed"
            checkpoints = set()
            for name, site in running.sites.items():
                (charged,) = site.ledger.status("customers").committed
                assert isinstance(charged.event, SelfComposedEvent)
                assert (charged.event.count, charged.count) == (steps, 2)
                directory = federation.directory(name) / "jobs" / first.job
                checkpoints.add(sha256_of(directory / "checkpoint.safetensors"))
            (sha256,) = checkpoints

            later = started_from(federation, sha256)
            second = await running.finish(await running.submit(later))
            assert second.outcome == "completed"
            starts = {
                (federation.directory(name) / "jobs" / second.job / "checkpoint.safetensors").read_bytes()
                for name in federation.names
            }
            assert len(starts) == 1

            (federation.directory("shop-b") / "jobs" / first.job / "checkpoint.safetensors").unlink()
            third = await running.finish(await running.submit(started_from(federation, sha256, seed=1)))
            assert reasons(third, "shop-b") == {"checkpoint_missing"}
            assert third.outcome == "denied"
            other_size = started_from(federation, sha256, hidden=5)
            fourth = await running.finish(await running.submit(other_size))
            assert reasons(fourth, "shop-a") == {"checkpoint_mismatch"}

    asyncio.run(play())


def started_from(federation: SmallFederation, sha256: str, **changes: int) -> Plan:
    fields = {
        "silos": federation.names,
        "catalogue_sha256": federation.catalogue.sha256,
        "catalogue_items": len(federation.catalogue),
        "family": "autoencoder",
        "features": 6,
        "hidden": 4,
        "rounds": 1,
        "bias_epsilon": 0.0,
        "noise_placement": "silo",
        "target_epsilon": 1.5,
        "target_delta": 1e-6,
        "max_users_per_silo": 64,
        "max_silos_per_user": 1,
        "max_interactions_per_user": 20,
        "start_from": sha256,
    }
    return complete_plan(Draft(**(fields | changes)))  # type: ignore[arg-type]


def reasons(state: JobState, silo: str) -> set[str]:
    denial = state.post(PostKind.DENIAL, silo)
    return set() if denial is None else {reason["code"] for reason in denial.body["reasons"]}


def test_where_nobody_has_a_row_the_sums_are_the_noise_of_the_event(tmp_path: Path) -> None:
    """Real processes draw, encrypt and open; every row is outside the catalogue, so the signal is zero."""
    federation = make_small_federation(
        tmp_path,
        family="autoencoder",
        features=20,
        hidden=16,
        rounds=3,
        bias_epsilon=0.0,
        target_epsilon=3.0,
    )
    for name in federation.names:
        pl.DataFrame({"user_id": ["u"], "item_id": ["not in the catalogue"]}).write_parquet(
            federation.table(name)
        )
    sums = captured_sums(federation)
    shape = schedule(federation.plan)[0]
    assert sums.shape == (3, shape.values)
    drawn = sums.astype(np.float64).ravel()
    total = len(federation.names) * shape.share_std**2
    assert p_of_variance(drawn, total) > BY_CHANCE
    assert abs(drawn.mean()) < 5 * math.sqrt(total / drawn.size)
    # What no colluders know is what the ledgers charge for: n - c of the n shares.
    assert isinstance(shape.step_event, GaussianEvent)
    promised = (shape.step_event.noise_multiplier * shape.sensitivity) ** 2
    unknown = total * shape.num_shares / len(federation.names)
    assert unknown == pytest.approx(promised, rel=1e-6)
    # The bound is sharp: the noise of one silo more or fewer does not pass.
    for shares in (len(federation.names) - 1, len(federation.names) + 1):
        assert p_of_variance(drawn, shares * shape.share_std**2) < BY_CHANCE
    assert len({row.tobytes() for row in sums}) == len(sums)


def captured_sums(federation: SmallFederation) -> np.ndarray:
    """The opened sums of a job, from the disk of a silo that dies before it erases them."""
    witness = federation.names[1]
    with nodes(federation) as running:
        for name, node in running.items():
            node.start(f"before:{Step.HEAD_STORED}" if name == witness else None)
        job = submit(federation)
        wait_until(lambda: running[witness].poll() is not None, seconds=150)
        paths = sorted((federation.directory(witness) / "jobs" / job).glob("aggregate-*.npy"))
        sums = np.stack([np.load(path) for path in paths])
        state = state_on_disk(federation, job)
        assert state is not None
        assert state.phase is Phase.CLOSING
    return sums


def p_of_variance(sample: np.ndarray, variance: float) -> float:
    """Two-sided p-value of independent Gaussians of mean 0 having this variance."""
    statistic = float(np.square(sample).sum() / variance)
    return float(2 * min(chi2.cdf(statistic, sample.size), chi2.sf(statistic, sample.size)))
