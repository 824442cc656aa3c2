"""Linear: one layer from public item attributes to item scores, trained by DP-SGD.

A user's input is the mean of the public features of their items, the target their history normalised to one;
the loss is the multinomial cross-entropy of :class:`torch.nn.Linear`, a sum of terms of single users. The
gradients of users are Opacus', clipped to ``max_grad_norm``, summed, put on the plan's grid and rounded once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from policies.plan import LinearModel
from privacy.dpsgd import PerUserGradients
from privacy.errors import DataError, UsageError
from privacy.sampling import poisson_sample
from silo.models.base import Family, Integers, State
from silo.models.recommender import Recommender

if TYPE_CHECKING:
    from policies.plan import Plan
    from policies.price import RoundShape
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions

USERS_AT_ONCE = 1024
ADAM_DECAYS = (0.9, 0.999)
ADAM_FLOOR = 1e-8

Matrix = NDArray[np.float64]


def public_features(catalogue: Catalogue, width: int) -> Matrix:
    """Items × ``width``: the first attributes in sorted order, padded with zeros. Reads no rows of users."""
    table = catalogue.features()[:, :width]
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))


def cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each user's normalised history; shape (users,)."""
    return -(targets * torch.log_softmax(model(inputs), dim=1)).sum(dim=1)


class Linear(Family):
    """The ``linear`` family: ``rounds`` sums of ``items × features + items`` values.

    The state holds ``weight`` (items × features), ``bias`` (items) and, for Adam, ``first_moment``,
    ``second_moment`` (flat) and ``step``; all float64.
    """

    name = "linear"

    def __init__(self, plan: Plan, catalogue: Catalogue, *, noise_std: float | None = None) -> None:
        super().__init__(plan, catalogue, noise_std=noise_std)
        model, training, privacy = plan.model, plan.training, plan.privacy
        if not isinstance(model, LinearModel) or privacy.max_grad_norm is None:
            raise UsageError(f"a plan of family {model.family!r} trains no linear model", where="plan")
        if training.expected_batch_size is None or training.learning_rate is None:
            raise UsageError("the plan names no expected_batch_size or learning_rate", where="plan: training")
        self.max_grad_norm: float = privacy.max_grad_norm
        self.expected_batch_size: float = training.expected_batch_size
        self.learning_rate: float = training.learning_rate
        self.features = public_features(catalogue, model.features)

    @override
    def initial_state(self) -> State:
        """All zeros: the loss is convex, and every silo starts alike."""
        items, width = self.features.shape
        state: State = {"weight": np.zeros((items, width)), "bias": np.zeros(items)}
        if self.plan.training.optimizer == "adam":
            values = items * width + items
            state |= {"first_moment": np.zeros(values), "second_moment": np.zeros(values)}
            state["step"] = np.array(0.0)
        return state

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        """Sum the clipped gradients of this round's users, in grid units, rounded once.

        With ``sample_rate`` below 1 the users are drawn by fresh coins of the operating system, so two calls
        differ; the contribution that was drawn is kept, never drawn again.
        """
        gradients = PerUserGradients(_layer(state), cross_entropy, self.max_grad_norm)
        made_up = sp.csr_matrix(np.eye(self.num_items)[np.arange(3) % self.num_items])
        gradients.start_up_self_test(*self._batch(made_up))
        histories = interactions.matrix()
        users = poisson_sample(histories.shape[0], self.plan.training.sample_rate)
        total = np.zeros(shape.values)
        for start in range(0, len(users), USERS_AT_ONCE):
            total += gradients.clipped_sum(*self._batch(histories[users[start : start + USERS_AT_ONCE]]))
        return np.rint(total * (shape.grid / self.max_grad_norm)).astype(np.int64)

    @override
    def absorb(self, state: State, sums: Integers, round_index: int, shape: RoundShape) -> State:
        """One optimiser step with the noised sum over the public ``expected_batch_size``."""
        items, width = self.features.shape
        if len(sums) != items * width + items:
            raise DataError(f"an aggregate of {len(sums)} values is no gradient of {items} × {width} weights")
        scale = self.max_grad_norm / (shape.grid * self.expected_batch_size)
        gradient = scale * sums.astype(np.float64)
        direction, moments = self._direction(state, gradient)
        step = self.learning_rate * direction
        return moments | {
            "weight": state["weight"] - step[: items * width].reshape(items, width),
            "bias": state["bias"] - step[items * width :],
        }

    @override
    def finish(self, state: State) -> Recommender:
        """The layer itself; an unknown user gets what it says without any feature."""
        bias = state["bias"].astype(np.float32)
        odds = np.exp(state["bias"] - state["bias"].max())
        return Recommender(
            left=self.features.astype(np.float32),
            right=state["weight"].astype(np.float32),
            bias=bias,
            popularity=(odds / odds.sum()).astype(np.float32),
            metadata={"family": self.name},
        )

    def _batch(self, histories: Any) -> tuple[Tensor, Tensor]:
        lengths = np.maximum(np.diff(histories.indptr), 1)
        targets = histories.toarray() / lengths[:, None]
        return torch.from_numpy(targets @ self.features), torch.from_numpy(targets)

    def _direction(self, state: State, gradient: Matrix) -> tuple[Matrix, State]:
        if self.plan.training.optimizer != "adam":
            return gradient, {}
        step = float(state["step"]) + 1
        first_decay, second_decay = ADAM_DECAYS
        first = first_decay * state["first_moment"] + (1 - first_decay) * gradient
        second = second_decay * state["second_moment"] + (1 - second_decay) * gradient**2
        moments: State = {"first_moment": first, "second_moment": second, "step": np.array(step)}
        spread = np.sqrt(second / (1 - second_decay**step)) + ADAM_FLOOR
        return first / (1 - first_decay**step) / spread, moments


def _layer(state: State) -> nn.Linear:
    items, width = state["weight"].shape
    layer = nn.Linear(width, items, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(state["weight"]))
        layer.bias.copy_(torch.from_numpy(state["bias"]))
    return layer
