"""The adapted encoder: ``W x + s B A x`` on queries and values, of which one small matrix is trained.

A secure sum adds. The sum of products ``B A`` of several silos is no product of their sums, so a LoRA whose
both factors train is averaged with an error. With one matrix between frozen public ones the average is exact:

* ``ffa_lora``: ``A`` frozen, ``B`` trained from zero (Sun et al., ICLR 2024, arXiv:2403.12313);
* ``fed_sb``: ``A`` and ``B`` frozen, an r × r core between them trained from zero (Singhal et al. 2025,
  arXiv:2502.15436; there the frozen factors come from a first gradient, which would be private: ours are
  random). Fewest values, so least noise in all.

Opacus' hooks make one gradient for each row of a layer's first dimension. Rows of the network are texts, and
people have many: around every trained map the texts of one person are folded into one row, so the gradients
are per person.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from silo.language.adapters.stack import UpperLayers
from silo.language.files import TextEncoderError
from silo.models.features import Matrix, orthonormal, public_uniform

AdapterKind = Literal["ffa_lora", "fed_sb"]

_SEED: Final = 0x6C6F7261
"""Of frozen matrices, away from the weights that the same public seed gives."""


@dataclass(frozen=True, kw_only=True)
class AdapterTerms:
    """What a plan says of adapters.

    Attributes:
        kind: which matrix is trained.
        rank: of what is added to each map.
        scale: that it is multiplied with; LoRA's alpha over rank.
        seed: public, of the frozen matrices.
    """

    kind: AdapterKind
    rank: int
    scale: float
    seed: int


class AdaptedEncoder(nn.Module):
    """Texts to vectors through frozen layers with trained adapters; only the latter are its parameters.

    Args:
        upper: the layers, of which the maps are replaced by adapted ones; used by no other encoder.
        terms: of the adapters.
        columns: of each trained matrix that are this encoder's parameters, the first ones; the others are
            constants (:meth:`hold`). Left out: all.

    Attributes:
        adapters: a linear layer without bias for each map, in the order of :meth:`UpperLayers.maps`.

    Raises:
        TextEncoderError: a rank beyond :func:`largest_rank`.
    """

    def __init__(self, upper: UpperLayers, terms: AdapterTerms, columns: int | None = None) -> None:
        super().__init__()
        largest = largest_rank(upper, terms.kind)
        if terms.rank > largest:
            raise TextEncoderError(
                f"adapters of rank {terms.rank} are wider than a map of this encoder",
                where="plan: model.encoder_adapter.rank",
                remedy=f"propose a rank of at most {largest} with {terms.kind}",
            )
        # In a tuple, torch does not register it: frozen weights are no parameters, nothing hooks them.
        self._upper = (upper,)
        self._fold = _Fold()
        self.adapters = nn.ModuleList()
        self._maps: list[_AdaptedMap] = []
        for number, (parent, name) in enumerate(upper.maps()):
            base = getattr(parent, name)
            adapted = _AdaptedMap(base, number, terms, self._fold, columns or terms.rank)
            self.adapters.append(adapted.trained[0])
            self._maps.append(adapted)
            setattr(parent, name, adapted)

    def hold(self, rest: Iterable[Tensor]) -> None:
        """Read with columns that are no parameters.

        Args:
            rest: of each map in the order of ``adapters``, outputs × (rank - columns).
        """
        for adapted, columns in zip(self._maps, rest, strict=True):
            adapted.hold(columns)

    def forward(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        """Vectors of people's texts.

        Args:
            hidden: people × texts × tokens × width float64, what comes into the first adapted layer.
            is_token: people × texts × tokens bool.

        Returns:
            people × texts × width, each of length one; zeros where there is no token.
        """
        people, texts, tokens, width = hidden.shape
        self._fold.people = people
        is_read = is_token.reshape(people * texts, tokens)
        layer = self._upper[0](hidden.reshape(people * texts, tokens, width), is_read)
        weights = is_read[..., None].to(layer.dtype)
        mean = (layer * weights).sum(1) / weights.sum(1).clamp(min=1)
        return functional.normalize(mean, dim=1).reshape(people, texts, width)


def largest_rank(upper: UpperLayers, kind: AdapterKind) -> int:
    """Frozen columns of an adapter are orthonormal: no more of them than a map has inputs, or outputs.

    Args:
        upper: whose maps are adapted; values have fewer outputs than queries where heads share them.
        kind: ``ffa_lora`` has columns over inputs only, ``fed_sb`` over outputs too.
    """
    maps = [getattr(parent, name) for parent, name in upper.maps()]
    sides: list[int] = [each.in_features for each in maps]
    if kind == "fed_sb":
        sides += [each.out_features for each in maps]
    return min(sides)


class _Fold:
    """How many people the rows of a batch belong to."""

    people: int = 1


class _AdaptedMap(nn.Module):
    """A frozen map with an adapter beside it."""

    def __init__(self, base: Any, number: int, terms: AdapterTerms, fold: _Fold, columns: int) -> None:
        super().__init__()
        self._frozen, self._fold, self._scale = base, fold, terms.scale
        self._base = base
        seed = (terms.seed + _SEED) * 1_000 + 2 * number
        down = torch.from_numpy(_columns(seed, base.in_features, terms.rank)).T
        self._down, self._down_of_rest = down[:columns], down[columns:]
        self._up: Tensor | None = None
        outputs = base.out_features
        if terms.kind == "fed_sb":
            # Of length √outputs: a step of the core then moves an output as far as one of B would.
            self._up = torch.from_numpy(_columns(seed + 1, outputs, terms.rank) * sqrt(outputs))
            outputs = terms.rank
        trained = nn.Linear(columns, outputs, bias=False, dtype=torch.float64)
        nn.init.zeros_(trained.weight)
        self.trained = (trained,)

    def hold(self, rest: Tensor) -> None:
        """Add constant columns to a frozen map of this adapter's own: the layer's stays what it was."""
        self._base = deepcopy(self._frozen)
        self._base.weight += self._scale * self._lifted(rest.T).T @ self._down_of_rest

    def _lifted(self, added: Tensor) -> Tensor:
        return added if self._up is None else functional.linear(added, self._up)

    def forward(self, inputs: Tensor) -> Tensor:
        """``W x + s B A x`` for texts × tokens × inputs."""
        folded = functional.linear(inputs, self._down).reshape(self._fold.people, -1, len(self._down))
        added = self._lifted(self.trained[0](folded))
        mapped = self._base(inputs)
        whole: Tensor = mapped + self._scale * added.reshape(mapped.shape)
        return whole


def _columns(seed: int, rows: int, rank: int) -> Matrix:
    """Public orthonormal columns; copies of two processors agree to their last bits."""
    return orthonormal(public_uniform(seed, rows * rank).reshape(rows, rank))
