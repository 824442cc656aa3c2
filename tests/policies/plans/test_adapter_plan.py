"""Plans that train a part of the text encoder: what they say, how long their sum is, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from policies.canonical import digest
from policies.documents import PolicyFileError
from policies.plans.drafting import complete_plan
from policies.plans.plan import Plan
from policies.plans.price import schedule
from policies.plans.summary import describe, summarise
from policies.plans.text import render_plan
from policies.validation import parse_yaml
from privacy.errors import UsageError
from tests.contracts.decision_scene import make_draft

REST = 2 * 32 * 32 + 32


def adapter_plan(**changes: Any) -> Plan:
    return complete_plan(make_draft(family="language", encoder_sha256="ab" * 32, **changes))


def test_left_out_the_encoder_stays_and_no_byte_of_a_plan_says_so() -> None:
    plan = adapter_plan(architecture="bottleneck")
    assert plan.model.family == "language"
    assert plan.model.adapter is None
    assert "encoder_adapter" not in plan.model_dump(exclude_unset=True)["model"]
    assert schedule(plan)[0].values == REST


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"adapter": "ffa_lora"}, 4 * 768),
        ({"adapter": "ffa_lora", "adapter_rank": 2, "adapter_layers": 3, "adapter_outputs": 100}, 600),
        ({"adapter": "fed_sb"}, 2 * 16),
        ({"adapter": "fed_sb", "adapter_rank": 8, "adapter_layers": 2}, 4 * 64),
    ],
)
def test_the_sum_and_its_noise_grow_with_the_trained_values(changes: dict[str, Any], values: int) -> None:
    plan = adapter_plan(**changes)
    assert schedule(plan)[0].values == REST + values
    rounded = plan.privacy.grid * (1 + 1e-5) + math.sqrt(REST + values)
    assert schedule(plan)[0].sensitivity == pytest.approx(rounded * plan.privacy.max_silos_per_user)
    assert f"{values:,} values on its last" in "\n".join(describe(plan, summarise(plan)))
    assert parse_yaml(render_plan(plan).encode(), Plan, "plan.yaml") == plan


def test_words_about_an_adapter_that_is_not_asked_for_are_refused() -> None:
    with pytest.raises(UsageError, match="no adapter") as caught:
        adapter_plan(adapter_rank=2, adapter_tokens=8)
    assert caught.value.where == "--adapter-rank, --adapter-tokens"


def test_networks_that_read_an_order_have_no_adapter() -> None:
    with pytest.raises(
        PolicyFileError, match=r"model\.encoder_adapter: gru reads places of the frozen encoder"
    ):
        adapter_plan(adapter="fed_sb", architecture="gru", input_dropout=0.0)


# ── silos that train fewer columns ───────────────────────────────────────────────────────────────────────

FEWER = {"adapter": "ffa_lora", "adapter_columns": {"shop-c": 2, "shop-d": 1}}


def test_the_plan_says_in_public_who_trains_fewer_columns() -> None:
    """The sum, its sensitivity and its noise are those of all columns: nobody's contribution is shorter."""
    plan, whole = adapter_plan(**FEWER), adapter_plan(adapter="ffa_lora")
    assert plan.model.family == "language"
    assert plan.model.adapter is not None
    assert [plan.model.adapter.columns_of(silo) for silo in plan.silos] == [4, 4, 2, 1]
    assert plan.model.adapter.num_trainers(plan.silos) == (4, 3, 2, 2)
    assert schedule(plan) == schedule(whole)
    assert plan.privacy == whole.privacy
    words = "\n".join(describe(plan, summarise(plan)))
    assert "shop-c trains the first 2 columns and shop-d trains the first 1 column" in words
    assert parse_yaml(render_plan(plan).encode(), Plan, "plan.yaml") == plan
    assert digest(plan) != digest(whole)


def test_names_that_yaml_would_read_as_something_else_stay_names() -> None:
    plan = adapter_plan(silos=("shop-a", "7", "no"), adapter="ffa_lora", adapter_columns={"7": 2, "no": 1})
    assert parse_yaml(render_plan(plan).encode(), Plan, "plan.yaml") == plan


def test_a_plan_with_columns_is_a_key_like_any_other() -> None:
    """What is made of texts once is kept by the adapter."""
    one, same, other = (
        adapter_plan(adapter="ffa_lora", adapter_columns={"shop-c": number}).model for number in (2, 2, 3)
    )
    assert one.family == same.family == other.family == "language"
    assert len({one.adapter, same.adapter, other.adapter}) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"adapter_columns": {"shop-x": 2}}, r"columns: shop-x is not in the roster"),
        ({"adapter_columns": {"shop-c": 5}}, r"columns: shop-c cannot train 5 columns of rank 4"),
        ({"adapter_columns": {"shop-c": 0}}, r"columns\.shop-c: 0 is not at least 1"),
        ({"adapter_columns": {}}, r"columns: 0 entries"),
        (
            {"adapter_columns": {f"shop-{name}": 3 for name in "abcd"}},
            r"columns: nobody trains the last 1 of 4 columns.*rank: 3",
        ),
        (
            {"adapter": "fed_sb", "adapter_columns": {"shop-c": 2}},
            r"columns: a core of fed_sb is rank × rank values",
        ),
        (
            {"adapter_columns": {"shop-c": 2}, "min_silos": 3},
            r"columns: .*no round can go on without one of them.*min_silos",
        ),
    ],
)
def test_columns_that_would_not_be_exact_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(PolicyFileError, match=words):
        adapter_plan(**{"adapter": "ffa_lora"} | changes)


def test_columns_of_no_adapter_are_refused() -> None:
    with pytest.raises(UsageError, match="no adapter") as caught:
        adapter_plan(adapter_columns={"shop-c": 2})
    assert caught.value.where == "--adapter-columns"
