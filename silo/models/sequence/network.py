"""The network of federated plans: public item features, a trunk, and back to public item features.

``x_t = F[item_t] → Linear(features, hidden) → trunk → Linear(hidden, features) → · Fᵀ + b``, where ``F``
(items × features) is public and ``b`` zero or the logarithm of the noised popularity. Both are frozen, so
noise falls on as many values for a large catalogue as for a small one, users meet in nothing but trained
layers, and weights mean the same for whatever items ``F`` describes.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from silo.models.features import public_uniform
from silo.models.sequence.trunk import NO_ITEM, TrunkSize, trunk_of

if TYPE_CHECKING:
    from policies.plans.models import NetworkSize
    from silo.models.architecture import Weights

HIDDEN: Final = NO_ITEM - 1
"""An item that the network is not shown, at a place that it is asked about."""
LEAVING_SCALE: Final = 0.1


class FeatureNetwork(nn.Module):
    """Trained layers only; features and bias of the items are handed in.

    Args:
        size: of it.
    """

    def __init__(self, size: NetworkSize) -> None:
        super().__init__()
        self.enter = nn.Linear(size.features, size.hidden)
        trunk = TrunkSize(width=size.hidden, layers=size.layers, places=size.places)
        self.trunk = trunk_of(size.architecture)(trunk)
        self.leave = nn.Linear(size.hidden, size.features, bias=False)

    def forward(self, items: Tensor, features: Tensor) -> Tensor:
        """Read histories.

        Args:
            items: (users, places) indices, ``HIDDEN`` or ``NO_ITEM``.
            features: (items, features).

        Returns:
            (users, places, features): a place's score of an item is the product with the item's features.
        """
        vectors = features[items.clamp(min=0)] * (items >= 0)[:, :, None]
        read: Tensor = self.leave(self.trunk(self.enter(vectors), items != NO_ITEM))
        return read


def first_weights(network: FeatureNetwork, seed: int) -> Weights:
    """Public first weights: maps of spread 1/√inputs, scales 1, the rest 0; bit-equal on every machine."""
    shapes = {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}
    values = public_uniform(seed, sum(int(np.prod(shape)) for shape in shapes.values()))
    weights: Weights = {}
    for name, shape in shapes.items():
        own, values = np.split(values, [int(np.prod(shape))])
        if len(shape) == 1:
            weights[name] = np.zeros(shape) if "bias" in name else np.ones(shape)
            continue
        scale = sqrt(3 / int(np.prod(shape[1:])))
        scale *= LEAVING_SCALE if name.startswith("leave") else 1.0
        weights[name] = scale * own.reshape(shape)
    return weights


def set_weights(network: nn.Module, weights: Weights) -> None:
    """Put values into a network's parameters by name."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(torch.from_numpy(weights[name]))
