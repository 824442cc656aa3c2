"""Privacy events: what a release did, as frozen values that outlive the code that made them.

Compatibility law
-----------------
An event in a ledger is read by every later version of this package, and by auditors with other software:

1. A ``kind`` means for ever what it meant when it was first written. Its fields, their names, their
   normalisation and the mechanism behind them never change; what needs one more field is another kind.
2. The JSON form of an event is the object of *all* its fields. It is stable byte for byte in canonical
   JSON (vectors in ``tests/golden``), so it may be signed and hashed.
3. Events are composed, never re-interpreted, and never removed from a record.
4. What this version does not know, it refuses (``UnknownEventError``): no default, no best guess.

Normalisation: ``noise_multiplier`` is the standard deviation of the promised noise over the *full* L2
sensitivity of the integers actually summed: the most by which one person, present in up to
``max_silos_per_user`` silos, can move that sum, rounding included. The relation is add-or-remove-one and
the unit is what the plan says (one person's whole history).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from privacy.errors import DeniedError

SAMPLER: Final = "discrete-gaussian/v1"

_Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_Probability = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]


class UnknownEventError(DeniedError):
    """An event this version cannot read, and therefore neither composes nor ignores."""

    code = "unknown_event"


class Record(BaseModel):
    """Frozen, closed base of events, filters and budgets; every field is always part of its JSON form."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_post_init(self, _context: Any, /) -> None:
        """Mark every field as set: canonical bytes leave out unset fields, and a record has none."""
        self.__pydantic_fields_set__.update(type(self).model_fields)


class GaussianEvent(Record):
    """Discrete Gaussian noise on an integer sum of everybody's clipped contributions.

    Obeys the Rényi bound ``α / (2 noise_multiplier²)`` of the continuous Gaussian at every order
    (Canonne, Kamath, Steinke 2020, theorem 7).

    Attributes:
        noise_multiplier: std of the noise over the full L2 sensitivity (see the module's normalisation).
        sampler: name and version of the code that drew the noise.
        clamp_probability: at most this is the probability that any noise of the release was clamped, so that
            it was not Gaussian. A bare probability: what it costs of delta grows with the epsilon of all that
            is composed, which an event cannot know.
    """

    kind: Literal["gaussian"] = "gaussian"
    noise_multiplier: _Positive
    sampler: Literal["discrete-gaussian/v1"]
    clamp_probability: _Probability = 0.0


class PoissonSampledGaussianEvent(Record):
    """The same on a Poisson sample of users, each silo tossing its own independent coins.

    One person in ``m = max_silos_per_user`` silos enters Binomial(m, sample_rate) of their sums, so the
    privacy loss is that of the mixture ``Σ_j Binomial(m, sample_rate)(j) · N(j/m, noise_multiplier²)``
    against ``N(0, noise_multiplier²)`` (Choquette-Choo et al. 2023, arXiv:2310.15526).

    Attributes:
        noise_multiplier: std over the full sensitivity, i.e. with the person in all ``m`` silos' batches.
        sample_rate: probability with which each user joins the batch.
        max_silos_per_user: in how many silos of the roster one person may be.
        sampler: name and version of the code that drew the noise.
        clamp_probability: at most this is the probability that any noise of the release was clamped.
    """

    kind: Literal["poisson_sampled_gaussian"] = "poisson_sampled_gaussian"
    noise_multiplier: _Positive
    sample_rate: Annotated[float, Field(strict=True, gt=0, le=1)]
    max_silos_per_user: Annotated[int, Field(strict=True, ge=1, le=1024)]
    sampler: Literal["discrete-gaussian/v1"]
    clamp_probability: _Probability = 0.0


class PureEvent(Record):
    """Any mechanism with pure ``epsilon``-differential privacy, such as a noised alignment count."""

    kind: Literal["pure"] = "pure"
    epsilon: _Positive


_NoisedStep = Annotated[GaussianEvent | PoissonSampledGaussianEvent, Field(discriminator="kind")]


class SelfComposedEvent(Record):
    """The same mechanism several times over, seen from outside as one release.

    Each step may depend on the noised results of the steps before it (adaptive composition), as in the local
    DP-SGD steps of one silo: every step draws its own Poisson sample and its own full noise, and only their
    sum leaves. It costs what its steps cost one by one, under every filter and to the last bit.

    Attributes:
        event: one step.
        count: how many steps, at least 2 (one step is ``event`` itself: every release has one spelling).
    """

    kind: Literal["self_composed"] = "self_composed"
    event: _NoisedStep
    count: Annotated[int, Field(strict=True, ge=2, le=1_000_000)]


Event = Annotated[
    GaussianEvent | PoissonSampledGaussianEvent | PureEvent | SelfComposedEvent, Field(discriminator="kind")
]


class EventCount(NamedTuple):
    """The same event ``count`` times."""

    event: Event
    count: int  # type: ignore[assignment]  # tuple.count has no meaning here


Step = GaussianEvent | PoissonSampledGaussianEvent | PureEvent
"""An event that is not itself composed."""


class Steps(NamedTuple):
    """A release as what it is made of: ``event``, ``count`` times."""

    event: Step
    count: int  # type: ignore[assignment]  # tuple.count has no meaning here


_EVENT: TypeAdapter[GaussianEvent | PoissonSampledGaussianEvent | PureEvent | SelfComposedEvent] = (
    TypeAdapter(Event)
)


def parse_event(obj: Mapping[str, object] | Event) -> Event:
    """Read an event from its JSON object.

    Args:
        obj: the decoded JSON object, or an event (returned as it is).

    Returns:
        The frozen event.

    Raises:
        UnknownEventError: the kind is unknown, a field is missing, unknown or out of range.
    """
    try:
        return _EVENT.validate_python(obj)
    except ValidationError as error:
        found = obj.get("kind") if isinstance(obj, Mapping) else type(obj).__name__
        first = error.errors(include_input=False, include_url=False)[0]
        raise UnknownEventError(
            f"privacy event of kind {found!r} cannot be read: {first['msg']}",
            where=".".join(map(str, first["loc"])) or None,
            remedy="use a version of archipel that knows this event; events are never skipped",
        ) from error


def steps_of(event: Event) -> Steps:
    """The single mechanism of an event and how often it ran: once, unless the event is self-composed."""
    return Steps(event.event, event.count) if isinstance(event, SelfComposedEvent) else Steps(event, 1)


def clamp_probability_of(event: Event) -> float:
    """Bound on the probability that any of the release's noise was clamped, below 1.

    0 for mechanisms without clamping. The steps of a self-composed release add up (union bound), rounded up;
    a sum above 1, which says nothing, counts as the largest number below it.
    """
    step, count = steps_of(event)
    probability = 0.0 if isinstance(step, PureEvent) else step.clamp_probability
    if count == 1 or probability == 0:
        return probability
    return min(math.nextafter(count * probability, 1.0), math.nextafter(1.0, 0.0))
