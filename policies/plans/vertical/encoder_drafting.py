"""From a promise to a plan with a private encoder: the least noise in its training that keeps the promise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from policies.plans.plan import Plan
from policies.plans.shapes import num_values
from policies.plans.vertical.drafting import VerticalDraft, calibrated, vertical_document
from policies.plans.vertical.encoder_price import encoder_step
from policies.validation import validate_values

_ROUNDING_COST = 0.005


@dataclass(frozen=True, kw_only=True)
class EncoderDraft:
    """What a private encoder needs beside a vertical draft; the defaults are those of the recipe.

    Attributes:
        dimensions: numbers that stand for one person.
        release_share: of ``target_epsilon``, what their release may cost if alone.
        input_dropout: share of a row that a step hides from the encoder and asks it for.
        steps: of the training.
        sample_rate: Poisson probability of each person per step; below 1 needs a Rényi filter.
        expected_batch_size: divisor of a summed gradient; left out: what the smallest list of people gives.
        learning_rate: of Adam, falling linearly to 0.
        seed: of the first weights.
    """

    dimensions: int = 8
    release_share: float = 0.8
    input_dropout: float = 0.4
    steps: int = 40
    sample_rate: float = 1.0
    expected_batch_size: float | None = None
    learning_rate: float = 0.005
    seed: int = 0


def complete_encoder_plan(draft: VerticalDraft, encoder: EncoderDraft) -> Plan:
    """Return the plan that keeps the draft's promise with the least noise in the encoder's training.

    Guarantees: as :func:`policies.plans.vertical.drafting.complete_vertical_plan`.

    Raises:
        PlanImpossibleError: no noise does it.
        PolicyFileError: fields out of range or contradicting each other; all problems at once.
        CalibrationError: alignment and release alone use up the promise.
    """
    document = _document(draft, encoder)
    start = validate_values(document, Plan, "plan")
    document["privacy"]["grid"] = math.ceil(math.sqrt(num_values(start)) / _ROUNDING_COST)
    plan = calibrated(document)
    encoder_step(plan)
    return plan


def _document(draft: VerticalDraft, encoder: EncoderDraft) -> dict[str, Any]:
    document = vertical_document(draft)
    optimizer: Literal["adam"] = "adam"
    smallest = min(draft.capacities.values(), default=1)
    document["model"] = {
        "family": "private-encoder",
        "label_items": document["model"]["label_items"],
        "dimensions": encoder.dimensions,
        "release_epsilon": encoder.release_share * draft.target_epsilon,
        "input_dropout": encoder.input_dropout,
        "seed": encoder.seed,
    }
    document["training"] = {
        "rounds": encoder.steps,
        "sample_rate": encoder.sample_rate,
        "expected_batch_size": encoder.expected_batch_size or max(1.0, encoder.sample_rate * smallest),
        "optimizer": optimizer,
        "learning_rate": encoder.learning_rate,
        "decay": "linear",
        "second_moment_decay": 0.99,
    }
    del document["privacy"]["contribution_norm"]
    document["privacy"] |= {"max_grad_norm": 1.0, "clipping": "automatic"}
    return document
