"""A feature silo's encoder: a person's row in, few numbers out; trained alone, with noise, then frozen.

A denoising autoencoder (Vincent et al. 2008; Liang et al. 2018): ``x → Linear(columns, k) → tanh → Linear(k,
columns)``, asked for the items that it was not shown. Rows and targets have norm 1 and lose what they have
of the average row, so that the numbers need not tell what everybody has in common; the loss is the squared
error. Columns depend on nobody (:mod:`silo.vertical.columns`).

The first step sums rows, for their average; the others are gradients, by the trainer of all families. Either
way a person adds a vector of norm 1, and every step carries all of its noise: they are one event, several
times. Average and weights have seen noised sums only.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from typing_extensions import override

from policies.plans.shapes import MAX_ENCODER_COLUMNS
from policies.plans.vertical.encoder_price import encoder_step, private_encoder
from privacy.clipping import clip_rows
from privacy.errors import DataError, UsageError
from privacy.events import Event, SelfComposedEvent
from privacy.noise import NoiseShare
from privacy.sampling import poisson_sample
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.models.architecture import Architecture, Batch, Vector, Weights
from silo.models.features import public_uniform
from silo.models.trainer import GradientFamily
from silo.vertical.columns import unit_rows
from silo.vertical.encoder.encoding import PEOPLE_AT_ONCE

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.models.base import Integers, State
    from silo.models.recommender import Recommender
    from silo.vertical.joint.model import Matrix

FIRST_SCALE = 0.03
"""Of the first weights: what training has not moved is noise, and numbers are scaled to norm 1 anyway."""


class EncoderError(DataError):
    """Rows that the plan's encoder cannot be trained on."""

    code = "encoder"


class EncoderArchitecture(Architecture):
    """``encoder.weight`` and ``decoder.weight`` over fixed columns.

    Args:
        plan: of a private encoder.
        catalogue: the feature silo's own items.
        columns: items × columns, public (:func:`silo.vertical.columns.column_map`).
        average: (columns,) of norm 1 or zero, noised: the direction of the average row.
    """

    def __init__(self, plan: Plan, catalogue: Catalogue, columns: sp.csr_matrix, average: Vector) -> None:
        super().__init__(plan, catalogue, None)
        model = private_encoder(plan)
        self.columns, self.average = columns, average
        self.dimensions, self.seed = model.dimensions, model.seed
        self.input_dropout = model.input_dropout

    @override
    def initial_weights(self) -> Weights:
        width, k = self.columns.shape[1], self.dimensions
        encoder, decoder = FIRST_SCALE * public_uniform(self.seed, 2 * width * k).reshape(2, k, width)
        return {"encoder.weight": encoder, "decoder.weight": np.ascontiguousarray(decoder.T)}

    @override
    def module(self) -> nn.Module:
        width, k = self.columns.shape[1], self.dimensions
        encoder = nn.Linear(width, k, bias=False, dtype=torch.float64)
        decoder = nn.Linear(k, width, bias=False, dtype=torch.float64)
        return nn.Sequential(OrderedDict(encoder=encoder, activation=nn.Tanh(), decoder=decoder))

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        return tuple(torch.from_numpy(self._own(rows)) for rows in (inputs, targets))

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        history, target = batch
        has_target = (target != 0).any(dim=1)
        misses: Tensor = (model(history) - target).square().sum(dim=1)
        return has_target * misses

    @override
    def recommender(self, weights: Weights) -> Recommender:
        _ranks_nothing()

    def _own(self, rows: sp.csr_matrix) -> Matrix:
        """People's rows without what they have of the average."""
        units = unit_rows(rows, self.columns)
        own: Matrix = units - np.outer(units @ self.average, self.average)
        return own


