from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from policies.canonical import canonical_bytes, digest
from policies.plans.plan import Plan
from policies.plans.text import render_plan
from policies.validation import parse_yaml
from privacy.budget import RenyiFilter, ZcdpFilter
from tests.contracts.decision_scene import ORDERS, altered, make_plan, plan_document

LINEAR: dict[str, Any] = {"family": "linear", "features": 4}


def refused(changes: dict[str, Any], **draft: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        altered(make_plan(**draft), changes)
    return str(caught.value)


def test_the_example_of_the_design_is_a_plan() -> None:
    plan = make_plan(holdout="random", holdout_seed=7, metrics_epsilon=0.2)
    assert plan.leader == "shop-a"
    assert (plan.num_silos, plan.num_noise_shares) == (4, 3)
    assert plan.is_statistics
    assert plan.privacy.filter_spec == ZcdpFilter()
    assert altered(plan, {"privacy.filter": "renyi", "privacy.orders": list(ORDERS)}).privacy.filter_spec == (
        RenyiFilter(orders=ORDERS)
    )


@pytest.mark.parametrize("family", ["popularity", "item-graph", "linear", "autoencoder"])
def test_a_plan_survives_json_and_its_own_commented_file(family: Any) -> None:
    plan = make_plan(family=family, holdout="last")
    assert Plan.model_validate_json(canonical_bytes(plan)) == plan
    again = parse_yaml(render_plan(plan).encode(), Plan, "plan.yaml")
    assert digest(again) == digest(plan)


def test_nothing_can_be_changed_in_place() -> None:
    plan = make_plan()
    with pytest.raises(ValidationError, match="frozen"):
        plan.privacy.target_epsilon = 9.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "path", ["", "catalogue", "holdout", "model", "training", "privacy", "protection", "releases"]
)
def test_an_unknown_field_is_refused_everywhere(path: str) -> None:
    document = plan_document()
    place = document[path] if path else document
    place["surprise"] = 1
    with pytest.raises(ValidationError, match="Extra inputs"):
        Plan.model_validate(document)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("privacy.target_epsilon", 0),
        ("privacy.target_epsilon", -1.0),
        ("privacy.target_epsilon", math.inf),
        ("privacy.target_epsilon", math.nan),
        ("privacy.target_epsilon", "4"),
        ("privacy.target_epsilon", True),
        ("privacy.target_delta", 0.5),
        ("privacy.target_delta", 9e-31),
        ("privacy.target_delta", 5e-324),
        ("protection.max_failed_opens", 3),
        ("privacy.noise_multiplier", 0.0),
        ("privacy.grid", 0),
        ("privacy.grid", 8192.5),
        ("privacy.unit", "event"),
        ("privacy.neighboring_relation", "replace_one"),
        ("privacy.colluding_silos", 0),
        ("catalogue.sha256", "AB" * 32),
        ("catalogue.items", 1),
        ("max_users_per_silo", 0),
        ("silos", ["shop-a"]),
        ("silos", ["shop-a", "Shop B"]),
        ("silos", ["shop-a", "../etc"]),
        ("partition", "vertical"),
        ("schema_version", 2),
        ("releases.metrics", "plain"),
        ("releases.metrics", {"noised": False, "epsilon": 0.2}),
        ("protection.encryption", "ckks"),
    ],
)
def test_values_outside_their_range_are_refused(path: str, value: object) -> None:
    refused({path: value})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"silos": ["shop-a", "shop-a", "shop-b", "shop-c"]}, "twice"),
        ({"protection.min_silos": 5}, "can never contribute"),
        ({"privacy.max_silos_per_user": 5}, "at most the 4 silos"),
        ({"privacy.colluding_silos": 4}, "write at most 3"),
        ({"privacy.colluding_silos": 3}, "write noise_placement: silo"),
        ({"privacy.noise_placement": "silo"}, "write 3"),
        ({"training.local_steps": 2}, "takes no steps"),
        ({"releases.metrics": {"noised": True, "epsilon": 0.2}}, "need a holdout"),
        ({"privacy.contribution_norm": None}, "write 1.0"),
        ({"privacy.contribution_norm": 2.0}, "write 1.0"),
        ({"privacy.max_grad_norm": 1.0}, "has no gradients"),
        ({"training.rounds": 2}, "one secure sum"),
        ({"training.sample_rate": 0.5}, "counts every user once"),
        ({"training.optimizer": "adam"}, "takes no steps"),
        ({"training.learning_rate": 0.1}, "takes no steps"),
        ({"training.expected_batch_size": 10.0}, "takes no steps"),
        ({"training.local_learning_rate": 0.1}, "takes no steps"),
        ({"training.decay": "linear"}, "takes no steps"),
        ({"training.second_moment_decay": 0.9}, "takes no steps"),
        ({"privacy.clipping": "automatic"}, "no gradients to clip"),
        ({"protection.round_minutes": 5.0, "protection.min_silos": 3}, "waits for every silo"),
        ({"catalogue.items": 20_001}, "at most 20,000 items"),
        ({"privacy.orders": [2.0, 4.0]}, "a zcdp filter has none"),
        ({"privacy.filter": "renyi"}, "names its orders"),
        ({"privacy.filter": "renyi", "privacy.orders": [0.5]}, "orders lie above 1"),
        ({"privacy.filter": "renyi", "privacy.orders": [float(n) for n in range(2, 11)]}, "at most 8"),
    ],
)
def test_fields_that_contradict_each_other_are_refused_with_the_reason(
    changes: dict[str, Any], why: str
) -> None:
    assert why in refused(changes)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"privacy.max_grad_norm": None}, "an unbounded gradient has no privacy"),
        ({"privacy.contribution_norm": 1.0}, "max_grad_norm bounds gradients"),
        ({"training.optimizer": None}, "needs it"),
        ({"training.learning_rate": None}, "needs it"),
        ({"training.expected_batch_size": None}, "needs it"),
        ({"training.local_steps": 3}, "or noise_placement: silo"),
        ({"training.local_steps": 3}, "local_learning_rate: 3 local steps need the step size"),
        ({"training.local_learning_rate": 0.1}, "only learning_rate is used"),
        ({"training.optimizer": "sgd", "training.second_moment_decay": 0.9}, "sgd keeps no squares"),
        ({"training.sample_rate": 0.5}, "write filter: renyi"),
        ({"protection.min_silos": 3}, "after which one is absent"),
        ({"protection.round_minutes": 5.0}, "every round waits"),
    ],
)
def test_a_gradient_plan_names_everything_the_silos_must_share(changes: dict[str, Any], why: str) -> None:
    assert why in refused(changes, family="linear")


