"""The coordinator and the silos that help it, against one honest silo after the other.

They pool every stream and post, the BFV key, the group key, the helpers' own ephemeral keys and
contributions. Up to the sum of the honest rest, what they read must be uniform and tell nothing of what a
silo drew; and that sum must carry the promised noise, with everything subtracted that they know.
"""

from __future__ import annotations

from itertools import combinations
from math import sqrt
from typing import Final

import numpy as np

from policies.plans.price import RoundShape, reserved_events
from privacy.accounting import epsilon_of
from privacy.events import Event, EventCount, PureEvent, SelfComposedEvent
from privacy.packing import PLAIN_MODULUS
from silo.audit.attack.canary import colluders_noise, known_signal
from silo.audit.attack.claims import CONFIDENCE
from silo.audit.attack.recording import Integers, Recording
from silo.audit.attack.results import Attacked, Report
from silo.audit.attack.statistics import (
    BY_CHANCE,
    correlation_in_stds,
    p_independent,
    p_of_less_variance,
    p_of_more_variance,
    p_uniform,
)
from silo.audit.attack.streams import opened, peeled
from silo.models.base import Family, State

NAME: Final = "collusion"
SIX_STDS: Final = 6.0


def attack(recording: Recording, report: Report) -> Attacked:
    """Read each honest stream, combine them, measure the noise that is left, and add one helper more."""
    attacked = Attacked(NAME)
    coalition = tuple(recording.secrets(silo) for silo in recording.manifest.colluders)
    slots: dict[str, Integers] = {}
    told: dict[str, float] = {}
    for victim in recording.honest:
        report(f"collusion: reading the stream of {victim}")
        whole = opened(recording, victim, coalition)
        told[victim] = _least_p(recording, whole, victim)
        slots[victim] = peeled(recording, victim, whole, coalition)
    _each_alone(attacked, recording, slots, told)
    _together(attacked, recording, slots)
    report("collusion: measuring the noise that is left")
    _noise(attacked, recording)
    _one_more(attacked, recording)
    return attacked


# ── what the streams say ──


def _each_alone(
    attacked: Attacked, recording: Recording, slots: dict[str, Integers], told: dict[str, float]
) -> None:
    """Streams, and every combination that is not all of them, keep a mask of two honest silos.

    Args:
        attacked: where it is noted.
        recording: of the job.
        slots: of each honest silo, without the helpers' masks.
        told: p-values of the same with them.
    """
    told = dict(told)
    for names in _combinations(tuple(slots)):
        mixed = np.sum([slots[name] for name in names], axis=0) % PLAIN_MODULUS
        for name in names:
            told[name] = min(told[name], _least_p(recording, mixed, name))
    exposed = [name for name, p in told.items() if p < BY_CHANCE]
    attacked.check(
        "coordinator and helpers decrypt each honest stream and take their masks off",
        f"least p-value {min(told.values()):.2g} that slots are uniform and tell nothing of what was drawn",
        code="contribution_exposed",
        where="coordinator/streams",
        found=f"the streams of {', '.join(exposed)} are not covered by masks" if exposed else None,
    )


