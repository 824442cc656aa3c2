"""A second accountant: epsilon from recorded events, by other code than the ledger's filter.

It shares nothing with :mod:`privacy.accounting`: it reads the JSON of an entry itself, after the
compatibility law of :mod:`privacy.events`, and composes with Google's ``dp_accounting``, two ways:

- privacy loss distributions (PLD; Koskela et al. 2020, Doroshenko et al. 2022), numerical and tight, rounded
  to the pessimistic side;
- Rényi divergences (RDP; Mironov 2017, Mironov et al. 2019) over that library's own grid of orders.

Both are upper bounds of the true epsilon; the smaller one is the second opinion. Clamped noise costs
``(1 + e^epsilon) Σp`` of delta beside what the mechanisms cost. What it does not know it refuses.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from dp_accounting import dp_event
from dp_accounting.pld import common, privacy_loss_distribution
from dp_accounting.rdp import RdpAccountant

from privacy.events import UnknownEventError

DISCRETISATION = 1e-3
"""Of privacy losses; ten times finer moves no figure of the tests by 1e-3, and takes ten times as long."""

_SAMPLER = "discrete-gaussian/v1"
_MAX_ITERATIONS = 60
_SETTLED = 1e-12
_LARGEST_EXPONENT = 700.0
_FIELDS: dict[str, frozenset[str]] = {
    "gaussian": frozenset({"kind", "noise_multiplier", "sampler", "clamp_probability"}),
    "poisson_sampled_gaussian": frozenset(
        {"kind", "noise_multiplier", "sample_rate", "max_silos_per_user", "sampler", "clamp_probability"}
    ),
    "pure": frozenset({"kind", "epsilon"}),
    "self_composed": frozenset({"kind", "event", "count"}),
}


class Gaussian(NamedTuple):
    """Gaussian noise of this standard deviation on a sum that one person moves by at most 1."""

    noise_multiplier: float


class Sampled(NamedTuple):
    """The same on a Poisson sample, with one person in up to ``max_silos`` independently sampled silos."""

    noise_multiplier: float
    sample_rate: float
    max_silos: int


class Pure(NamedTuple):
    """Any mechanism with pure epsilon-differential privacy."""

    epsilon: float


Mechanism = Gaussian | Sampled | Pure


class Part(NamedTuple):
    """A mechanism, how often it ran, and the probability that its noise was clamped each time."""

    mechanism: Mechanism
    times: int
    clamp_probability: float


@dataclass(frozen=True)
class SecondOpinion:
    """What the second accountant finds, at one delta.

    Attributes:
        pld: epsilon by privacy loss distributions; infinity where clamped noise costs all of delta.
        rdp: epsilon by Rényi divergences, None where that accountant knows no bound for a mechanism.
    """

    pld: float
    rdp: float | None

    @property
    def epsilon(self) -> float:
        """The smaller bound."""
        return self.pld if self.rdp is None else min(self.pld, self.rdp)


class SecondAccountant:
    """Composes recorded events; remembers what it has composed before."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, float], SecondOpinion] = {}

    def opinion(self, events: Mapping[str, int], delta: float) -> SecondOpinion:
        """Epsilon of all ``events`` together.

        Args:
            events: how often each was released, by the JSON text of the event.
            delta: the whole delta, between 0 and 1.

        Raises:
            UnknownEventError: an event that this accountant does not know.
        """
        key = (json.dumps(sorted(events.items())), delta)
        if key not in self._known:
            parts = [read_event(json.loads(text), count) for text, count in sorted(events.items()) if count]
            self._known[key] = _opinion(parts, delta)
        return self._known[key]


def read_event(event: object, count: int = 1) -> Part:
    """Read the JSON object of a recorded event.

    Args:
        event: decoded JSON.
        count: how often it was released.

    Raises:
        UnknownEventError: another kind, other fields or values than the compatibility law gives it.
    """
    if not isinstance(event, Mapping) or not isinstance(event.get("kind"), str):
        raise _unknown(event)
    kind = event["kind"]
    if frozenset(event) != _FIELDS.get(kind):
        raise _unknown(event)
    if kind == "self_composed":
        inner = event["event"]
        if not isinstance(inner, Mapping) or inner.get("kind") in {"self_composed", "pure"}:
            raise _unknown(event)
        return read_event(inner, count * _whole(event, "count", at_least=2))
    if kind == "pure":
        return Part(Pure(_positive(event, "epsilon")), count, 0.0)
    clamp = _number(event, "clamp_probability")
    if event["sampler"] != _SAMPLER or not 0 <= clamp < 1:
        raise _unknown(event)
    noise = _positive(event, "noise_multiplier")
    if kind == "gaussian":
        return Part(Gaussian(noise), count, clamp)
    rate, silos = _positive(event, "sample_rate"), _whole(event, "max_silos_per_user", at_least=1)
    if rate > 1:
        raise _unknown(event)
    return Part(Gaussian(noise) if rate == 1 else Sampled(noise, rate, silos), count, clamp)


