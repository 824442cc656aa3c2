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
    PerUserGradientError,
    Vector,
    check_rows,
    no_total,
    num_users,
    takes_no_part,
)


class HookedEngine(Engine):
    """``GradSampleModule``: every parameter's ``grad_sample``."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser) -> None:
        if any(
            isinstance(module, nn.Embedding) and _has_trained_padding(module) for module in model.modules()
        ):
            raise PerUserGradientError(
                "Opacus' hooks train an embedding's padding row",
                where="model",
                remedy="leave padding_idx out",
            )
        super().__init__(
            GradSampleModule(model, loss_reduction="sum", strict=True), parameters, loss_per_user
        )

    @override
    def gradients(self, batch: Batch, *, with_total: bool = False) -> Rows:
        losses = self._backward(batch, with_total=with_total)
        samples = []
        for parameter in self.parameters:
            found = getattr(parameter, "grad_sample", None)
            if not isinstance(found, Tensor):
                raise takes_no_part()
            check_rows(found.shape[0], num_users(batch))
            samples.append(found.detach().reshape(len(found), -1).numpy())
        totals = [p.grad.numpy().ravel() for p in self.parameters if with_total and p.grad is not None]
        self._forget()
        return Rows(losses, np.concatenate(samples, axis=1), np.concatenate(totals) if totals else None)


class Rows(BatchGradients):
    """Gradients as a matrix, users × values."""

    def __init__(self, losses: Vector, rows: Vector, total: Vector | None) -> None:
        self.losses = losses
        self._rows = rows
        self._total = total
        with np.errstate(over="ignore", invalid="ignore"):
            self.norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))

    @override
    def check_total(self, max_grad_norm: float) -> None:
        if self._total is None:
            raise no_total()
        difference = np.linalg.norm(self._rows.sum(axis=0) - self._total)
        self._check_difference(float(difference), max_grad_norm)

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


def _has_trained_padding(layer: nn.Embedding) -> bool:
    return layer.padding_idx is not None and layer.weight.requires_grad