def _combinations(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Each stream alone, and all but one of them: every one of these keeps a mask.

    None of an only honest silo: the plan covers that its noised contribution is read.
    """
    if len(names) == 1:
        return []
    alone: list[tuple[str, ...]] = [(name,) for name in names]
    return alone if len(names) == 2 else alone + list(combinations(names, len(names) - 1))


def _least_p(recording: Recording, slots: Integers, silo: str) -> float:
    """The least of what says that slots are uniform, and independent of what a silo put into them."""
    layout = recording.shape(recording.place).layout
    radix, packed = layout.radix, layout.pack(recording.levels(silo))
    data, truth = slots[: layout.data_slots], packed[: layout.data_slots]
    correlated = max(
        abs(correlation_in_stds(data, truth)), abs(correlation_in_stds(data % radix, truth % radix))
    )
    least = min(p_uniform(slots), p_independent(data, truth), p_independent(data, truth % radix))
    return 0.0 if correlated > SIX_STDS else least


def _together(attacked: Attacked, recording: Recording, slots: dict[str, Integers]) -> None:
    """All honest streams together give their sum, which the opened aggregate gives anyway."""
    shape = recording.shape(recording.place)
    total = np.sum(list(slots.values()), axis=0) % PLAIN_MODULUS
    own = [recording.levels(silo) for silo in recording.contributors if silo not in slots]
    sums = recording.aggregate(recording.place) - len(recording.contributors) * shape.offset
    rest = sums - np.sum(own, axis=0, dtype=np.int64)
    truth = np.sum([recording.levels(silo) for silo in slots], axis=0)
    read = shape.layout.unpack(total[: shape.layout.data_slots])
    differs = not (np.array_equal(read, truth) and np.array_equal(rest, truth))
    attacked.check(
        "they add up all honest streams",
        f"the sum of {len(slots)} honest silos, as the opened aggregate gives it, and no more",
        code="sum_unexplained",
        where="members",
        found="streams, opened integers and contributions do not add up" if differs else None,
    )


# ── the noise in what they do get ──


def _noise(attacked: Attacked, recording: Recording) -> None:
    shape = recording.shape(recording.place)
    if shape.purpose == "metrics":
        attacked.add("the noise in the last sum", "not measured: it is a sum of metrics")
        return
    family = recording.family()
    *_, (_, _, state, sums) = recording.course(family)
    known = [_exact(recording, family, silo, state, shape) for silo in recording.plan.silos]
    left = sums - np.sum(known, axis=0) - colluders_noise(recording, known, shape)
    variance = _promised_variance(shape)
    share = float(np.square(left.astype(np.float64)).mean() / variance)
    missing = p_of_less_variance(left, variance) < 1 - CONFIDENCE
    attacked.check(
        "they subtract every row and every share of noise they know from the aggregate",
        f"{share:.4g} of the promised variance is left on {left.size:,} values",
        code="noise_missing",
        where="members",
        found=f"only {share:.3g} of the promised variance protects against these colluders"
        if missing
        else None,
    )
    honest = len(recording.honest) * shape.steps * shape.share_std_among(len(recording.contributors)) ** 2
    if not recording.is_random and shape.steps == 1:
        unexplained = p_of_more_variance(left, honest) < BY_CHANCE
        attacked.check(
            "the same noise, against contributions clipped as the plan says",
            "what the silos drew is their people's clipped contributions and noise, nothing else",
            code="contribution_unexplained",
            where="truth",
            found="the sum holds more than clipped contributions and noise" if unexplained else None,
        )


def _promised_variance(shape: RoundShape) -> float:
    """σ² of a whole contribution: what must remain whoever colludes, as the ledgers charged for."""
    step = shape.step_event
    return shape.steps * (step.noise_multiplier * shape.sensitivity) ** 2


def _exact(recording: Recording, family: Family, silo: str, state: State, shape: RoundShape) -> Integers:
    """A silo's contribution before its noise; by gradients with dropout, nearly."""
    index = recording.place.round - 1
    signal = known_signal(recording, family, recording.rows("members", silo), state, index, shape)
    present = [coin.user_id for coin in recording.canaries if coin.silo == silo and coin.is_in]
    if present:
        rows = recording.rows("canaries", silo)
        places = {user: place for place, user in enumerate(rows.user_ids)}
        people = rows.select([places[user] for user in present])
        signal = signal + known_signal(recording, family, people, state, index, shape)
    return np.clip(signal, shape.signal_min, shape.signal_max)


# ── beyond what the plan covers ──


def _one_more(attacked: Attacked, recording: Recording) -> None:
    """Say what one helper more would learn; no claim falls by it."""
    extra = recording.manifest.one_more
    if extra is None:
        attacked.add(
            "one helper more than the plan covers", "nobody would be left: all other silos collude already"
        )
        return
    privacy, honest = recording.plan.privacy, len(recording.honest)
    if privacy.noise_placement == "silo":
        attacked.add(f"{extra} helps as well", "each silo's own noise suffices; epsilon stays")
        return
    factor = sqrt((honest - 1) / honest)
    events = [
        EventCount(_weakened(item.event, factor), item.count) for item in reserved_events(recording.plan)
    ]
    epsilon = epsilon_of(events, privacy.target_delta, privacy.filter_spec)
    whose = f"the sum of {honest - 1} silos" if honest > 2 else "the last silo's noised contribution"
    attacked.add(
        f"{extra} helps as well, one more than the plan covers",
        f"they would read {whose}, with {(honest - 1) / honest:.0%} of the promised variance: "
        f"epsilon {epsilon:.3g}",
    )


def _weakened(event: Event, factor: float) -> Event:
    if isinstance(event, PureEvent):
        return event
    if isinstance(event, SelfComposedEvent):
        step = event.event
        weaker = step.model_copy(update={"noise_multiplier": step.noise_multiplier * factor})
        return event.model_copy(update={"event": weaker})
    return event.model_copy(update={"noise_multiplier": event.noise_multiplier * factor})
