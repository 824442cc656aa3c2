"""Plans that train a part of the text encoder: what they say, how long their sum is, what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

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
