"""Norms without gradients: Opacus' ghost clipping, with the clipped sum from the same numbers as the norms.

Opacus' hooks hand every layer's inputs and backpropagated gradients to a norm sampler. Those of this module
keep them. Once a user's factor is known, the clipped sum of a layer is a product of what was kept,
``(c · b)ᵀ a`` (Bu, Wang, Zha, Karypis 2023, arXiv:2210.00038). Opacus itself runs a second backward
pass of ``Σ c_i loss_i`` there. That is slower, and it takes the gradient from where the norm was not
measured: what acts behind the hooks' back is then released unclipped. Here a user's contribution *is* the
vector whose norm was taken, so none is longer than the clip norm, and a weight used behind its layer's back
makes the gradient wrong. That each is of its own user only is checked: by the sum, and by one user alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

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
    no_total,
    num_users,
    takes_no_part,
)
from privacy.dpsgd.layers import (
    EmbeddingRows,
    OuterProducts,
    ParameterGradients,
    SumsOfProducts,
    WrittenOut,
)

CACHED_BYTES = 1 << 22
"""Gradients written out at a time: measured and added, they should not have left the processor's caches."""

Kept = ParameterGradients | SumsOfProducts


class GhostEngine(Engine):
    """``GradSampleModuleFastGradientClipping`` with norm samplers that keep what they measured."""

    def __init__(self, model: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser) -> None:
        hooked = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", strict=True)
        # On this object only: the samplers of other users of Opacus in this process stay theirs.
        hooked.NORM_SAMPLERS = {type(module): self._sample for module in hooked.iterate_submodules(model)}
        self._grad_samplers = hooked.GRAD_SAMPLERS
        super().__init__(hooked, parameters, loss_per_user)
        self._found: dict[Tensor, Kept] = {}
        generator = fresh_generator()
        self._probes = [Probe(parameter.shape, generator) for parameter in parameters]

    @override
    def gradients(self, batch: Batch, *, with_total: bool = False) -> FactoredGradients:
        self._found = {}
        losses = self._backward(batch, with_total=with_total)
        found, totals = [], []
        for parameter in self.parameters:
            gradients = self._found.get(parameter)
            if gradients is None:
                raise takes_no_part()
            check_rows(gradients.num_users, num_users(batch))
            found.append(gradients)
            if parameter.grad is not None:
                totals.append(parameter.grad)
        self._found = {}
        self._forget()
        shapes = [parameter.shape for parameter in self.parameters]
        compared = list(zip(self._probes, totals, strict=True)) if with_total else None
        return FactoredGradients(losses, found, shapes, compared)

    def _sample(
        self, module: nn.Module, activations: list[Tensor], backprops: Tensor
    ) -> dict[Tensor, Tensor]:
        """Keep one layer's gradients: in the place of a norm sampler of Opacus' registry, without norms."""
        found: dict[Tensor, Kept]
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
        return {}


