"""How long a vertical plan takes on this machine: a few points, rows and sums of the real thing, made up.

What is timed is what an agent's worker does, by the same functions: blinding, encrypting, multiplying,
noising, opening. No row is read and nothing leaves. Silos work at the same time, so a job takes as long as
the slowest of each step, and waits for the network besides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from federation.legs.legs import spine_of
from policies.plans.plan import Plan
from policies.plans.vertical.price import moments_event
from privacy.alignment.blinding import Blinding
from privacy.encryption.crossmoments.feature import FeatureHalf
from privacy.encryption.crossmoments.label import LabelHalf
from privacy.encryption.crossmoments.noise import MomentsNoiseSource
from silo.forecasts.vertical_traffic import most_slots
from silo.vertical.alignment.shards import SHARDED_FROM
from silo.vertical.moments.files import moments_shape

POINTS = 400
SLOTS = 40
_RUN = "forecast"


@dataclass(frozen=True, kw_only=True)
class RingProbe:
    """What lists on their way round the ring take of a machine like this one, whatever comes after them.

    Attributes:
        point_seconds: blinding one id once.
        spine_slots: of the plan; the most there can be where the plan reveals who is in common.
        list_processes: processes among which the longest list is divided.
        alignment_minutes: all lists round the ring.
    """

    point_seconds: float
    spine_slots: int
    list_processes: int
    alignment_minutes: float


@dataclass(frozen=True, kw_only=True)
class VerticalProbe(RingProbe):
    """What a job of cross-moments takes of a machine like this one, beside the ring.

    Attributes:
        encrypt_seconds: one slot at the label silo.
        absorb_seconds: one slot at a feature silo.
        release_seconds: noise and encryption of all sums of one feature silo.
        open_seconds: one feature silo's sums at the label silo.
        moments_minutes: all blocks, while some encrypt and others multiply, and the sums.
    """

    encrypt_seconds: float
    absorb_seconds: float
    release_seconds: float
    open_seconds: float
    moments_minutes: float

    @property
    def minutes(self) -> float:
        """The whole job, if all silos have machines like this one and the network is fast."""
        return self.alignment_minutes + self.moments_minutes


def probe_vertical(plan: Plan) -> VerticalProbe:
    """Time both halves of a plan of cross-moments, in this process and within seconds.

    Raises:
        ArchipelError: the plan cannot be computed, for the reason it would not be in a job.
    """
    ring = probe_ring(plan)
    encrypt, absorb, release, opening = _seconds_of_moments(plan, ring.spine_slots)
    moments = ring.spine_slots * max(encrypt, absorb) + release + (plan.num_silos - 1) * opening
    return VerticalProbe(
        **vars(ring),
        encrypt_seconds=encrypt,
        absorb_seconds=absorb,
        release_seconds=release,
        open_seconds=opening,
        moments_minutes=moments / 60,
    )


def probe_ring(plan: Plan) -> RingProbe:
    """Time what finding the people in common takes, whatever comes after it."""
    point = _seconds_of_point()
    longest = max(plan.alignment.capacities.values()) if plan.alignment else 0
    processes = (os.cpu_count() or 1) if longest >= SHARDED_FROM else 1
    # In each of the K - 1 hops and once before the first, the slowest silo multiplies the longest list.
    return RingProbe(
        point_seconds=point,
        spine_slots=spine_of(plan) or most_slots(plan),
        list_processes=processes,
        alignment_minutes=plan.num_silos * longest * point / processes / 60,
    )


def _seconds_of_point() -> float:
    own, peer = Blinding.generate(_RUN), Blinding.generate(_RUN)
    points = peer.own_list([], POINTS)
    return seconds_of(lambda: own.blind(points, POINTS)) / POINTS


def _seconds_of_moments(plan: Plan, slots: int) -> tuple[float, float, float, float]:
    """Encrypting and adding one slot; releasing and opening all sums of one partner."""
    whole = moments_shape(plan, slots, plan.silos[-1])
    few = replace(whole, num_slots=SLOTS, rows_per_person=1)  # in how many rows a person is takes no time
    label = LabelHalf.generate(few)
    feature = FeatureHalf(few, label.public_key())
    rng = np.random.default_rng(0)
    rows = np.zeros((few.num_slots, few.num_items))
    rows[:, 0] = few.max_entry
    features = rng.standard_normal((few.num_slots, few.num_features)) / few.num_features
    frames: list[bytes] = []
    encrypting = seconds_of(lambda: frames.extend(label.encrypt(rows)))
    absorbing = seconds_of(lambda: feature.absorb(frames, features))
    source, sums = MomentsNoiseSource(moments_event(plan), few), list[bytes]()
    releasing = seconds_of(lambda: sums.extend(feature.release(source).frames))
    opening = seconds_of(lambda: label.open(sums))
    parts = whole.num_parts / few.num_parts
    return encrypting / few.num_slots, absorbing / few.num_slots, parts * releasing, parts * opening


def seconds_of(action: Callable[[], object]) -> float:
    """Return how long ``action`` takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
