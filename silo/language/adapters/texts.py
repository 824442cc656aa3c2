"""A silo's own item texts, with all that an adapted encoder needs to place them in a plan's space."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from policies.plans.models import EncoderAdapter
from silo.language.adapters.encoder import AdaptedEncoder, AdapterTerms
from silo.language.adapters.frozen import BLOCK_TEXTS, FrozenActivations
from silo.language.files import TextEncoderError
from silo.language.space import LEAST_LENGTH, Matrix, Space
from silo.models.sequence.trunk import NO_ITEM

if TYPE_CHECKING:
    from silo.language.encoder import Notice, TextEncoder


class AdaptableTexts:
    """Texts, their encoder, and the space of the plan.

    Args:
        encoder: the plan's.
        space: the plan's.
        texts: of the items, in their order; an empty one has no place.
        cache_bytes: see :class:`FrozenActivations`.
        notice: told (texts done, texts in all) while all of them are placed.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        space: Space,
        texts: Sequence[str],
        cache_bytes: int,
        notice: Notice | None = None,
    ) -> None:
        self._encoder, self._notice = encoder, notice
        self._texts, self._cache_bytes = texts, cache_bytes
        self._centre, self._axes = torch.from_numpy(space.centre), torch.from_numpy(space.axes)
        # One plan asks for one way to read its texts, several times.
        self._frozen = lru_cache(maxsize=1)(self._read)
        self.frozen_places = lru_cache(maxsize=1)(self._frozen_places)

    def __len__(self) -> int:
        return len(self._texts)

    def module(self, adapter: EncoderAdapter, seed: int, columns: int | None = None) -> AdaptedEncoder:
        """An encoder with adapters that add nothing yet.

        Args:
            adapter: of the plan.
            seed: public.
            columns: see :class:`AdaptedEncoder`.

        Raises:
            TextEncoderError: this encoder has fewer layers, others that cannot be adapted, maps narrower
                than the rank, or other ``outputs`` than the plan says.
        """
        scale = adapter.alpha / adapter.rank
        terms = AdapterTerms(kind=adapter.kind, rank=adapter.rank, scale=scale, seed=seed)
        made = AdaptedEncoder(self._encoder.upper_layers(adapter.layers), terms, columns)
        outputs = sum(len(weight) for weight in made.parameters())
        if outputs * adapter.rank != adapter.num_weights:
            found = outputs / adapter.layers
            raise TextEncoderError(
                f"a layer of this encoder has {found:g} outputs to adapt, the plan says {adapter.outputs}",
                where="plan: model.encoder_adapter.outputs",
                remedy=f"propose outputs: {found:g}",
            )
        return made

    def places(self, encoder: AdaptedEncoder, adapter: EncoderAdapter, items: Tensor) -> Tensor:
        """Where an encoder puts items in the plan's space.

        Args:
            encoder: made by :meth:`module`.
            adapter: of the plan.
            items: people × places, indices or ``NO_ITEM``.

        Returns:
            people × places × dimensions float64, of length one; zeros for no item and for no text.
        """
        frozen, known = self._frozen(adapter.layers, adapter.tokens), items.clamp(min=0)
        is_token = frozen.is_token[known] & (items != NO_ITEM)[:, :, None]
        vectors = encoder(frozen.of(known), is_token)
        placed = (vectors - self._centre) @ self._axes
        lengths = torch.linalg.vector_norm(placed, dim=2, keepdim=True)
        at_length_one: Tensor = placed / lengths.clamp(min=LEAST_LENGTH) * is_token.any(dim=2, keepdim=True)
        return at_length_one

    def all_places(self, encoder: AdaptedEncoder, adapter: EncoderAdapter) -> Matrix:
        """The same for all items, without a gradient: items × dimensions."""
        found = []
        with torch.no_grad():
            for block in torch.split(torch.arange(len(self)), BLOCK_TEXTS):
                found.append(self.places(encoder, adapter, block[None])[0])
                if self._notice is not None:
                    self._notice(int(block[-1]) + 1, len(self))
        places: Matrix = torch.cat(found).numpy()
        return places

    def _frozen_places(self, adapter: EncoderAdapter) -> Matrix:
        """Items × dimensions, where the encoder puts them as it is: what ``frozen_places`` remembers."""
        return self.all_places(self.module(adapter, seed=0), adapter)

    def values_of_person(self, adapter: EncoderAdapter) -> int:
        """How many numbers come into the first adapted layer for one person."""
        return adapter.places * self._frozen(adapter.layers, adapter.tokens).num_tokens * self._encoder.width

    def _read(self, num_layers: int, max_tokens: int) -> FrozenActivations:
        return FrozenActivations(self._encoder, self._texts, num_layers, max_tokens, self._cache_bytes)
