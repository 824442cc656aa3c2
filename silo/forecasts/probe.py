"""How long a trained plan takes on this machine: a few steps of the real thing on made-up people.

What is timed is what an agent's worker does in a round, by the same functions: clipped gradients, noise,
protection, opening, the optimiser. No row is read and nothing leaves. Rounds with other silos also wait for
the slowest of them and for the network.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from policies.plans.models import AutoencoderModel, LanguageModel, SequenceModel
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, training_shape
from privacy.packing import SLOTS_PER_FRAME, Layout

if TYPE_CHECKING:
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions

FEWEST_PEOPLE = 16
MOST_PEOPLE = 1024
LONG_ENOUGH_SECONDS = 0.2
SLOW_SECONDS = 1.0
MOST_FRAMES = 4

_SEED = 0


@dataclass(frozen=True)
class Probe:
    """What one training round takes of this machine's time, and of what.

    Attributes:
        people: in one step of one silo, by the plan's public figures.
        interactions: of each of them: the longest history there may be.
        learning_seconds: gradients and noise of all local steps, and the optimiser.
        sum_seconds: protecting one contribution and opening one sum.
        rounds: of the training.
    """

    people: int
    interactions: int
    learning_seconds: float
    sum_seconds: float
    rounds: int

    @property
    def round_seconds(self) -> float:
        """One training round."""
        return self.learning_seconds + self.sum_seconds

    @property
    def minutes(self) -> float:
        """All training rounds, without a failure."""
        return self.rounds * self.round_seconds / 60


def probe(plan: Plan, catalogue: Catalogue) -> Probe:
    """Time a few steps of a trained plan, in this process and within seconds.

    Args:
        plan: of a trained family.
        catalogue: the plan's.

    Raises:
        ArchipelError: the model does not train here, for the reason it would not in a job.
    """
    from silo.models.base import get_family
    from silo.tasks import add_noise

    shape, n = training_shape(plan), plan.num_silos
    people = max(1, round((plan.training.expected_batch_size or plan.max_users_per_silo) / n))
    interactions = min(plan.max_interactions_per_user, len(catalogue))
    family = get_family(plan)(_of_everybody(plan), catalogue)
    nothing, round_index = np.zeros(shape.values, dtype=np.int64), 0 if plan.popularity is None else 1

    def seconds_of_gradients(number: int) -> float:
        rows, state = made_up_people(number, interactions, catalogue), family.initial_state()
        family.contribute(rows, state, round_index, shape)
        return _seconds(lambda: family.contribute(rows, state, round_index, shape))

    step = _of_more(people, seconds_of_gradients) + _seconds(lambda: add_noise(nothing, shape, n))
    state = family.initial_state()
    absorbing = _seconds(lambda: family.absorb(state, nothing, round_index, shape, n))
    return Probe(
        people=people,
        interactions=interactions,
        learning_seconds=shape.steps * step + absorbing,
        sum_seconds=_seconds_of_sum(shape),
        rounds=plan.training.rounds,
    )


def items_to_probe(directory: Path, plan: Plan) -> Catalogue:
    """Return the plan's items; where each silo ranks its own, the reference's at made-up places.

    A plan that trains a part of the text encoder is tried with it, on the reference's real texts.

    Raises:
        DataError: the plan's list is not in ``catalogues/``, or the encoder that it trains is not here.
    """
    from silo.data.catalogue import Catalogue
    from silo.language.space import PlacedCatalogue
    from silo.models.features import public_uniform
    from silo.rows import plan_catalogue

    if not isinstance(plan.model, LanguageModel):
        return plan_catalogue(directory, plan)
    sha256, width = plan.catalogue.sha256, plan.model.dimensions
    reference = Catalogue.load(directory / "catalogues" / f"{sha256}.jsonl", sha256)
    if plan.model.adapter is not None:
        from silo.language.places import place_items

        return place_items(directory, plan, reference)
    items = reference.items
    places = public_uniform(_SEED, len(items) * width).reshape(-1, width)
    return PlacedCatalogue(items, places, sha256)


def made_up_people(number: int, interactions: int, catalogue: Catalogue) -> Interactions:
    """Return people with random histories of one length; nobody's rows."""
    from silo.data.interactions import Interactions

    rng = np.random.default_rng(_SEED)
    items = [rng.choice(len(catalogue), interactions, replace=False) for _ in range(number)]
    frame = pl.DataFrame(
        {
            "user_index": np.repeat(np.arange(number), interactions),
            "item_index": np.concatenate(items),
            "timestamp": np.zeros(number * interactions, dtype=np.int64),
        }
    )
    return Interactions(tuple(str(person) for person in range(number)), frame, catalogue)


