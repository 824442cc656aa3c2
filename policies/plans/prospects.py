"""What a plan leads to, and what another one would: epsilon on the way, noise for an epsilon, people needed.

Everything here is derived from public numbers of the plan; nothing is measured.

**How many people a plan needs.** A person's contribution is a vector of norm 1. If all of them pointed the
same way, ``steps`` steps of ``people`` each would sum to a vector of norm ``people · steps``, and their noise
to one of norm ``noise · √(steps · directions)``::

    reach = people · √steps / (noise · √directions)

``noise`` is the standard deviation of one value of one step's aggregate over that norm, all shares included.
``directions`` is how many dimensions of noise the model cannot tell from signal: all values of a gradient or
of counts; ``2 · items`` of an item graph, because what its solver keeps of a symmetric noise matrix is the
largest eigenvalue (about ``2 · noise · √items``) against a trace of ``√2 · people``. Schedules do not matter:
twice as many rounds at the same epsilon have √2 times the noise each.

Real contributions point many ways, so the reach that is needed was read off runs on real data, each against
counting (``docs/explanation-useful-plans.md``). Below it no run was worth its epsilon; above it nothing is
promised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policies.plans.drafting import recalibrate
from policies.plans.plan import Plan
from policies.plans.price import (
    RoundShape,
    committed_events,
    popularity_shape,
    reserved_events,
    schedule,
    spent_epsilon,
    training_shape,
)
from policies.plans.vertical.drafting import recalibrate_vertical
from privacy.errors import UsageError
from privacy.events import EventCount

USEFUL_REACH: Final[Mapping[str, float]] = {"popularity": 3.0, "item-graph": 4.0, "gradients": 9.0}
"""By what is summed: where noised counts rank nearly like true ones, where a model first beats counting."""

PARTS: Final = (0.01, 0.25, 0.5, 0.75, 1.0)

_MOST_ROUNDS = 10_000


class OneSumError(UsageError):
    """A question about rounds of a plan that has none to choose."""

    code = "one_sum"


@dataclass(frozen=True)
class Milestone:
    """What one person's privacy has cost when so many training rounds are done.

    Attributes:
        part: of the training rounds.
        rounds: of the training, done.
        epsilon: of everything released until then, without failures, at the plan's delta and filter.
    """

    part: float
    rounds: int
    epsilon: float


@dataclass(frozen=True)
class Need:
    """How many people a plan needs before what it learns stands out of its noise.

    Attributes:
        people: over all silos; fewer are pointless.
        planned: how many the plan itself counts on, by its public bounds and ``expected_batch_size``.
    """

    people: int
    planned: int

    @property
    def is_pointless(self) -> bool:
        """Whether not even as many people as the plan counts on would do."""
        return self.people > self.planned


def milestones(plan: Plan) -> tuple[Milestone, ...]:
    """Return the epsilon after 1, 25, 50, 75 and 100 % of the training, what came before it included.

    Where popularity is counted first, that alone comes first, with 0 rounds.
    """
    before, total = sum(shape.purpose == "popularity" for shape in schedule(plan)), plan.training.rounds
    wanted = [0] * before + [max(1, math.floor(part * total)) for part in PARTS]
    found = []
    for rounds in dict.fromkeys(wanted):
        events = committed_events(plan, [(number, 1) for number in range(1, before + rounds + 1)])
        found.append(Milestone(rounds / total, rounds, spent_epsilon(plan, events)))
    return tuple(found)


def noise_for(plan: Plan, epsilon: float) -> float:
    """Return the noise multiplier with which the same plan costs ``epsilon``; see :func:`recalibrate`.

    Raises:
        ArchipelError: no noise can do it.
    """
    again = recalibrate_vertical if plan.is_vertical else recalibrate
    return again(plan, epsilon).privacy.noise_multiplier


def rounds_affordable(plan: Plan, fits: Callable[[Sequence[EventCount]], bool]) -> int:
    """Return with how many training rounds, at the noise it has, all of a plan fits; 0 if not even one does.

    Args:
        plan: of a trained family.
        fits: whether somebody can pay for everything a plan may release; true of fewer events wherever it is
            true of more.

    Raises:
        OneSumError: the plan has no rounds to choose.
    """
    if plan.is_statistics or plan.is_vertical:
        what = "one shot" if plan.is_vertical else "one secure sum"
        raise OneSumError(
            f"{plan.model.family} is {what}; it has no number of rounds",
            where="model.family",
            remedy="ask for the noise of another epsilon instead",
        )

    def is_affordable(rounds: int) -> bool:
        training = plan.training.model_copy(update={"rounds": rounds})
        return fits(reserved_events(plan.model_copy(update={"training": training})))

    low, high = 0, 1
    while high <= _MOST_ROUNDS and is_affordable(high):
        low, high = high, 2 * high
    high = min(high, _MOST_ROUNDS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_affordable(middle) else (low, middle)
    return low


def rounds_for(plan: Plan, epsilon: float) -> int:
    """Return how many training rounds, at their present noise, cost at most ``epsilon`` with all else."""
    return rounds_affordable(plan, lambda events: spent_epsilon(plan, events) <= epsilon)


def need_of(plan: Plan) -> Need:
    """Return how many people a plan needs (see the module), and how many it counts on."""
    sums = [shape for shape in (popularity_shape(plan), training_shape(plan)) if shape is not None]
    planned = plan.num_silos * plan.max_users_per_silo
    training = plan.training
    if training.expected_batch_size is not None:
        planned = min(planned, math.ceil(training.expected_batch_size / training.sample_rate))
    return Need(max(math.ceil(_people_needed(plan, shape)) for shape in sums), planned)


def _people_needed(plan: Plan, shape: RoundShape) -> float:
    """Return how many people it takes until this sum, or all sums of a training, reach far enough."""
    noise = shape.share_std * math.sqrt(plan.num_silos) / shape.grid
    training = plan.training
    if shape.purpose == "popularity" or plan.model.family == "popularity":
        return USEFUL_REACH["popularity"] * noise * math.sqrt(shape.values)
    if plan.model.family == "item-graph":
        return USEFUL_REACH["item-graph"] * noise * math.sqrt(2 * plan.catalogue.items)
    steps = training.rounds * training.local_steps
    return USEFUL_REACH["gradients"] * noise * math.sqrt(shape.values / steps) / training.sample_rate
