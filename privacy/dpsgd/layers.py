"""Per-user gradients of single parameters, in the smallest form that has an exact norm.

A layer that each user passes once has gradients of rank one, ``b ⊗ a``: the norm is ``|b| |a|``, so the
matrix is never written out. An embedding's gradient has as many rows as the user has different items. What a
user passes several times (positions of a sequence) is summed per user first, as Opacus' hooks do it, but a
few users at a time: the norm of a sum by inner products of its terms (``aaᵀ ∘ bbᵀ``) loses half its digits
where terms cancel, and a norm that comes out too small is a person who is not clipped.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor
from typing_extensions import override

from privacy.dpsgd.base import Probe

# Added to lengths whose squares may underflow, so that no product of norms is below the real one.
_UNDERFLOW = 1e-150


class ParameterGradients(ABC):
    """The gradients of one parameter, one for each user."""

    @property
    @abstractmethod
    def num_users(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory they take."""

    @property
    @abstractmethod
    def norms(self) -> Tensor:
        """(users,) L2 norms."""

    @abstractmethod
    def along(self, probe: Probe) -> float:
        """Return their sum, along a direction."""

    @abstractmethod
    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        """Add them, each times its user's factor, to ``total``, of the parameter's shape."""

    @abstractmethod
    def row(self, user: int) -> Tensor:
        """One of them written out, flat."""

    @abstractmethod
    def distance(self, user: int, gradient: Tensor) -> float:
        """L2 distance of one of them to a gradient of the parameter's shape."""


class OuterProducts(ParameterGradients):
    """``b ⊗ a`` of a linear layer's weight: what came in (users, in) and what came back (users, out)."""

    def __init__(self, inputs: Tensor, backprops: Tensor) -> None:
        self.inputs = inputs
        self.backprops = backprops

    @property
    @override
    def num_users(self) -> int:
        return len(self.backprops)

    @property
    @override
    def num_bytes(self) -> int:
        return self.inputs.nbytes + self.backprops.nbytes

    @cached_property
    @override
    def norms(self) -> Tensor:
        return (_lengths(self.inputs) + _UNDERFLOW) * (_lengths(self.backprops) + _UNDERFLOW)

    @override
    def along(self, probe: Probe) -> float:
        return float((self.backprops @ probe.left) @ (self.inputs @ probe.right))

    @override
    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        inputs, backprops = self.inputs, self.backprops
        if inputs.shape[1] < backprops.shape[1]:
            inputs = inputs * factors[:, None]
        else:
            backprops = backprops * factors[:, None]
        total.addmm_(backprops.T, inputs)

    @override
    def row(self, user: int) -> Tensor:
        return torch.outer(self.backprops[user], self.inputs[user]).flatten()

    @override
    def distance(self, user: int, gradient: Tensor) -> float:
        return float(torch.addr(gradient, self.backprops[user], self.inputs[user], alpha=-1).norm())


class WrittenOut(ParameterGradients):
    """Gradients in full, (users, *shape): Opacus' own samplers make them."""

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples.flatten(1)

    @property
    @override
    def num_users(self) -> int:
        return len(self.samples)

    @property
    @override
    def num_bytes(self) -> int:
        return self.samples.nbytes

    @cached_property
    @override
    def norms(self) -> Tensor:
        return _lengths(self.samples)

    @override
    def along(self, probe: Probe) -> float:
        return float((self.samples @ torch.outer(probe.left, probe.right).flatten()).sum())

    @override
    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        total.view(-1).addmv_(self.samples.T, factors)

    @override
    def row(self, user: int) -> Tensor:
        return self.samples[user]

    @override
    def distance(self, user: int, gradient: Tensor) -> float:
        return float((gradient.flatten() - self.samples[user]).norm())