class EncoderFamily(GradientFamily):
    """The ``private-encoder`` family at one feature silo.

    Args:
        plan: of a private encoder.
        catalogue: the feature silo's own items.
        columns: see :class:`EncoderArchitecture`.
        average: likewise.
    """

    name = "private-encoder"

    def __init__(self, plan: Plan, catalogue: Catalogue, columns: sp.csr_matrix, average: Vector) -> None:
        self._columns, self._average = columns, average
        super().__init__(plan, catalogue)

    @override
    def make_architecture(self, popularity: Vector | None) -> Architecture:
        return EncoderArchitecture(self.plan, self.catalogue, self._columns, self._average)

    @override
    def finish(self, state: State) -> Recommender:
        _ranks_nothing()


@dataclass(frozen=True, eq=False)
class TrainedEncoder:
    """A frozen encoder, and what its training cost.

    Attributes:
        weight: columns × k; the average row is out of it already.
        event: of everything that was noised on the way.
    """

    weight: Matrix
    event: Event


def train_encoder(
    plan: Plan, silo: str, rows: sp.csr_matrix, catalogue: Catalogue, columns: sp.csr_matrix
) -> TrainedEncoder:
    """Train on people's rows by DP-SGD, all noise in every step; its event is the plan's.

    Args:
        plan: of a private encoder.
        silo: the feature silo that trains, which says in how many rows one person is protected.
        rows: people × items of 0 and 1, one row to a person.
        catalogue: the items; a local numbering, nothing depends on which others there are.
        columns: items × columns.

    Raises:
        EncoderError: more columns than the plan's price is for.
        PerUserGradientError: a check of the gradients failed.
        TrainingDivergedError: the noised steps led to weights that are no use.
    """
    step = encoder_step(plan, silo)
    people, events = as_interactions(rows, catalogue), []
    if columns.shape[1] > MAX_ENCODER_COLUMNS:
        raise EncoderError(
            f"{columns.shape[1]:,} columns, the plan pays for {MAX_ENCODER_COLUMNS:,}",
            remedy="give the dataset a shorter item_list",
        )

    def noised(signal: Integers) -> Integers:
        share = NoiseShare(step.noise_std, num_shares=1, sensitivity=step.sensitivity, promised=step.event)
        values, event = share.add_to(signal)
        events.append(event)
        return values

    average = _direction(noised(_sum_of_rows(plan, rows, columns, step.grid)))
    family = EncoderFamily(plan, catalogue, columns, average)
    state = family.initial_state()
    for number in range(1, plan.training.rounds):
        signal = family.contribute(people, state, number, step)
        state = family.absorb(state, noised(signal), number, step, plan.num_silos)
    weight = state["encoder.weight"].T
    spent = SelfComposedEvent(event=events[0], count=len(events))
    return TrainedEncoder(weight - np.outer(average, average @ weight), spent)


def _sum_of_rows(plan: Plan, rows: sp.csr_matrix, columns: sp.csr_matrix, grid: int) -> Integers:
    """Sum a sample's rows of norm 1 in grid units, rounded once, as gradients are."""
    total = np.zeros(columns.shape[1])
    chosen = poisson_sample(rows.shape[0], plan.training.sample_rate)
    for start in range(0, chosen.size, PEOPLE_AT_ONCE):
        block = unit_rows(rows[chosen[start : start + PEOPLE_AT_ONCE]], columns)
        total += clip_rows(block, 1.0).sum(axis=0)
    return np.rint(total * grid).astype(np.int64)


def _direction(sums: Integers) -> Vector:
    length = float(np.linalg.norm(sums))
    direction: Vector = sums / length if length else np.zeros(len(sums))
    return direction


def as_interactions(rows: sp.csr_matrix, catalogue: Catalogue) -> Interactions:
    """Rows as a trainer of any family reads them; people are numbered."""
    people = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    frame = pl.DataFrame({"user_index": people, "item_index": rows.indices, "timestamp": None})
    return Interactions(tuple(map(str, range(rows.shape[0]))), frame, catalogue)


def _ranks_nothing() -> NoReturn:
    raise UsageError("an encoder ranks nothing", remedy="use the label silo's model")
