"""The one trainer of all gradient families: DP-SGD over many noised sums.

A family is an :class:`~silo.models.architecture.Architecture` and nothing else; sampling, clipping, grid,
optimiser, popularity round and local steps are here, once.

Replicated state is bit-equal on every processor: ``absorb`` uses elementwise addition, multiplication,
division and square roots of IEEE doubles, one operation a pass (no powers, no sums whose order is the
machine's, nothing fused). Logarithms and matrix products enter what is derived from a state; nobody compares
that.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Protocol

import numpy as np
import scipy.sparse as sp
from typing_extensions import override

from policies.plans.price import popularity_shape
from privacy.dpsgd import ROUNDING
from privacy.errors import DataError, UsageError
from privacy.sampling import poisson_sample
from silo.models.architecture import Architecture, Vector, Weights
from silo.models.base import Family, Integers, State
from silo.models.popularity import weighted_counts
from silo.models.session import TrainingSession

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from policies.plans.price import RoundShape
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions
    from silo.models.shipped import ShippedModel

FIRST_MOMENT_DECAY = 0.9
ADAM_FLOOR = 1e-8
LEAST_COUNT = 0.5
MAX_WEIGHT = 100.0
"""A training that leads beyond this has diverged."""
MAX_ROUNDING = ROUNDING / 10
"""So has one that leads to where gradients lose digits: the check of one user a step would trip for some
users and not for others, in view of everybody. Deep recurrent networks get there with weights of 4. Found out
with made-up users, so it is as public as the weights."""
CATALOGUE = "catalogue_sha256"


class NoisedStep(Protocol):
    """What the trainer has to know of a step's sum: a secure sum's shape says it, or a silo's own step."""

    @property
    def purpose(self) -> str:
        """What is summed."""

    @property
    def grid(self) -> int:
        """Integer units per ``max_grad_norm``."""


class TrainingDivergedError(DataError):
    """A step led to weights that are not finite; the state before it stands."""

    code = "training_diverged"


class CheckpointError(DataError):
    """A checkpoint that does not fit the plan that wants to start from it."""

    code = "checkpoint"