class SumsOfProducts:
    """``Σ b_t ⊗ a_t`` over what a user passes several times: a linear layer's weight on positions.

    Not kept but written out a few users at a time, so that what is measured is added before it leaves the
    processor's caches.

    Args:
        inputs: (users, positions, in) what came in.
        backprops: (users, positions, out) what came back.
    """

    def __init__(self, inputs: Tensor, backprops: Tensor) -> None:
        self._inputs = inputs
        self._backprops = backprops

    @property
    def num_users(self) -> int:
        """How many there are."""
        return len(self._backprops)

    @property
    def num_bytes(self) -> int:
        """Memory that they take before they are written out."""
        return self._inputs.nbytes + self._backprops.nbytes

    @property
    def bytes_a_user(self) -> int:
        """Memory that one of them takes written out."""
        return self._inputs.shape[2] * self._backprops.shape[2] * self._backprops.element_size()

    def written_out(self, at_once: int) -> Iterator[WrittenOut]:
        """All of them, so many users at a time."""
        parts = torch.split(self._backprops.mT, at_once), torch.split(self._inputs, at_once)
        for backprops, inputs in zip(*parts, strict=True):
            yield WrittenOut(torch.bmm(backprops, inputs))

    def along(self, probe: Probe) -> float:
        """Return their sum, along a direction."""
        return float(((self._backprops @ probe.left) * (self._inputs @ probe.right)).sum())

    def of(self, user: int, at_once: int) -> tuple[WrittenOut, int]:
        """Those that are written out with one user's, and its place: the very numbers that are added."""
        start = user - user % at_once
        part = slice(start, start + at_once)
        return WrittenOut(torch.bmm(self._backprops[part].mT, self._inputs[part])), user - start


class EmbeddingRows(ParameterGradients):
    """Gradients of an embedding: for each user, rows of different items, the others zero.

    Args:
        items: (users, positions) row numbers; a user may name an item several times.
        backprops: (users, positions, width) what came back for each.
        num_rows: of the embedding.
        ignored: a row that is never trained (``padding_idx``), if any.
    """

    def __init__(self, items: Tensor, backprops: Tensor, num_rows: int, ignored: int | None) -> None:
        self._num_rows = num_rows
        num_users, positions, width = backprops.shape
        if ignored is not None:
            backprops = backprops.masked_fill((items == ignored)[:, :, None], 0.0)
        ordered, order = items.sort(dim=1, stable=True)
        is_new = torch.ones_like(ordered)
        is_new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
        place = is_new.cumsum(1) - 1
        self.items = torch.zeros_like(ordered).scatter_(1, place, ordered)
        # Repeated items are summed here, once: norm and sum then use the very same numbers.
        first = positions * torch.arange(num_users)[:, None]
        summed = backprops.new_zeros(num_users * positions, width)
        summed.index_add_(0, (first + place).flatten(), backprops.flatten(0, 1)[(first + order).flatten()])
        self.rows = summed.view(num_users, positions, width)

    @property
    @override
    def num_users(self) -> int:
        return len(self.rows)

    @property
    @override
    def num_bytes(self) -> int:
        return self.rows.nbytes + self.items.nbytes

    @cached_property
    @override
    def norms(self) -> Tensor:
        return _lengths(self.rows.flatten(1))

    @override
    def along(self, probe: Probe) -> float:
        return float(((self.rows @ probe.right) * probe.left[self.items]).sum())

    @override
    def add_scaled(self, factors: Tensor, total: Tensor) -> None:
        scaled = self.rows * factors[:, None, None]
        total.index_add_(0, self.items.flatten(), scaled.flatten(0, 1))

    @override
    def row(self, user: int) -> Tensor:
        written = self.rows.new_zeros(self._num_rows, self.rows.shape[2])
        return written.index_add_(0, self.items[user], self.rows[user]).flatten()

    @override
    def distance(self, user: int, gradient: Tensor) -> float:
        return float(gradient.index_add(0, self.items[user], self.rows[user], alpha=-1).norm())


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return lengths
