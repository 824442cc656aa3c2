"""Which numbers of a plan are searched, and how far from what it says now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from policies.plans.drafting import recalibrate
from policies.plans.models import MAX_NETWORK_WIDTH, NETWORK_WIDTH_STEP
from policies.plans.plan import Plan
from policies.validation import validate_values

Values = Mapping[str, float]
"""Numbers of a plan by their dotted paths."""


@dataclass(frozen=True)
class Dimension:
    """One number of a plan.

    Attributes:
        path: dotted, as in the file.
        low: least value that is tried.
        high: largest.
        is_whole: whether only whole numbers can be.
        is_log: whether equal factors, not equal differences, are equally far.
        step: whole numbers only: of which it is a multiple, as its ends are.
    """

    path: str
    low: float
    high: float
    is_whole: bool = False
    is_log: bool = True
    step: int = 1

    def in_steps(self, value: float) -> float:
        """A number of the plan as a multiple of the step."""
        return value // self.step if self.is_whole else value


@dataclass(frozen=True)
class _Reach:
    """How far a number is searched: by a factor around what the plan says, within what it may be at all."""

    factor: float
    low: float
    high: float
    is_whole: bool = False


_REACHES: Final[Mapping[str, _Reach]] = {
    "max_interactions_per_user": _Reach(4.0, 4, 100_000, is_whole=True),
    "model.rank": _Reach(16.0, 1, 64, is_whole=True),
    "model.hidden": _Reach(4.0, 1, 1_024, is_whole=True),
    "training.rounds": _Reach(3.0, 1, 10_000, is_whole=True),
    "training.learning_rate": _Reach(8.0, 1e-6, 1e6),
    "training.local_learning_rate": _Reach(8.0, 1e-6, 1e6),
    "privacy.max_grad_norm": _Reach(8.0, 1e-6, 1e6),
}
_DROPOUT: Final = Dimension("model.input_dropout", 0.0, 0.8, is_log=False)
_POPULARITY_EPSILON: Final = "model.bias.epsilon"
_POPULARITY_SHARES: Final = (0.05, 0.6)


def dimensions(plan: Plan) -> tuple[Dimension, ...]:
    """What of a horizontal plan can be searched: the numbers that change its model and not its promise."""
    document = plan.model_dump(mode="json")
    found = []
    for path, reach in _REACHES.items():
        value = _at(document, path)
        if value is None or not _matters(plan, path):
            continue
        low, high = max(reach.low, value / reach.factor), min(reach.high, value * reach.factor)
        if path == "max_interactions_per_user":
            high = max(value, min(high, plan.catalogue.items))
        step = 1
        if path == "model.hidden" and plan.reads_order:
            high, step = min(high, MAX_NETWORK_WIDTH), NETWORK_WIDTH_STEP
        if reach.is_whole:
            low, high = step * max(1, round(low / step)), step * round(high / step)
        found.append(Dimension(path, low, high, reach.is_whole, step=step))
    if plan.may_hide_items:
        found.append(_DROPOUT)
    if plan.popularity is not None:
        low, high = (share * plan.privacy.target_epsilon for share in _POPULARITY_SHARES)
        found.append(Dimension(_POPULARITY_EPSILON, low, max(high, plan.popularity.epsilon)))
    return tuple(found)


def values_of(plan: Plan) -> dict[str, float]:
    """What a plan says of its own dimensions."""
    document = plan.model_dump(mode="json")
    return {dimension.path: _at(document, dimension.path) for dimension in dimensions(plan)}


def with_values(plan: Plan, values: Values) -> Plan:
    """The plan with other numbers, and the noise that keeps its promise with them.

    Raises:
        PlanImpossibleError, CalibrationError: no noise or grid can do it.
        PolicyFileError: a number out of range.
    """
    document = plan.model_dump(mode="json", exclude_unset=True)
    for path, value in values.items():
        section, *names = path.split(".")
        if not names:
            document[section] = value
            continue
        inner = document[section]
        for name in names[:-1]:
            inner = inner[name]
        inner[names[-1]] = value
    return recalibrate(validate_values(document, Plan, "plan"), plan.privacy.target_epsilon)


def _matters(plan: Plan, path: str) -> bool:
    """Whether a number that stands in the plan changes anything."""
    match path:
        case "training.rounds":
            return not plan.is_statistics
        case "training.local_learning_rate":
            return plan.training.local_steps > 1
        case "privacy.max_grad_norm":
            return plan.privacy.clipping == "flat"
    return True


def _at(document: Mapping[str, Any], path: str) -> Any:
    """What stands there; None where nothing does."""
    value: Any = document
    for name in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value
