"""DP-SGD with Opacus' per-user gradients through the whole engine: five rounds, real agents and workers."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from federation.messages import PostKind
from policies.plans.price import num_values
from privacy.events import PoissonSampledGaussianEvent
from silo.evaluation import evaluate
from silo.finished import load_finished
from silo.metrics import METRIC_NAMES
from silo.rows import load_rows
from tests.contracts.small_federation import in_process, make_small_federation

pytestmark = pytest.mark.e2e

ORDERS = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
ROUNDS = 5


@pytest.mark.timeout(240)
def test_five_rounds_of_dp_sgd_and_noised_metrics(tmp_path: Path) -> None:
    federation = make_small_federation(
        tmp_path,
        num_items=15,
        orders=ORDERS,
        verify_sums=0.2,
        family="linear",
        features=3,
        rounds=ROUNDS,
        sample_rate=0.5,
        expected_batch_size=60.0,
        learning_rate=0.1,
        holdout="random",
        metrics_epsilon=1.0,
    )
    assert num_values(federation.plan) <= 5000

    async def play() -> None:
        async with in_process(federation) as running:
            job = await running.submit()
            state = await running.finish(job)
            assert (state.outcome, state.num_rounds, state.burned) == ("completed", ROUNDS + 1, 0)
            opened = {
                (place.round, envelope.body["digest"])
                for place, envelope in state.posts.items()
                if place.kind is PostKind.OPENED
            }
            assert len(opened) == ROUNDS + 1  # one digest a round, the same in every silo
            models = []
            for name in federation.names:
                directory = federation.directory(name)
                models.append((directory / "jobs" / job / "model.safetensors").read_bytes())
                card = json.loads((directory / "jobs" / job / "model-card.json").read_text())
                assert set(card["metrics"]) == set(METRIC_NAMES)
                assert all(0.0 <= value <= 1.0 for value in card["metrics"].values())
                account = running.sites[name].ledger.status("customers")
                sampled = [e for e in account.committed if isinstance(e.event, PoissonSampledGaussianEvent)]
                assert [item.count for item in sampled] == [ROUNDS]
                assert sum(item.count for item in account.committed) == ROUNDS + 1
                assert account.outstanding == ()
                assert account.epsilon_spent <= federation.plan.privacy.target_epsilon
            assert len(set(models)) == 1
            finished = load_finished(federation.directory("shop-b"), job)
            assert np.any(finished.recommender.right != 0)
            rows = load_rows(federation.directory("shop-b"), finished.plan, finished.dataset)
            assert evaluate(finished.recommender, rows.train, rows.held_out)["recall@10"] > 0

    asyncio.run(play())