class FactoredGradients(BatchGradients):
    """The gradients of a batch, parameter by parameter, in their own forms.

    Args:
        losses: (users,).
        found: of each parameter.
        shapes: of the parameters.
        compared: of each parameter a direction and the sum that autograd made, where it was to make it.
    """

    def __init__(
        self,
        losses: Vector,
        found: list[Kept],
        shapes: list[torch.Size],
        compared: list[tuple[Probe, Tensor]] | None,
    ) -> None:
        self.losses = losses
        self._compared = compared
        self._found = found
        self._shapes = shapes
        self._whole = {at: one for at, one in enumerate(found) if isinstance(one, ParameterGradients)}
        self._sums = {at: one for at, one in enumerate(found) if isinstance(one, SumsOfProducts)}
        bytes_a_user = sum(sums.bytes_a_user for sums in self._sums.values())
        self._at_once = max(1, CACHED_BYTES // bytes_a_user) if bytes_a_user else len(losses)

    @cached_property
    @override
    def norms(self) -> Vector:  # type: ignore[override]  # computed once, like any attribute afterwards
        return torch.cat([norms for norms, _ in self._written_out()]).numpy()

    @override
    def check_total(self, max_grad_norm: float) -> None:
        if self._compared is None:
            raise no_total()
        for gradients, (probe, total) in zip(self._found, self._compared, strict=True):
            self._check_difference(abs(gradients.along(probe) - probe.of(total)), max_grad_norm)

    @override
    def clipped_sum(self, max_grad_norm: float, clipping: Clipping) -> Vector:
        parts = [torch.zeros(shape, dtype=torch.float64) for shape in self._shapes]
        norms, factors = [], []
        for lengths, written in self._written_out():
            norms.append(lengths)
            factors.append(torch.from_numpy(clip_factors(lengths.numpy(), max_grad_norm, clipping)))
            for at, gradients in zip(self._sums, written, strict=True):
                gradients.add_scaled(factors[-1], parts[at])
            del written  # before the next are written out
        self.norms = torch.cat(norms).numpy()
        for at, of_all in self._whole.items():
            of_all.add_scaled(torch.cat(factors), parts[at])
        return torch.cat([part.flatten() for part in parts]).numpy()

    @override
    def row(self, user: int) -> Vector:
        return torch.cat([gradients.row(at) for gradients, at in self._of(user)]).numpy()

    @override
    def distance(self, user: int, gradient: Gradient) -> float:
        pairs = zip(self._of(user), gradient, strict=True)
        return float(np.linalg.norm([found.distance(at, part) for (found, at), part in pairs]))

    @property
    @override
    def num_bytes(self) -> int:
        # What is kept, and as much again while it is scaled; what is written out does not grow with users.
        whole = sum(gradients.num_bytes for gradients in self._whole.values())
        sums = sum(gradients.num_bytes for gradients in self._sums.values())
        return 2 * whole + sums

    def _written_out(self) -> Iterator[tuple[Tensor, tuple[WrittenOut, ...]]]:
        """A few users at a time: norms of all that is theirs, and what of it had to be written out."""
        nothing = torch.zeros(len(self.losses), dtype=torch.float64)
        whole = torch.stack([nothing, *(gradients.norms for gradients in self._whole.values())]).norm(dim=0)
        sums = zip(*(one.written_out(self._at_once) for one in self._sums.values()), strict=True)
        for norms in whole.split(self._at_once):
            written = next(sums, ())
            yield torch.stack([norms, *(gradients.norms for gradients in written)]).norm(dim=0), written
            del written

    def _of(self, user: int) -> Iterator[tuple[ParameterGradients, int]]:
        """Each parameter's gradients and the user's place in them."""
        for gradients in self._found:
            if isinstance(gradients, SumsOfProducts):
                yield gradients.of(user, self._at_once)
            else:
                yield gradients, user


def _linear(layer: nn.Linear, inputs: Tensor, backprops: Tensor) -> dict[Tensor, Kept]:
    check_rows(len(inputs), len(backprops))
    found: dict[Tensor, Kept]
    if backprops.dim() == 2:
        found, summed = {layer.weight: OuterProducts(inputs, backprops)}, backprops
    else:
        inputs, backprops = inputs.flatten(1, -2), backprops.flatten(1, -2)
        found, summed = {layer.weight: SumsOfProducts(inputs, backprops)}, backprops.sum(1)
    if layer.bias is not None:
        found[layer.bias] = WrittenOut(summed)
    return found


def _embedding(layer: nn.Embedding, items: Tensor, backprops: Tensor) -> dict[Tensor, Kept]:
    check_rows(len(items), len(backprops))
    positions = items.reshape(len(items), -1)
    returned = backprops.reshape(*positions.shape, layer.embedding_dim)
    return {layer.weight: EmbeddingRows(positions, returned, layer.num_embeddings, layer.padding_idx)}
