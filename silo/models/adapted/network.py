"""The network that is trained: an adapted encoder before one hidden layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from policies.plans.models import LanguageModel
from silo.language.adapters.texts import AdaptableTexts
from silo.models.architecture import Weights

ADAPTERS = "adapted."
"""What the names of adapters' weights begin with; they stand before all others."""


class AdaptedNetwork(nn.Module):
    """``encoder`` and ``decoder`` of a bottleneck, and before them the adapters of the text encoder.

    Args:
        model: of the plan, with an adapter.
        texts: of a silo's items.
        frozen_places: items × dimensions, where the encoder puts them without adapters.
        columns: of every adapter that are parameters; left out: all.
    """

    def __init__(
        self, model: LanguageModel, texts: AdaptableTexts, frozen_places: Tensor, columns: int | None = None
    ) -> None:
        super().__init__()
        if model.adapter is None:
            raise ValueError("the model has no adapter")
        self._adapter = model.adapter
        self._texts = (texts, frozen_places)
        self.adapted = texts.module(model.adapter, model.seed, columns)
        self.encoder = nn.Linear(model.dimensions, model.hidden, dtype=torch.float64)
        self.decoder = nn.Linear(model.hidden, model.dimensions, bias=False, dtype=torch.float64)

    def forward(self, history: Tensor, newest: Tensor, share: Tensor) -> Tensor:
        """Read histories.

        Args:
            history: (people, dimensions), all items at their frozen places, times ``share``.
            newest: (people, places) those of them that the adapted encoder reads, or ``NO_ITEM``.
            share: (people,) what one item counts.

        Returns:
            (people, dimensions): an item's score is the product with its frozen place.
        """
        texts, frozen_places = self._texts
        standing = frozen_places[newest.clamp(min=0)] * (newest >= 0)[:, :, None]
        moved = texts.places(self.adapted, self._adapter, newest) - standing
        read = history + share[:, None] * moved.sum(dim=1)
        decoded: Tensor = self.decoder(torch.tanh(self.encoder(read)))
        return decoded


def adapters_of(weights: Weights) -> Weights:
    """Return the adapters among weights or in a state."""
    return {name: values for name, values in weights.items() if name.startswith(ADAPTERS)}
