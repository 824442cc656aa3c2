"""Per-user gradients written out in full by Opacus' hooks: for models whose gradients are small.

All of Opacus' machinery may be used here: layers used several times, shared parameters, recurrent cells.
"""

from __future__ import annotations

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn
from typing_extensions import override

from privacy.clipping import Clipping, clip_factors
from privacy.dpsgd.base import (
    Batch,
    BatchGradients,
    Engine,
    Gradient,
    LossPerUser,
    Vector,
    check_rows,
    num_users,
    takes_no_part,
)


class HookedEngine(Engine):
    """``GradSampleModule``: every parameter's ``grad_sample``."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser) -> None:
        super().__init__(
            GradSampleModule(model, loss_reduction="sum", strict=True), parameters, loss_per_user
        )

    @override
    def gradients(self, batch: Batch) -> Rows:
        losses = self._backward(batch)
        samples = []
        for parameter in self.parameters:
            found = getattr(parameter, "grad_sample", None)
            if not isinstance(found, Tensor):
                raise takes_no_part()
            check_rows(found.shape[0], num_users(batch))
            samples.append(found.detach().reshape(len(found), -1).numpy())
        self._forget()
        return Rows(losses, np.concatenate(samples, axis=1))


class Rows(BatchGradients):
    """Gradients as a matrix, users × values."""

    def __init__(self, losses: Vector, rows: Vector) -> None:
        self.losses = losses
        self._rows = rows
        with np.errstate(over="ignore", invalid="ignore"):
            self.norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))

    @override
    def clipped_sum(self, max_grad_norm: float, clipping: Clipping) -> Vector:
        with np.errstate(over="ignore", invalid="ignore"):
            total: Vector = clip_factors(self.norms, max_grad_norm, clipping) @ self._rows
        return total

    @override
    def row(self, user: int) -> Vector:
        row: Vector = self._rows[user]
        return row

    @override
    def distance(self, user: int, gradient: Gradient) -> float:
        flat = torch.cat([part.flatten() for part in gradient]).numpy()
        return float(np.linalg.norm(self._rows[user] - flat))

    @property
    @override
    def num_bytes(self) -> int:
        # The rows, Opacus' copies of them and what those were made of.
        return 3 * self._rows.nbytes
