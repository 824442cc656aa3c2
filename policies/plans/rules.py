"""Rules across the fields of a plan. Each names its field, says why, and what to write instead."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from policies.plans.models import MAX_NETWORK_WIDTH, NETWORK_WIDTH_STEP

if TYPE_CHECKING:
    from policies.plans.models import EncoderAdapter
    from policies.plans.plan import Plan

MAX_ITEM_GRAPH_ITEMS = 20_000


def plan_problems(plan: Plan) -> Iterator[str]:
    """Yield every contradiction as ``field: what is wrong; what to write``; none in a valid plan.

    Args:
        plan: a plan whose single fields are in range.
    """
    yield from _roster_problems(plan)
    yield from _collusion_problems(plan)
    yield from _vertical_problems(plan)
    yield from catalogue_problems(plan)
    if plan.is_statistics:
        yield from _statistics_problems(plan)
    else:
        yield from gradient_problems(plan)
        yield from _optimizer_problems(plan)
        yield from _local_problems(plan)
        yield from _absence_problems(plan)
    yield from _network_problems(plan)
    if plan.model.family in ("autoencoder", "sequence") and plan.model.features > plan.catalogue.items:
        yield f"model.features: a basis of {plan.catalogue.items} items has at most as many columns"
    popularity, target_epsilon = plan.popularity, plan.privacy.target_epsilon
    if popularity is not None and popularity.epsilon >= target_epsilon:
        yield (
            f"model.bias.epsilon: {popularity.epsilon:g} leaves nothing of target_epsilon {target_epsilon:g} "
            f"to the training; write less, such as {target_epsilon / 4:g}"
        )


def _network_problems(plan: Plan) -> Iterator[str]:
    model = plan.model
    if model.family not in ("language", "sequence"):
        return
    if model.architecture == "bottleneck":
        for name in sorted({"layers", "places"} & model.model_fields_set):
            yield (
                f"model.{name}: bottleneck adds up a history and reads no order; leave it out, or write "
                "another architecture"
            )
        if model.negatives is not None:
            yield (
                "model.negatives: bottleneck scores its list once a person, not at every place, so all of it "
                "can compete; leave it out"
            )
        return
    if model.family == "language" and model.adapter is not None:
        yield (
            f"model.encoder_adapter: {model.architecture} reads places of the frozen encoder; leave it out, "
            "or write architecture: bottleneck"
        )
    negatives = model.negatives if model.family == "language" else None
    if negatives is not None and negatives.count >= negatives.above:
        yield (
            f"model.negatives.count: {negatives.count:,} of a list of more than {negatives.above:,} items "
            "save nothing; write fewer, or a larger above"
        )
    if model.input_dropout and not plan.may_hide_items:
        yield (
            f"model.input_dropout: {model.architecture} is asked for every next item and hides none; "
            "leave it out, or write architecture: masked"
        )
    if model.hidden % NETWORK_WIDTH_STEP or not 2 <= model.hidden <= MAX_NETWORK_WIDTH:
        yield f"model.hidden: {model.architecture} has an even width, from 2 to {MAX_NETWORK_WIDTH}"


def catalogue_problems(plan: Plan) -> Iterator[str]:
    """Yield where the kind of catalogue and the family do not belong together."""
    model, kind = plan.model, plan.catalogue.kind
    if kind == "per_silo" and model.family != "language":
        yield (
            f"catalogue.kind: {model.family} sums over one list of items; write shared, or family: language, "
            "which knows items by their texts"
        )
    if model.family != "language":
        return
    if kind != "per_silo":
        yield (
            "catalogue.kind: language knows items by their texts; write per_silo with the digest of the "
            "encoder, also where all silos rank one list"
        )
    if model.dimensions >= plan.catalogue.items:
        yield (
            f"model.dimensions: {plan.catalogue.items} reference texts span at most "
            f"{plan.catalogue.items - 1} around their mean; write fewer dimensions, or list more texts"
        )
    if model.adapter is not None:
        yield from _adapter_problems(plan, model.adapter)


def _adapter_problems(plan: Plan, adapter: EncoderAdapter) -> Iterator[str]:
    if (adapter.kind == "ffa_lora") != (adapter.outputs is not None):
        yield (
            "model.encoder_adapter.outputs: ffa_lora trains rank times as many values a layer, fed_sb trains "
            "none of them; write adapter_outputs of archipel silo encoder show with ffa_lora only"
        )
    if adapter.columns is None:
        return
    where = "model.encoder_adapter.columns"
    if adapter.kind == "fed_sb":
        yield (
            f"{where}: a core of fed_sb is rank × rank values, of which a silo saves nothing that it would "
            "notice; leave it out, or write a smaller rank"
        )
    for silo, columns in adapter.columns.items():
        if silo not in plan.silos:
            yield f"{where}: {silo} is not in the roster; leave it out"
        if columns > adapter.rank:
            yield f"{where}: {silo} cannot train {columns} columns of rank {adapter.rank}; write fewer"
    untrained = adapter.num_trainers(plan.silos).count(0)
    if untrained:
        yield (
            f"{where}: nobody trains the last {untrained} of {adapter.rank} columns, which would be noise; "
            f"write rank: {adapter.rank - untrained}, or leave a silo out of it"
        )
    if plan.fewest_contributors < plan.num_silos:
        yield (
            f"{where}: a column's step is divided by the people of all who train it, so no round can go on "
            "without one of them; write min_silos: all silos and no round_minutes"
        )


def _vertical_problems(plan: Plan) -> Iterator[str]:
    for name in ("roles", "alignment"):
        if getattr(plan, name) is not None:
            yield f"{name}: only vertical plans align people; write partition: vertical, or leave it out"
    if plan.model.family in ("cross-moments", "private-encoder"):
        yield (
            f"model.family: {plan.model.family} joins other data about the same people; "
            "write partition: vertical"
        )
    if plan.releases.model != "members":
        yield "releases.model: every silo opens the sums, so every silo has the model; write members"


def _roster_problems(plan: Plan) -> Iterator[str]:
    n = plan.num_silos
    if len(set(plan.silos)) != n:
        yield "silos: a silo stands in the roster twice; its contribution would be counted twice"
    if plan.protection.min_silos > n:
        yield f"protection.min_silos: {plan.protection.min_silos} of {n} silos can never contribute"
    if plan.privacy.max_silos_per_user > n:
        yield f"privacy.max_silos_per_user: a person is in at most the {n} silos of the roster"
    if plan.releases.metrics != "none" and plan.holdout.kind == "none":
        yield "releases.metrics: metrics need a holdout; without one they would be measured on training rows"


def _collusion_problems(plan: Plan) -> Iterator[str]:
    n, c = plan.num_silos, plan.privacy.colluding_silos
    if c > n - 1:
        yield f"privacy.colluding_silos: {c} is more than all others of {n} silos; write at most {n - 1}"
    elif plan.privacy.noise_placement == "federation" and n - c < 2:
        yield (
            f"privacy.noise_placement: federation needs two silos outside the collusion, here {n - c}; "
            "write noise_placement: silo"
        )
    elif plan.privacy.noise_placement == "silo" and c != n - 1:
        yield (
            "privacy.colluding_silos: under noise_placement: silo each silo's noise suffices alone; "
            f"write {n - 1}"
        )


def _statistics_problems(plan: Plan) -> Iterator[str]:
    family, training, privacy = plan.model.family, plan.training, plan.privacy
    if privacy.contribution_norm != 1.0:
        yield f"privacy.contribution_norm: {family} normalises each user's statistics to norm 1.0; write 1.0"
    if privacy.max_grad_norm is not None:
        yield f"privacy.max_grad_norm: {family} has no gradients; contribution_norm bounds a user"
    if privacy.clipping != "flat":
        yield f"privacy.clipping: {family} has no gradients to clip; leave it out"
    if training.rounds != 1:
        yield f"training.rounds: {family} is one secure sum, a further one would only cost; write 1"
    if training.sample_rate != 1.0:
        yield f"training.sample_rate: {family} counts every user once; write 1.0"
    if training.local_steps != 1:
        yield f"training.local_steps: {family} takes no steps; write 1"
    steps = {
        "optimizer": training.optimizer is not None,
        "learning_rate": training.learning_rate is not None,
        "expected_batch_size": training.expected_batch_size is not None,
        "local_learning_rate": training.local_learning_rate is not None,
        "decay": training.decay != "none",
        "second_moment_decay": training.second_moment_decay != 0.999,
    }
    for name, is_given in steps.items():
        if is_given:
            yield f"training.{name}: {family} takes no steps; leave it out"
    if plan.protection.round_minutes is not None:
        yield (
            f"protection.round_minutes: {family} has one sum, which waits for every silo: the same "
            "contribution in two sums would show itself; leave it out"
        )
    if family == "item-graph" and plan.catalogue.items > MAX_ITEM_GRAPH_ITEMS:
        yield (
            f"catalogue.items: item-graph sums one value per pair, at most {MAX_ITEM_GRAPH_ITEMS:,} items; "
            "take family: popularity or a smaller catalogue"
        )


def gradient_problems(plan: Plan) -> Iterator[str]:
    """Yield what a training by DP-SGD lacks, or has and should not, whoever trains."""
    training, privacy = plan.training, plan.privacy
    if privacy.max_grad_norm is None:
        yield "privacy.max_grad_norm: an unbounded gradient has no privacy; name the norm it is clipped to"
    if privacy.contribution_norm is not None:
        yield "privacy.contribution_norm: max_grad_norm bounds gradients; leave this out"
    needed = {
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "expected_batch_size": training.expected_batch_size,
    }
    for name, value in needed.items():
        if value is None:
            yield f"training.{name}: {plan.model.family} needs it, the same in every silo"
    if training.sample_rate < 1 and privacy.filter == "zcdp":
        yield (
            "privacy.filter: zcdp cannot price rounds that sample their users; write filter: renyi with "
            "orders such as [2, 4, 8, 16, 32, 64], or training.sample_rate: 1.0"
        )


def _optimizer_problems(plan: Plan) -> Iterator[str]:
    training = plan.training
    if training.optimizer == "sgd" and training.second_moment_decay != 0.999:
        yield "training.second_moment_decay: sgd keeps no squares; leave it out, or write optimizer: adam"


def _local_problems(plan: Plan) -> Iterator[str]:
    training = plan.training
    if training.local_steps > 1 and plan.privacy.noise_placement != "silo":
        yield (
            "training.local_steps: the other silos' noise never protects steps between two sums; "
            "write local_steps: 1 or noise_placement: silo"
        )
    if training.local_steps > 1 and training.local_learning_rate is None:
        yield (
            f"training.local_learning_rate: {training.local_steps} local steps need the step size of plain "
            "SGD, the same in every silo"
        )
    if training.local_steps == 1 and training.local_learning_rate is not None:
        yield (
            "training.local_learning_rate: with one step between two sums only learning_rate is used; "
            "leave it out, or write local_steps above 1"
        )


def _absence_problems(plan: Plan) -> Iterator[str]:
    protection, n = plan.protection, plan.num_silos
    if protection.min_silos < n and protection.round_minutes is None:
        yield (
            f"protection.round_minutes: rounds that may go on with {protection.min_silos} of {n} silos need "
            f"the minutes after which one is absent; write them, or min_silos: {n}"
        )
    if protection.min_silos == n and protection.round_minutes is not None:
        yield (
            f"protection.round_minutes: all {n} silos are needed, so every round waits; "
            "leave it out, or lower min_silos"
        )