def test_two_silos_need_noise_of_their_own() -> None:
    two = make_plan(silos=("a", "b"))
    assert (two.privacy.noise_placement, two.privacy.colluding_silos, two.num_noise_shares) == ("silo", 1, 1)
    with pytest.raises(ValidationError, match="two silos outside the collusion"):
        altered(two, {"privacy.noise_placement": "federation"})


def test_local_steps_are_possible_with_noise_in_each_silo() -> None:
    plan = make_plan(family="linear", local_steps=4, noise_placement="silo")
    assert (plan.training.local_steps, plan.privacy.colluding_silos) == (4, 3)
    assert plan.training.local_learning_rate


def test_every_contradiction_is_said_at_once() -> None:
    document = plan_document()
    document["protection"]["min_silos"] = 9
    document["privacy"]["max_grad_norm"] = 1.0
    document["training"]["rounds"] = 3
    with pytest.raises(ValidationError) as caught:
        Plan.model_validate_json(json.dumps(document))
    text = str(caught.value)
    assert all(
        field in text for field in ("protection.min_silos", "privacy.max_grad_norm", "training.rounds")
    )


AUTOENCODER: dict[str, Any] = {"family": "autoencoder"}


def test_an_autoencoder_needs_no_setting_of_its_own() -> None:
    plan = make_plan(**AUTOENCODER)
    assert not plan.is_statistics
    assert plan.model.model_dump() == {
        "family": "autoencoder",
        "features": 80,
        "hidden": 32,
        "input_dropout": 0.4,
        "seed": 0,
        "bias": {"noised": True, "epsilon": 1.0},
        "start_from": None,
    }
    training = plan.training
    assert (training.rounds, training.optimizer, training.decay, training.second_moment_decay) == (
        60,
        "adam",
        "linear",
        0.99,
    )
    assert plan.privacy.clipping == "automatic"
    assert training.expected_batch_size == 4 * 4096


def test_its_basis_is_never_wider_than_the_catalogue() -> None:
    assert make_plan(**AUTOENCODER, catalogue_items=20).model.model_dump()["features"] == 20
    assert "at most as many columns" in refused({"model.features": 301}, **AUTOENCODER)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model.features": 2001}, "less than or equal"),
        ({"model.hidden": 0}, "greater than"),
        ({"model.input_dropout": 1.0}, "less than 1"),
        ({"model.seed": 2**32}, "less than"),
        ({"model.seed": -1}, "greater than"),
        ({"model.start_from": "ab"}, "match pattern"),
        ({"model.bias": "counted"}, "none"),
        ({"model.bias": {"noised": False, "epsilon": 0.5}}, "True"),
        (
            {"model.bias": {"noised": True, "epsilon": 4.0}},
            "leaves nothing of target_epsilon 4 to the training",
        ),
        ({"training.decay": "cosine"}, "linear"),
        ({"training.second_moment_decay": 1.0}, "less than 1"),
        ({"privacy.clipping": "none"}, "automatic"),
        ({"protection.min_silos": 3, "protection.round_minutes": 0.0}, "greater than 0"),
    ],
)
def test_what_is_out_of_range_in_a_trained_plan_is_refused(changes: dict[str, Any], why: str) -> None:
    assert why in refused(changes, **AUTOENCODER)


def test_so_many_silos_may_be_absent_that_two_shares_stay_outside_the_collusion() -> None:
    six = tuple(f"s{number}" for number in range(6))
    assert make_plan(**AUTOENCODER, silos=six).fewest_contributors == 6
    patient: dict[str, Any] = {"silos": six, "min_silos": 2, "round_minutes": 5.0} | AUTOENCODER
    assert make_plan(**patient).fewest_contributors == 3
    assert make_plan(**patient, colluding_silos=3).fewest_contributors == 5
    assert make_plan(**patient, noise_placement="silo").fewest_contributors == 2
    assert make_plan(**(patient | {"min_silos": 4})).fewest_contributors == 4


def test_statistics_wait_for_everybody_whatever_min_silos_says() -> None:
    assert make_plan(min_silos=2).fewest_contributors == 4
