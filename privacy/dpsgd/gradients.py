"""The clipped sum of a batch's gradients: what a silo contributes to one step, before noise."""

from __future__ import annotations

import math
import secrets

import numpy as np
import torch
from opacus.layers.dp_rnn import RNNLinear
from torch import nn

from privacy.clipping import Clipping, check_max_norm, clip_factors, clip_rows
from privacy.dpsgd.base import (
    Batch,
    BatchGradients,
    Engine,
    Gradient,
    LossPerUser,
    Mode,
    PerUserGradientError,
    Vector,
    num_users,
)
from privacy.dpsgd.ghost import GhostEngine
from privacy.dpsgd.hooks import HookedEngine

USERS_AT_BASE_PRICE = 1 << 17
"""A float error of 1e-5 covers so many users a step; more cost the square (``policies/plans/shapes.py``)."""
MAX_USERS_AT_ONCE = 1 << 10
ROUNDING = 1e-11
"""How far a user's clipped gradient may move with the batch it is computed in, over the clip norm."""

_SELF_TEST_USERS = 3
_SELF_TEST_TOLERANCE = 1e-9
_WRITTEN_OUT_VALUES = 1 << 10
_DEFAULT_MEMORY_BYTES = 1 << 27


class PerUserGradients:
    """Clipped sum of per-user gradients of one model; see the package's guarantees.

    The model is hooked in place: its parameters stay its own, to be updated between calls.

    Args:
        model: a float64 module whose layers Opacus knows; every trainable parameter takes part in the loss.
        loss_per_user: see ``LossPerUser``; each entry depends on that user's part of the batch only.
        max_grad_norm: L2 bound on one user's gradient over all trainable parameters.
        clipping: ``flat`` or ``automatic`` (``privacy.clipping``).
        max_memory_bytes: bound on what one micro-batch may take: what autograd keeps and the gradients.
        mode: how to tell users apart; by default by the shape of the layers.

    Attributes:
        mode: ``hooks`` or ``ghost``.
        num_values: length of the sum.

    Raises:
        PerUserGradientError: the model has nothing to train, is not in float64, or has layers that mix users.
        ClippingError: ``max_grad_norm`` is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_per_user: LossPerUser,
        max_grad_norm: float,
        *,
        clipping: Clipping = "flat",
        max_memory_bytes: int = _DEFAULT_MEMORY_BYTES,
        mode: Mode | None = None,
    ) -> None:
        check_max_norm(max_grad_norm)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.num_values = sum(parameter.numel() for parameter in parameters)
        if not self.num_values:
            raise PerUserGradientError("the model has no trainable parameter", where="model")
        if any(tensor.dtype != torch.float64 for tensor in parameters):
            raise PerUserGradientError(
                "the model is not in float64, so one user's presence may move the others' gradients by more "
                "than the price of a plan covers",
                where="model",
                remedy="make it with dtype=torch.float64, or call model.double()",
            )
        self.mode: Mode = mode or _mode_of(model, self.num_values)
        self._engine = _engine(self.mode, model, parameters, loss_per_user)
        self._max_grad_norm = max_grad_norm
        self._clipping: Clipping = clipping
        self._max_memory_bytes = max_memory_bytes
        self._users_at_once: dict[tuple[torch.Size, ...], int] = {}

    def clipped_sum(self, *batch: torch.Tensor) -> Vector:
        """Sum of the batch's gradients, each clipped to ``max_grad_norm``.

        Args:
            *batch: tensors with users first; a batch without users is fine.

        Returns:
            Shape (num_values,), trainable parameters flattened in the order of ``model.parameters()``.

        Raises:
            PerUserGradientError: a check of this step failed.
        """
        return self._sum(batch, self._max_grad_norm)

    def clipped_rows(self, *batch: torch.Tensor) -> Vector:
        """What each user of a small batch adds to :meth:`clipped_sum`, for whoever audits it.

        Args:
            *batch: tensors with users first.

        Returns:
            Shape (users, num_values), up to the rounding of a clip; held in memory as a whole.
        """
        if num_users(batch) == 0:
            return np.zeros((0, self.num_values))
        found = self._engine.gradients(batch)
        rows = np.stack([found.row(user) for user in range(num_users(batch))])
        return clip_rows(rows, self._max_grad_norm, self._clipping)

    def start_up_self_test(self, *batch: torch.Tensor) -> None:
        """Prove on three users that this model's gradients are per user and clipped.

        Compared are gradients, norms, and what each user adds to the sum, at ``max_grad_norm`` and at a norm
        that clips everybody, with a plain autograd loop over users alone.

        Args:
            *batch: public or made-up users, at least three, whose gradients are not zero.

        Raises:
            PerUserGradientError: a per-user gradient differs from autograd's, or one user moves the sum by
                more than the clip norm.
        """
        if num_users(batch) < _SELF_TEST_USERS:
            raise PerUserGradientError("the self-test needs three users", where="batch")
        batch = tuple(tensor[:_SELF_TEST_USERS] for tensor in batch)
        found = self._engine.gradients(batch, with_total=True)
        alone = [self._engine.alone(batch, user) for user in range(_SELF_TEST_USERS)]
        expected = np.stack([torch.cat([part.flatten() for part in gradient]).numpy() for gradient in alone])
        norms = np.linalg.norm(expected, axis=1)
        if not (np.isfinite(norms).all() and norms.min() > 0):
            raise PerUserGradientError("a user of the self-test has no gradient", where="batch")
        rows = np.stack([found.row(user) for user in range(_SELF_TEST_USERS)])
        differences = np.linalg.norm(rows - expected, axis=1), np.abs(found.norms - norms)
        if not np.all(np.stack(differences) <= _SELF_TEST_TOLERANCE * norms):
            raise PerUserGradientError(
                "per-user gradients differ from those of each user alone",
                where="start_up_self_test",
                remedy="use parameters through their layers only, sum over each user's own terms, no dropout",
            )
        found.check_total(self._max_grad_norm)
        for max_grad_norm in {self._max_grad_norm, float(norms.min()) / 2} - {0.0}:
            self._test_applied_updates(batch, expected, max_grad_norm)

    def measure(self, *batch: torch.Tensor) -> None:
        """Find how many users of such shapes fit the memory, before anybody's rows are read.

        Args:
            *batch: one public or made-up user or more, as dear as any: what a step takes may depend on rows.
        """
        self._users_at_once[_shapes(batch)] = self._fitting(batch)

    def rounding(self, *batch: torch.Tensor) -> float:
        """How far users' clipped gradients move with the batch that they are computed in, over the clip norm.

        Deep and recurrent networks multiply rounding errors, by more the larger their weights are. Who has
        public weights and public users finds out where :data:`ROUNDING` is near, before a user's rows do.

        Args:
            *batch: public or made-up users.

        Returns:
            The largest such distance; infinite if a gradient is not finite.
        """
        found = self._engine.gradients(batch)
        if not found.is_usable.all():
            return math.inf
        factors = clip_factors(found.norms, self._max_grad_norm, self._clipping)
        distances = (found.distance(user, self._engine.alone(batch, user)) for user in range(len(factors)))
        moved = [float(factor) * far for factor, far in zip(factors, distances, strict=True)]
        return max(moved, default=0.0) / self._max_grad_norm

    def _test_applied_updates(self, batch: Batch, expected: Vector, max_grad_norm: float) -> None:
        everybody = self._sum(batch, max_grad_norm)
        wanted = clip_rows(expected, max_grad_norm, self._clipping)
        for user in range(_SELF_TEST_USERS):
            others = tuple(torch.cat([tensor[:user], tensor[user + 1 :]]) for tensor in batch)
            moved = everybody - self._sum(others, max_grad_norm)
            # Clipped rows lie on a grid of at least 2^-33 of the norm; others' sums do not.
            slack = (2.0**-31 * np.sqrt(self.num_values) + _SELF_TEST_TOLERANCE) * max_grad_norm
            if not (
                np.linalg.norm(moved) <= max_grad_norm * (1 + _SELF_TEST_TOLERANCE)
                and np.linalg.norm(moved - wanted[user]) <= slack
            ):
                raise PerUserGradientError(
                    "one user moves the sum by more than the clip norm, or by another vector than their own",
                    where="start_up_self_test",
                )

    def _sum(self, batch: Batch, max_grad_norm: float) -> Vector:
        users, total = num_users(batch), np.zeros(self.num_values)
        if users == 0:
            return total
        at_once = self._micro_batch(batch)
        watched = secrets.randbelow(-(-users // at_once))
        for number, start in enumerate(range(0, users, at_once)):
            part = tuple(tensor[start : start + at_once] for tensor in batch)
            total += self._clipped(part, max_grad_norm, is_watched=number == watched)
        return total

    def _clipped(self, batch: Batch, max_grad_norm: float, *, is_watched: bool) -> Vector:
        """One micro-batch's clipped gradients in sum, without the users who have none."""
        gradients = self._engine.gradients(batch, with_total=is_watched)
        found = gradients.clipped_sum(max_grad_norm, self._clipping)
        while not gradients.is_usable.all():
            is_usable = gradients.is_usable
            self._check_unusable_alone(batch, int(secrets.choice(np.flatnonzero(~is_usable))))
            if not is_usable.any():
                return np.zeros(self.num_values)
            batch = tuple(tensor[torch.from_numpy(is_usable)] for tensor in batch)
            gradients = self._engine.gradients(batch, with_total=is_watched)
            found = gradients.clipped_sum(max_grad_norm, self._clipping)
        if is_watched:
            gradients.check_total(max_grad_norm)
            self._check_alone(batch, gradients, secrets.randbelow(num_users(batch)), max_grad_norm)
        return found

    def _check_alone(self, batch: Batch, gradients: BatchGradients, user: int, max_grad_norm: float) -> None:
        """Whoever else is in the batch, one user's gradient is the same, and clipped it is short enough."""
        gradient = self._engine.alone(batch, user)
        factor = float(clip_factors(gradients.norms[user : user + 1], max_grad_norm, self._clipping)[0])
        if not factor * gradients.distance(user, gradient) <= ROUNDING * max_grad_norm:
            raise PerUserGradientError(
                "a user's gradient in the batch is not the one of that user alone",
                where="model",
                remedy="use weights through their layers only (not `z @ embedding.weight.T`); no batch "
                "statistics, in-batch negatives or dropout: each loss from that user alone",
            )
        if not factor * _length(gradient) <= max_grad_norm * (1 + _SELF_TEST_TOLERANCE):
            raise PerUserGradientError("one user's update is longer than the clip norm", where="model")

    def _check_unusable_alone(self, batch: Batch, user: int) -> None:
        """Who counts as nobody does so because of their own rows."""
        if self._engine.gradients(_only(batch, user)).is_usable.all():
            raise PerUserGradientError(
                "a user has no usable gradient because of who else is in the batch",
                where="model",
                remedy="no batch statistics, in-batch negatives or dropout: each loss from that user alone",
            )

    def _micro_batch(self, batch: Batch) -> int:
        """How many users fit the memory; for shapes that were not measured, from the first user."""
        shapes = _shapes(batch)
        if shapes not in self._users_at_once:
            self._users_at_once[shapes] = self._fitting(batch)
        return self._users_at_once[shapes]

    def _fitting(self, batch: Batch) -> int:
        one = _only(batch, 0)
        two = tuple(torch.cat([tensor, tensor]) for tensor in one)
        # What is kept whatever the number of users (weights, constants) is in both.
        needed = self._num_bytes(two) - self._num_bytes(one)
        return min(max(self._max_memory_bytes // max(needed, 1), 1), MAX_USERS_AT_ONCE)

    def _num_bytes(self, batch: Batch) -> int:
        """Memory of a batch: gradients, what autograd keeps, and as much again for what flows back."""
        kept_bytes = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal kept_bytes
            kept_bytes += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradients = self._engine.gradients(batch)
        return 2 * kept_bytes + gradients.num_bytes


def _length(gradient: Gradient) -> float:
    return math.hypot(*(float(part.norm()) for part in gradient))


def _shapes(batch: Batch) -> tuple[torch.Size, ...]:
    return tuple(tensor.shape[1:] for tensor in batch)


def _only(batch: Batch, user: int) -> Batch:
    return tuple(tensor[user : user + 1] for tensor in batch)


def _mode_of(model: nn.Module, num_values: int) -> Mode:
    """Rows where they are short or where a parameter is used more than once, else factors."""
    names = list(model.named_parameters(remove_duplicate=False))
    is_shared = len({id(parameter) for _, parameter in names}) < len(names)
    is_recurrent = any(isinstance(module, RNNLinear) for module in model.modules())
    return "hooks" if num_values <= _WRITTEN_OUT_VALUES or is_shared or is_recurrent else "ghost"


def _engine(
    mode: Mode, model: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser
) -> Engine:
    try:
        kind = HookedEngine if mode == "hooks" else GhostEngine
        return kind(model, parameters, loss_per_user)
    except (NotImplementedError, ValueError) as error:
        raise PerUserGradientError(
            f"Opacus cannot tell users apart in this model: {error}",
            where="model",
            remedy="use layers without buffers and statistics over the batch, and hook a model only once",
        ) from error
