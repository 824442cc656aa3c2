"""Canaries without people: vectors of the largest norm that one person can have, added to the opened sums.

A made-up person's gradient is what the model makes of it: it is often short, overlaps with others', and
dropout hides it from the adversary. Differential privacy promises more: a person may contribute any vector up
to the clip norm. What a job would have released with such people in it needs no second run, for a sum is a
sum. So each of these canaries is one coordinate of the vector, at the full norm in every round, added or not
as its coin says; none overlaps with another, and the adversary knows exactly what it looks for.

They bound what the noise of all rounds together hides, and say nothing about clipping, which the
canaries that are people look at. Where no coins decide about contributions (no dropout, no sampling) the
bound is exact. Otherwise what others' coins leave in a sum depends a little on the noise of the rounds
before, which the bound takes as independent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from policies.plans.price import RoundShape
from silo.audit.attack.recording import Recording

MAX_ADDED: Final = 8192
HALF: Final = 0.5
ROUNDS_TO_JUDGE: Final = 4
"""Fewer say too little about how much louder a coordinate is than the others."""
_MEDIAN_OF_NORMAL: Final = 0.6745

Floats = NDArray[np.float64]


@dataclass
class AddedCanaries:
    """Their coins and coordinates, and what the rounds say about each.

    Attributes:
        is_in: (canaries,), the coins.
        places: (canaries,), the coordinate of each; all different.
        num_values: length of the sums that they are added to; they are in no shorter one.
        rate: with which probability a person is in a step.
        rng: for who is in which step.
        rounds: of each round the evidence, (canaries,), and how loud each coordinate was, in variances.
    """

    is_in: NDArray[np.bool_]
    places: NDArray[np.int64]
    num_values: int
    rate: float
    rng: np.random.Generator
    rounds: list[tuple[Floats, Floats]] = field(default_factory=list)

    @classmethod
    def of(cls, recording: Recording) -> Self:
        """Canaries for the longest sums of a recording; its seed fixes coins and coordinates."""
        shapes = [recording.shape(place) for place in recording.manifest.opened]
        longest = max((shape for shape in shapes if shape.purpose != "metrics"), key=lambda one: one.values)
        rng = np.random.default_rng([*bytes.fromhex(recording.manifest.seed), 1])
        num = min(MAX_ADDED, longest.values)
        return cls(
            is_in=rng.random(num) < HALF,
            places=rng.permutation(longest.values)[:num],
            num_values=longest.values,
            rate=recording.expected(longest),
            rng=rng,
        )

    def look(self, rest: Floats, shape: RoundShape) -> None:
        """Take in one round.

        Args:
            rest: (values,), the opened sum without what the adversary knows of it.
            shape: the round's.
        """
        if shape.values != self.num_values:
            return
        norm = floor(shape.sensitivity)
        joined = self.rng.binomial(shape.steps, self.rate, len(self.is_in)) * self.is_in
        scale = max(1.0, float(np.median(np.abs(rest))) / _MEDIAN_OF_NORMAL)
        seen = (rest[self.places] + norm * joined) / scale
        wanted = norm * shape.steps * self.rate / scale
        self.rounds.append((wanted * (seen - wanted / 2), np.square(seen)))

    def scores(self) -> Floats:
        """Above one half where it is likelier that the canary was added."""
        evidence = np.sum([one for one, _ in self.rounds], axis=0)
        if len(self.rounds) >= ROUNDS_TO_JUDGE:
            evidence = evidence / np.maximum(1.0, np.mean([loud for _, loud in self.rounds], axis=0))
        found: Floats = HALF + evidence
        return found