def _of_everybody(plan: Plan) -> Plan:
    """Return the plan without coins, from the public seed and of a silo that trains all columns.

    A checkpoint changes no time, and fewer columns hardly any.
    """
    model = plan.model
    if isinstance(model, AutoencoderModel | LanguageModel | SequenceModel):
        model = model.model_copy(update={"start_from": None})
    if isinstance(model, LanguageModel) and model.adapter is not None:
        adapter = model.adapter.model_copy(update={"columns": None})
        model = model.model_copy(update={"encoder_adapter": adapter})
    training = plan.training.model_copy(update={"sample_rate": 1.0})
    return plan.model_copy(update={"training": training, "model": model})


def _of_more(people: int, seconds_of: Callable[[int], float]) -> float:
    """Return the seconds for so many people, along the line through two numbers that can be waited for."""
    few, many = FEWEST_PEOPLE, 4 * FEWEST_PEOPLE
    of_few = seconds_of(few)
    if of_few >= SLOW_SECONDS:
        return of_few * people / few  # what does not grow with people is a small part of so slow a step
    of_many = seconds_of(many)
    while of_many < LONG_ENOUGH_SECONDS and many < MOST_PEOPLE:
        few, many = many, 4 * many
        of_few, of_many = of_many, seconds_of(many)
    a_person = max(0.0, of_many - of_few) / (many - few)
    return max(0.0, of_many + a_person * (people - many))


def _seconds_of_sum(shape: RoundShape) -> float:
    """Return the seconds to protect one contribution and to open one sum, from a part of its frames."""
    from federation.aggregation import sum_to_file
    from silo import tasks
    from silo.session import end_session

    roster = [f"{number:02}" for number in range(shape.layout.roster_size)]
    most = MOST_FRAMES * SLOTS_PER_FRAME * shape.layout.values_per_slot
    layout = Layout(shape.layout.roster_size, shape.layout.bits, min(shape.values, most))
    secret, tag_key = tasks.make_secret_key(), _made_up_key("tag")
    levels = np.zeros(layout.values, dtype=np.int64)
    with TemporaryDirectory() as scratch:
        job = Path(scratch) / "job"
        try:

            def protect(me: str, others: list[str]) -> Path:
                keys = {other: _made_up_key(*sorted((me, other))) for other in others}
                path = job / me
                tasks.write_stream(
                    tasks.ProtectTask(job, levels, layout, len(keys) + 1, me, keys, tag_key, secret, path)
                )
                return path

            job.mkdir()
            pair = [protect(me, [other]) for me, other in (roster[:2], roster[1::-1])]
            sum_to_file(tuple(pair), layout.num_frames, job / "sum")
            opening = tasks.OpenTask(job, job / "sum", job / "opened", layout, 2, 0, tag_key, secret)
            seconds = _seconds(lambda: protect(roster[0], roster[1:]))
            seconds += _seconds(lambda: tasks.open_stream(opening))
        finally:
            end_session(job)
    return seconds * shape.layout.num_frames / layout.num_frames


def _made_up_key(*names: str) -> bytes:
    """Return 32 public bytes; they take as long as secret ones, and what they mask is all zeros."""
    return hashlib.sha256("/".join(names).encode()).digest()


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