class GradientFamily(Family):
    """A family trained by DP-SGD; a subclass names itself and its architecture.

    The state holds the architecture's weights by name (float64) and, once summed, ``popularity`` (the noised
    integers) with ``popularity_contributors``. Adam adds ``first_moment``, ``second_moment`` (all weights,
    flat) and the running products of its decays, ``first_decay`` and ``second_decay``.

    Raises:
        UsageError: a plan of another family.
        CheckpointError: a ``start`` that does not fit.
    """

    architecture: type[Architecture]

    def __init__(
        self,
        plan: Plan,
        catalogue: Catalogue,
        *,
        noise_std: float | None = None,
        start: State | None = None,
        silo: str | None = None,
    ) -> None:
        super().__init__(plan, catalogue, noise_std=noise_std, start=start, silo=silo)
        training, privacy = plan.training, plan.privacy
        if plan.model.family != self.name or privacy.max_grad_norm is None:
            raise UsageError(
                f"a plan of family {plan.model.family!r} trains no {self.name} model", where="plan"
            )
        if training.expected_batch_size is None or training.learning_rate is None:
            raise UsageError("the plan names no expected_batch_size or learning_rate", where="plan: training")
        self.max_grad_norm: float = privacy.max_grad_norm
        self.expected_batch_size: float = training.expected_batch_size
        self.learning_rate: float = training.learning_rate
        self._popularity_shape = popularity_shape(plan)
        initial = self.make_architecture(None).initial_weights()
        self._shapes = {name: values.shape for name, values in initial.items()}
        if start is None and getattr(plan.model, "start_from", None) is not None:
            raise CheckpointError("the plan starts from a checkpoint that was not given", where="plan: model")
        self._initial = initial if start is None else self._checked(start)
        self._session: tuple[bytes, TrainingSession] | None = None

    @property
    def num_weights(self) -> int:
        """Values of one training round."""
        return sum(prod(shape) for shape in self._shapes.values())

    @override
    def initial_state(self) -> State:
        """Public weights, or those of the checkpoint; the optimiser starts afresh."""
        state: State = {name: values.copy() for name, values in self._initial.items()}
        if self.plan.training.optimizer == "adam":
            state |= {"first_moment": np.zeros(self.num_weights), "second_moment": np.zeros(self.num_weights)}
            state |= {"first_decay": np.array(1.0), "second_decay": np.array(1.0)}
        return state

    @property
    def space_sha256(self) -> str:
        """What weights of these names and shapes mean, as a digest: they belong to it and to no other.

        That is what the inputs stand for, and how they are read where shapes do not say it.
        """
        return self.catalogue.sha256

    @property
    def trained_share(self) -> Vector | float:
        """The share of the plan's silos that trains each weight: what the public divisor is multiplied with.

        Returns:
            A number for all weights, or (weights,).
        """
        return 1.0

    def make_architecture(self, popularity: Vector | None) -> Architecture:
        """Build the network; one that needs more than plan and catalogue says so here."""
        return self.architecture(self.plan, self.catalogue, popularity)

    # ── one silo ──

    @override
    def self_test(self) -> None:
        """Train the initial weights on nobody; the popularity's network is tested again once it is known.

        Raises:
            CheckpointError: gradients at the weights to start from lose too many digits.
        """
        session = self._session_of(self.initial_state())
        session.self_test()
        if session.rounding() > MAX_ROUNDING:
            raise CheckpointError(
                "gradients at the weights to start from lose digits",
                remedy="start from another checkpoint, or with fewer layers or places",
            )

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: NoisedStep
    ) -> Integers:
        """Sum the clipped gradients of this step's users, in grid units, rounded once.

        With ``sample_rate`` below 1, or dropout, fresh coins of the operating system decide, so two calls
        differ; the contribution that was drawn is kept, never drawn again. In the popularity round: counts.

        Raises:
            PerUserGradientError: the self-test (before rows are read) or a check of this step failed.
        """
        if shape.purpose == "popularity":
            return weighted_counts(interactions.matrix(), shape.grid)
        users = poisson_sample(interactions.num_users, self.plan.training.sample_rate)
        total = self._session_of(state).clipped_sum(interactions, users, round_index)
        return np.rint(total * (shape.grid / self.max_grad_norm)).astype(np.int64)

    @override
    def contribute_each(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> sp.csr_array:
        """Every user's clipped gradient in grid units: nobody is sampled, nothing is dropped."""
        if shape.purpose == "popularity":
            return super().contribute_each(interactions, state, round_index, shape)
        rows = self._session_of(state).clipped_rows(interactions, round_index)
        return sp.csr_array(rows * (shape.grid / self.max_grad_norm))

    @override
    def step_locally(self, state: State, noised: Integers, shape: RoundShape) -> State:
        """One step of plain SGD; the divisor is this silo's part of the expected batch.

        A step that leads beyond ``MAX_WEIGHT`` or ``MAX_ROUNDING`` is not taken: its noise is drawn and has
        to be charged, so nothing that follows from it may keep the contribution back.
        """
        rate = self.plan.training.local_learning_rate
        if rate is None:
            return super().step_locally(state, noised, shape)
        with np.errstate(all="ignore"):
            gradient = self._gradient(noised, shape, self.expected_batch_size / self.plan.num_silos)
            try:
                return state | self._moved(state, rate * gradient)
            except TrainingDivergedError:
                return state

    @override
    def local_loss(self, interactions: Interactions, state: State) -> float | None:
        """Mean loss of this silo's users with a history, without dropout; None if there are none."""
        return self._session_of(state).mean_loss(interactions)

    # ── every silo alike ──

    @override
    def absorb(
        self, state: State, sums: Integers, round_index: int, shape: NoisedStep, contributors: int
    ) -> State:
        """One optimiser step with the noised sum over the public divisor; or remember the noised counts.

        Raises:
            DataError: a sum of another length.
            TrainingDivergedError: the step leads to weights beyond ``MAX_WEIGHT`` or ``MAX_ROUNDING``.
        """
        if shape.purpose == "popularity":
            if len(sums) != self.num_items:
                raise DataError(f"an aggregate of {len(sums)} values does not count {self.num_items} items")
            return state | {"popularity": sums.copy(), "popularity_contributors": np.array(contributors)}
        training = self.plan.training
        share = contributors / self.plan.num_silos
        gradient = self._gradient(sums, shape, self.expected_batch_size * share * training.local_steps)
        gradient = gradient / self.trained_share
        direction, moments = self._direction(state, gradient)
        rate = self.learning_rate
        if training.decay == "linear":
            step = round_index - (self._popularity_shape is not None)
            rate = rate * (training.rounds - step) / training.rounds
        return state | moments | self._moved(state, rate * direction)

    @override
    def finish(self, state: State) -> ShippedModel:
        """The network as tables."""
        return self._session_of(state).architecture.recommender(self._weights(state))

    @override
    def checkpoint(self, state: State) -> State:
        """The weights, and what they mean: the same positions have to be read in the same way."""
        digest = np.frombuffer(bytes.fromhex(self.space_sha256), dtype=np.uint8)
        weights: State = {name: values.copy() for name, values in self._weights(state).items()}
        return weights | {CATALOGUE: digest.copy()}

    def _gradient(self, sums: Integers, shape: NoisedStep, divisor: float) -> Vector:
        if len(sums) != self.num_weights:
            raise DataError(
                f"an aggregate of {len(sums)} values is no gradient of {self.num_weights} weights"
            )
        scale = np.float64(self.max_grad_norm) / (shape.grid * divisor)  # infinite where that underflows to 0
        gradient: Vector = sums.astype(np.float64) * scale
        return gradient

    def _direction(self, state: State, gradient: Vector) -> tuple[Vector, State]:
        if self.plan.training.optimizer != "adam":
            return gradient, {}
        first_rate, second_rate = FIRST_MOMENT_DECAY, self.plan.training.second_moment_decay
        moments: State = {
            "first_moment": first_rate * state["first_moment"] + (1 - first_rate) * gradient,
            "second_moment": second_rate * state["second_moment"] + (1 - second_rate) * (gradient * gradient),
            "first_decay": np.array(float(state["first_decay"]) * first_rate),
            "second_decay": np.array(float(state["second_decay"]) * second_rate),
        }
        mean = moments["first_moment"] / (1 - float(moments["first_decay"]))
        spread = np.sqrt(moments["second_moment"] / (1 - float(moments["second_decay"])))
        return mean / (spread + ADAM_FLOOR), moments

    def _moved(self, state: State, step: Vector) -> State:
        moved: State = {}
        start = 0
        for name, shape in self._shapes.items():
            moved[name] = state[name] - step[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        if not all(_is_usable(values) for values in moved.values()):
            raise TrainingDivergedError(
                f"a step leads to weights beyond {MAX_WEIGHT:g}", remedy="propose a smaller learning_rate"
            )
        if self._session_of(state | moved).rounding() > MAX_ROUNDING:
            raise TrainingDivergedError(
                "a step leads to weights at which gradients lose digits",
                remedy="propose a smaller learning_rate, or fewer layers or places",
            )
        return moved

    # ── what is derived from a state ──

    def popularity_of(self, state: State) -> Vector | None:
        """Return each item's count in users' units, not below what noise alone could have made of it.

        None if the plan counts nothing, or the counts have not been summed yet.
        """
        shape = self._popularity_shape
        if shape is None or "popularity" not in state:
            return None
        std = self.total_noise_std(shape, int(state["popularity_contributors"])) / shape.grid
        counts: Vector = np.maximum(state["popularity"] / shape.grid, max(std, LEAST_COUNT))
        return counts

    def _weights(self, state: State) -> Weights:
        return {name: state[name] for name in self._shapes}

    def _session_of(self, state: State) -> TrainingSession:
        """The kept session, with the state's weights; another one once popularity has become known."""
        key = state["popularity"].tobytes() if "popularity" in state else b""
        if self._session is None or self._session[0] != key:
            made = self.make_architecture(self.popularity_of(state))
            self._session = key, TrainingSession(made, self.max_grad_norm, self.plan.privacy.clipping)
        session = self._session[1]
        session.set_weights(self._weights(state))
        return session

    def _checked(self, start: State) -> Weights:
        """The weights of a checkpoint, in the architecture's order.

        Raises:
            CheckpointError: other names, shapes, types or meaning, or a value that is not finite.
        """
        remedy = "start from a job with the same catalogue, architecture, features and hidden units"
        expected = {name: (shape, "float64") for name, shape in self._shapes.items()}
        expected[CATALOGUE] = ((32,), "uint8")
        found = {name: (values.shape, str(values.dtype)) for name, values in start.items()}
        if found != expected:
            raise CheckpointError(
                f"the checkpoint holds {_listed(found)}, this plan needs {_listed(expected)}", remedy=remedy
            )
        if start[CATALOGUE].tobytes().hex() != self.space_sha256:
            raise CheckpointError(
                "the checkpoint belongs to another catalogue, encoder or architecture", remedy=remedy
            )
        if not all(_is_usable(start[name]) for name in self._shapes):
            raise CheckpointError(f"the checkpoint holds a weight beyond {MAX_WEIGHT:g}", remedy=remedy)
        return {name: start[name].copy() for name in self._shapes}


def _is_usable(values: Vector) -> bool:
    return bool((np.abs(values) <= MAX_WEIGHT).all())


def _listed(tensors: dict[str, tuple[tuple[int, ...], str]]) -> str:
    return ", ".join(f"{name} {dtype}{list(shape)}" for name, (shape, dtype) in sorted(tensors.items()))
