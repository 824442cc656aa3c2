"""Norms without gradients: Opacus' ghost clipping, with the clipped sum from the same numbers as the norms.

Opacus' hooks hand every layer's inputs and backpropagated gradients to a norm sampler. Those of this module
keep them. Once the factors of all users are known, the clipped sum of a layer is one product of what was
kept, ``(c · b)ᵀ a`` (Bu, Wang, Zha, Karypis 2023, arXiv:2210.00038). Opacus itself runs a second backward
pass of ``Σ c_i loss_i`` there. That is slower, and it takes the gradient from where the norm was not
measured: what acts behind the hooks' back is then released unclipped. Here a user's contribution *is* the
vector whose norm was taken, so the clip norm holds by construction, and a weight used behind its layer's back
makes the gradient wrong; ``check_total`` finds that.
"""

from __future__ import annotations

import numpy as np
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
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
    Probe,
    Vector,
    check_rows,
    fresh_generator,
    num_users,
    takes_no_part,
)
from privacy.dpsgd.layers import EmbeddingRows, OuterProducts, ParameterGradients, WrittenOut


class GhostEngine(Engine):
    """``GradSampleModuleFastGradientClipping`` with norm samplers that keep what they measured."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser) -> None:
        hooked = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", strict=True)
        # On this object only: the samplers of other users of Opacus in this process stay theirs.
        hooked.NORM_SAMPLERS = {type(module): self._sample for module in hooked.iterate_submodules(model)}
        self._grad_samplers = hooked.GRAD_SAMPLERS
        super().__init__(hooked, parameters, loss_per_user)
        self._found: dict[Tensor, ParameterGradients] = {}
        generator = fresh_generator()
        self._probes = [Probe(parameter.shape, generator) for parameter in parameters]

    @override
    def gradients(self, batch: Batch) -> FactoredGradients:
        self._found = {}
        losses = self._backward(batch)
        found, totals = [], []
        for parameter in self.parameters:
            gradients = self._found.get(parameter)
            if gradients is None or parameter.grad is None:
                raise takes_no_part()
            check_rows(gradients.num_users, num_users(batch))
            found.append(gradients)
            totals.append(parameter.grad)
        self._found = {}
        self._forget()
        return FactoredGradients(losses, found, totals, self._probes)

    def _sample(
        self, module: nn.Module, activations: list[Tensor], backprops: Tensor
    ) -> dict[Tensor, Tensor]:
        """Keep one layer's gradients and answer their norms: a norm sampler as Opacus' registry has them."""
        if type(module) is nn.Linear:
            found = _linear(module, activations[0], backprops)
        elif type(module) is nn.Embedding:
            found = _embedding(module, activations[0], backprops)
        else:
            sampler = self._grad_samplers.get(type(module), ft_compute_per_sample_gradient)
            samples: dict[Tensor, Tensor] = sampler(module, activations, backprops)
            found = {parameter: WrittenOut(sample.detach()) for parameter, sample in samples.items()}
        found = {parameter: gradients for parameter, gradients in found.items() if parameter.requires_grad}
        if not self._found.keys().isdisjoint(found):
            raise PerUserGradientError(
                "a trainable parameter is used by two layers", where="model", remedy="pass mode='hooks'"
            )
        self._found.update(found)
        return {parameter: gradients.norms for parameter, gradients in found.items()}


class FactoredGradients(BatchGradients):
    """The gradients of a batch, parameter by parameter, in their own forms."""

    def __init__(
        self,
        losses: Vector,
        found: list[ParameterGradients],
        totals: list[Tensor],
        probes: list[Probe],
    ) -> None:
        self.losses = losses
        self._found = found
        self._totals = totals
        self._probes = probes
        self.norms = torch.stack([gradients.norms for gradients in found]).norm(dim=0).numpy()

    @override
    def check_total(self, max_grad_norm: float) -> None:
        for gradients, total, probe in zip(self._found, self._totals, self._probes, strict=True):
            self._check_difference(abs(gradients.along(probe) - probe.of(total)), max_grad_norm)

    @override
    def add_clipped(self, max_grad_norm: float, clipping: Clipping, total: Vector) -> None:
        factors = torch.from_numpy(clip_factors(self.norms, max_grad_norm, clipping))
        start = 0
        for gradients, matrix in zip(self._found, self._totals, strict=True):
            part = torch.from_numpy(total[start : start + matrix.numel()])
            gradients.add_scaled(factors, part.view(matrix.shape))
            start += matrix.numel()

    @override
    def row(self, user: int) -> Vector:
        return torch.cat([gradients.row(user) for gradients in self._found]).numpy()

    @override
    def distance(self, user: int, gradient: Gradient) -> float:
        pairs = zip(self._found, gradient, strict=True)
        return float(np.linalg.norm([found.distance(user, part) for found, part in pairs]))

    @property
    @override
    def num_bytes(self) -> int:
        # The kept factors, and as much again while they are scaled.
        return 2 * sum(gradients.num_bytes for gradients in self._found)


def _linear(layer: nn.Linear, inputs: Tensor, backprops: Tensor) -> dict[Tensor, ParameterGradients]:
    check_rows(len(inputs), len(backprops))
    found: dict[Tensor, ParameterGradients]
    if backprops.dim() == 2:
        found, summed = {layer.weight: OuterProducts(inputs, backprops)}, backprops
    else:
        inputs, backprops = inputs.flatten(1, -2), backprops.flatten(1, -2)
        found, summed = {layer.weight: WrittenOut(torch.bmm(backprops.mT, inputs))}, backprops.sum(1)
    if layer.bias is not None:
        found[layer.bias] = WrittenOut(summed)
    return found


def _embedding(layer: nn.Embedding, items: Tensor, backprops: Tensor) -> dict[Tensor, ParameterGradients]:
    check_rows(len(items), len(backprops))
    positions = items.reshape(len(items), -1)
    returned = backprops.reshape(*positions.shape, layer.embedding_dim)
    return {layer.weight: EmbeddingRows(positions, returned, layer.num_embeddings, layer.padding_idx)}
