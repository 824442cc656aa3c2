"""Two silos that sell different things train one model over item texts; a third one only adopts it.

In one process, for what the demo does not do: noised metrics, trained encoders, denials.
``test_demo_language.py`` is the same with processes over TLS.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("transformers", reason="needs the extra language")

from silo.adopting import adopt
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.evaluation import evaluate
from silo.finished import load_finished
from silo.language.files import EncoderFiles
from silo.language.store import add_encoder
from silo.local.serving import served_model
from silo.recommending import recommend_alone
from silo.rows import load_rows
from tests.contracts.small_federation import SmallFederation, in_process, make_small_federation
from tests.support.tiny_encoder import WORDS, make_tiny_encoder

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROUNDS = 3


def own_items(name: str) -> Catalogue:
    """Twenty items of one silo: no id occurs anywhere else."""
    titles = enumerate(product(WORDS[:5], WORDS[5:9]))
    return Catalogue(
        tuple(
            CatalogueItem(item_id=f"{name}-{number:03d}", title=" ".join(title)) for number, title in titles
        )
    )


def make_language_federation(
    root: Path, *, architecture: str = "bottleneck", is_timed: bool = True, **draft: object
) -> SmallFederation:
    encoder = make_tiny_encoder(root / "encoder")
    made = make_small_federation(
        root,
        silos=("shop-a", "shop-b"),
        own_items=own_items,
        family="language",
        encoder_sha256=EncoderFiles.check(encoder).sha256,
        text_dimensions=4,
        hidden=4,
        rounds=ROUNDS,
        holdout="random",
        metrics_epsilon=0.5,
        architecture=architecture,
        is_timed=is_timed,
        **draft,
    )
    for name in made.names:
        add_encoder(made.directory(name), encoder)
    return made


def run_to_its_end(federation: SmallFederation) -> str:
    """The id of a job that did all its rounds, the one of metrics among them."""

    async def play() -> str:
        async with in_process(federation) as running:
            job = await running.submit()
            state = await running.finish(job)
            assert (state.outcome, state.num_rounds, state.burned) == ("completed", ROUNDS + 1, 0)
            return job

    return asyncio.run(play())


def reason_of_denial(federation: SmallFederation, name: str) -> dict[str, str]:
    """The only reason for which a silo denies the plan, which costs it nothing."""

    async def play() -> dict[str, str]:
        async with in_process(federation) as running:
            job = await running.submit()
            state = await running.finish(job)
            assert state.outcome == "denied"
            assert running.sites[name].ledger.status("customers").committed == ()
            [reason] = json.loads((federation.directory(name) / "jobs" / job / "denial.json").read_bytes())
            return dict(reason)

    return asyncio.run(play())


def test_silos_with_disjoint_catalogues_train_one_model_and_a_newcomer_adopts_it(tmp_path: Path) -> None:
    federation = make_language_federation(tmp_path)
    job = run_to_its_end(federation)
    checkpoints = {
        (federation.directory(name) / "jobs" / job / "checkpoint.safetensors").read_bytes()
        for name in federation.names
    }
    assert len(checkpoints) == 1
    for name in federation.names:
        finished = load_finished(federation.directory(name), job)
        assert finished.catalogue == own_items(name)
        rows = load_rows(federation.directory(name), finished.plan, finished.dataset)
        assert evaluate(finished.recommender, rows.train, rows.held_out)["recall@10"] > 0
        user = federation.rows[name]["user_id"][0]
        found = recommend_alone(federation.directory(name), None, user, 5)
        assert {item["item_id"].rsplit("-", 1)[0] for item in found["items"]} == {name}
    _newcomer_adopts(federation, job)


def _newcomer_adopts(federation: SmallFederation, job: str) -> None:
    """A silo that was in no job: its items, its people, the others' weights, and not one epsilon."""
    others = make_small_federation(
        federation.root / "later", silos=("shop-y", "shop-z"), own_items=own_items, is_timed=True
    )
    newcomer, left = others.directory("shop-z"), federation.directory("shop-a") / "jobs" / job
    add_encoder(newcomer, federation.root / "encoder")
    before = (newcomer / "ledger.db").exists()
    made = adopt(
        newcomer,
        left / "plan.yaml",
        left / "checkpoint.safetensors",
        reference=federation.catalogue_path,
    )
    assert made["catalogue_sha256"] == own_items("shop-z").sha256
    assert (newcomer / "ledger.db").exists() == before
    served = served_model(newcomer, None, None)
    assert (served.jobs, served.catalogue) == ((made["job"],), own_items("shop-z"))
    assert np.isfinite(served.model.scores(others_histories(others))).all()
    found = recommend_alone(newcomer, None, others.rows["shop-z"]["user_id"][0], 5)
    assert found["fallback"] is None
    assert all(item["item_id"].startswith("shop-z") for item in found["items"])


def others_histories(federation: SmallFederation) -> object:
    finished = load_finished(federation.directory("shop-z"))
    return load_rows(federation.directory("shop-z"), finished.plan, finished.dataset).train.matrix()


def test_a_silo_without_the_encoder_says_so_before_anything_is_paid(tmp_path: Path) -> None:
    federation = make_language_federation(tmp_path)
    shutil.rmtree(federation.directory("shop-b") / "encoders")
    assert reason_of_denial(federation, "shop-b")["code"] == "text_encoder_missing"


@pytest.mark.parametrize(
    "adapter",
    [
        {"adapter": "ffa_lora", "adapter_outputs": 32},
        {"adapter": "ffa_lora", "adapter_outputs": 32, "adapter_columns": {"shop-b": 1}},
        {"adapter": "fed_sb"},
    ],
    ids=["ffa_lora", "fewer-columns", "fed_sb"],
)
def test_the_last_layer_of_the_encoder_is_trained_with_the_rest(
    tmp_path: Path, adapter: dict[str, object]
) -> None:
    """One sum: adapters are equal everywhere, have moved, and lists are made with them."""
    federation = make_language_federation(tmp_path, adapter_rank=2, adapter_places=4, **adapter)
    job = run_to_its_end(federation)
    left = [federation.directory(name) / "jobs" / job / "checkpoint.safetensors" for name in federation.names]
    assert len({path.read_bytes() for path in left}) == 1
    adapters = {name: values for name, values in load_file(left[0]).items() if name.startswith("adapted.")}
    rows = 16 if "adapter_outputs" in adapter else 2
    assert [values.shape for values in adapters.values()] == [(rows, 2), (rows, 2)]
    assert all(np.abs(values).max() > 0 for values in adapters.values())
    for name in federation.names:
        user = federation.rows[name]["user_id"][0]
        found = recommend_alone(federation.directory(name), None, user, 5)
        assert {item["item_id"].rsplit("-", 1)[0] for item in found["items"]} == {name}
    _newcomer_adopts(federation, job)


def test_an_encoder_of_other_outputs_is_denied_before_anything_is_paid(tmp_path: Path) -> None:
    federation = make_language_federation(tmp_path, adapter="ffa_lora")  # 768, of the packaged encoder
    reason = reason_of_denial(federation, "shop-b")
    assert reason["code"] == "text_encoder"
    assert "32 outputs" in reason["found"]


def test_a_silo_without_times_denies_a_network_that_reads_an_order(tmp_path: Path) -> None:
    federation = make_language_federation(tmp_path, architecture="transformer", is_timed=False)
    assert reason_of_denial(federation, "shop-b")["code"] == "times_missing"
