"""Networks over made-up items, with weights that have learnt nothing but are no zeros either."""

from __future__ import annotations

import numpy as np
import torch

from policies.plans.models import ArchitectureName, NetworkSize
from silo.local.sequence import IdNetwork
from silo.local.sequence import SequenceModel as LocalSequence
from silo.models.sequence.network import FeatureNetwork
from silo.models.sequence.recommender import SequenceRecommender
from silo.models.sequence.trunk import TrunkSize

PLACES = 6


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def federated_network(
    architecture: ArchitectureName, num_items: int, *, features: int = 8, hidden: int = 8
) -> SequenceRecommender:
    """A job's network of two layers."""
    rng = np.random.default_rng(5)
    size = NetworkSize(architecture=architecture, features=features, hidden=hidden, layers=2, places=PLACES)
    shapes = {name: values.shape for name, values in FeatureNetwork(size).named_parameters()}
    weights = {name: 0.5 * draw(rng, *shape) for name, shape in shapes.items()}
    return SequenceRecommender(
        size, weights, draw(rng, num_items, features), draw(rng, num_items), np.abs(draw(rng, num_items))
    )


def local_network(architecture: ArchitectureName, num_items: int) -> LocalSequence:
    """A silo's own network of ids."""
    torch.manual_seed(6)
    network = IdNetwork(num_items, architecture, TrunkSize(width=8, layers=2, places=PLACES, dropout=0.1))
    with torch.no_grad():
        for values in network.parameters():
            values.copy_(0.5 * torch.randn_like(values))
    return LocalSequence(network, architecture, np.arange(num_items, dtype=np.float32))
