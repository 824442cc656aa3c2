"""How long a plan of a private encoder takes on this machine: a few steps on made-up rows.

What is timed is what a feature silo's worker does, by the same functions: gradients, noise on them, encoding,
noise on what is released. No row is read and nothing leaves. How many people a silo has is private, so a
forecast counts as many as its capacity, and as many columns as a plan pays for: it takes no longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from policies.plans.plan import Plan
from policies.plans.shapes import MAX_ENCODER_COLUMNS
from policies.plans.vertical.encoder_price import encoder_release_event, encoder_step
from privacy.embedding import EmbeddingNoise
from privacy.noise import NoiseShare
from silo.forecasts.vertical_probe import RingProbe, probe_ring, seconds_of
from silo.vertical.encoder.encoding import numbers_of
from silo.vertical.encoder.simulation import made_up_items
from silo.vertical.encoder.training import EncoderFamily, as_interactions

FEW, MANY = 32, 288
ITEMS_OF_A_PERSON = 20


@dataclass(frozen=True, kw_only=True)
class EncoderProbe(RingProbe):
    """What a job with a private encoder takes of a machine like this one, beside the ring.

    Attributes:
        step_seconds: noise and optimiser of one step of the training, whoever is in it.
        person_seconds: one person in one step.
        encode_seconds: one person's numbers.
        slot_seconds: noise on one slot.
        encoder_minutes: the feature silo with the largest capacity: training and release.
    """

    step_seconds: float
    person_seconds: float
    encode_seconds: float
    slot_seconds: float
    encoder_minutes: float

    @property
    def minutes(self) -> float:
        """Until the label silo has all numbers; its own network comes after it."""
        return self.alignment_minutes + self.encoder_minutes


def probe_encoder(plan: Plan) -> EncoderProbe:
    """Time a feature silo's half, in this process and within seconds.

    Raises:
        ArchipelError: the plan cannot be computed, for the reason it would not be in a job.
    """
    ring, training = probe_ring(plan), plan.training
    capacities = plan.alignment.capacities if plan.alignment else {}
    people = max(capacities[silo] for silo in plan.silos[1:])
    step, person = _seconds_of_step(plan)
    encode, slot = _seconds_of_release(plan)
    steps = training.rounds * (step + training.sample_rate * people * person)
    release = people * encode + ring.spine_slots * slot
    return EncoderProbe(
        **vars(ring),
        step_seconds=step,
        person_seconds=person,
        encode_seconds=encode,
        slot_seconds=slot,
        encoder_minutes=(steps + release) / 60,
    )


def _seconds_of_step(plan: Plan) -> tuple[float, float]:
    """Noise and optimiser of a step, and what each person in it adds."""
    everybody = plan.training.model_copy(update={"sample_rate": 1.0})
    plan, silo = plan.model_copy(update={"training": everybody}), plan.silos[-1]
    step, items, columns = encoder_step(plan, silo), made_up_items(MAX_ENCODER_COLUMNS), _identity()
    family = EncoderFamily(plan, items, columns, np.zeros(MAX_ENCODER_COLUMNS))
    state = family.initial_state()

    def seconds(people: int) -> float:
        rows = as_interactions(_made_up(people), items)
        return seconds_of(lambda: family.contribute(rows, state, 1, step))

    seconds(1)  # builds what later steps use again
    few, many = seconds(FEW), seconds(MANY)
    person = max(0.0, many - few) / (MANY - FEW)
    signal = np.zeros(sum(table.size for table in state.values()), dtype=np.int64)
    share = NoiseShare(step.noise_std, num_shares=1, sensitivity=step.sensitivity, promised=step.event)
    return max(0.0, few - FEW * person) + seconds_of(lambda: share.add_to(signal)), person


def _seconds_of_release(plan: Plan) -> tuple[float, float]:
    """Encoding one person, and noise on one slot."""
    rows, columns = _made_up(FEW), _identity()
    weight = np.ones((MAX_ENCODER_COLUMNS, getattr(plan.model, "dimensions", 1)))
    encoding = seconds_of(lambda: numbers_of(rows, columns, weight))
    numbers, noise = numbers_of(rows, columns, weight), EmbeddingNoise(encoder_release_event(plan))
    noising = seconds_of(lambda: noise.release(numbers, np.arange(FEW), FEW))
    return encoding / FEW, noising / FEW


def _identity() -> sp.csr_matrix:
    return sp.identity(MAX_ENCODER_COLUMNS, format="csr")


def _made_up(people: int) -> sp.csr_matrix:
    """People × columns of 0 and 1, a public pattern."""
    users = np.repeat(np.arange(people), ITEMS_OF_A_PERSON)
    items = np.random.default_rng(0).integers(0, MAX_ENCODER_COLUMNS, users.size)
    rows = sp.csr_matrix((np.ones(users.size), (users, items)), shape=(people, MAX_ENCODER_COLUMNS))
    rows.data[:] = 1.0
    return rows