def _opinion(parts: Iterable[Part], delta: float) -> SecondOpinion:
    composed = _merged(parts)
    clamp = math.fsum(part.times * part.clamp_probability for part in parts)
    if not composed:
        return SecondOpinion(0.0, 0.0)
    loss = _loss_distribution(composed)
    accountant = _renyi(composed)
    return SecondOpinion(
        pld=_with_clamping(lambda share: float(loss.get_epsilon_for_delta(share)), clamp, delta),
        rdp=None
        if accountant is None
        else _with_clamping(lambda share: float(accountant.get_epsilon(share)), clamp, delta),
    )


def _merged(parts: Iterable[Part]) -> dict[Mechanism, int]:
    """Equal mechanisms counted together, and all unsampled Gaussians as the one they amount to.

    Adaptive composition of Gaussians is exactly the Gaussian with ``1/z² = Σ 1/z_i²`` (Dong, Roth, Su 2022,
    corollary 3.3).
    """
    counts: dict[Mechanism, int] = {}
    precision = 0.0
    for mechanism, times, _ in parts:
        if isinstance(mechanism, Gaussian):
            precision += times / mechanism.noise_multiplier**2
        else:
            counts[mechanism] = counts.get(mechanism, 0) + times
    if precision:
        counts[Gaussian(1 / math.sqrt(precision))] = 1
    return counts


def _loss_distribution(composed: Mapping[Mechanism, int]) -> Any:
    total = privacy_loss_distribution.identity(value_discretization_interval=DISCRETISATION)
    for mechanism, times in composed.items():
        total = total.compose(_single_loss(mechanism).self_compose(times))
    return total


def _single_loss(mechanism: Mechanism) -> Any:
    if isinstance(mechanism, Gaussian):
        return privacy_loss_distribution.from_gaussian_mechanism(
            mechanism.noise_multiplier, value_discretization_interval=DISCRETISATION
        )
    if isinstance(mechanism, Pure):
        worst = common.DifferentialPrivacyParameters(mechanism.epsilon, 0.0)
        return privacy_loss_distribution.from_privacy_parameters(
            worst, value_discretization_interval=DISCRETISATION
        )
    silos, rate = mechanism.max_silos, mechanism.sample_rate
    return privacy_loss_distribution.from_mixture_gaussian_mechanism(
        mechanism.noise_multiplier,
        [hits / silos for hits in range(silos + 1)],
        [math.comb(silos, hits) * rate**hits * (1 - rate) ** (silos - hits) for hits in range(silos + 1)],
        value_discretization_interval=DISCRETISATION,
    )


def _renyi(composed: Mapping[Mechanism, int]) -> RdpAccountant | None:
    accountant = RdpAccountant()
    for mechanism, times in composed.items():
        if isinstance(mechanism, Gaussian):
            accountant.compose(dp_event.GaussianDpEvent(mechanism.noise_multiplier), times)
        elif isinstance(mechanism, Pure):
            accountant.compose(dp_event.ZCDpEvent(0.5 * mechanism.epsilon**2), times)
        elif mechanism.max_silos == 1:
            noise = dp_event.GaussianDpEvent(mechanism.noise_multiplier)
            accountant.compose(dp_event.PoissonSampledDpEvent(mechanism.sample_rate, noise), times)
        else:
            return None
    return accountant


def _with_clamping(epsilon_at: Callable[[float], float], clamp: float, delta: float) -> float:
    """The epsilon at which mechanisms and clamped noise together cost ``delta``, approached from below."""
    epsilon = epsilon_at(delta)
    if not clamp:
        return epsilon
    for _ in range(_MAX_ITERATIONS):
        extra = clamp * (1 + math.exp(min(epsilon, _LARGEST_EXPONENT)))
        if extra >= delta:
            return math.inf
        following = epsilon_at(delta - extra)
        if following <= epsilon * (1 + _SETTLED):
            return max(epsilon, following)
        epsilon = following
    return math.inf


def _number(event: Mapping[str, Any], name: str) -> float:
    value = event[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _unknown(event)
    return float(value)


def _positive(event: Mapping[str, Any], name: str) -> float:
    value = _number(event, name)
    if value <= 0:
        raise _unknown(event)
    return value


def _whole(event: Mapping[str, Any], name: str, *, at_least: int) -> int:
    value = event[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise _unknown(event)
    return value


def _unknown(event: object) -> UnknownEventError:
    text = json.dumps(event, default=str)[:120]
    return UnknownEventError(
        f"the second accountant does not know this event: {text}",
        remedy="replay with a version of archipel that knows it; no event is left out or guessed",
    )
