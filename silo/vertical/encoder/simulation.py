"""A feature silo's encoder and its release in one process: for experiments and the demo, never for an agent.

Training, noise and events are the product's; people stand in the slots of their rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from policies.plans.plan import Plan
from policies.plans.vertical.encoder_price import encoder_release_event
from privacy.embedding import EmbeddingNoise
from privacy.events import Event
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.vertical.encoder.encoding import numbers_of
from silo.vertical.encoder.training import train_encoder
from silo.vertical.joint.model import Matrix


@dataclass(frozen=True, eq=False)
class SimulatedRelease:
    """What one feature silo makes of its people.

    Attributes:
        exact: people × k, as a session would bring them.
        released: the same with the noise that the label silo sees.
        events: training and release.
    """

    exact: Matrix
    released: Matrix
    events: tuple[Event, Event]


def simulate_release(plan: Plan, silo: str, rows: sp.csr_matrix) -> SimulatedRelease:
    """Train, encode, noise.

    Args:
        plan: of a private encoder.
        silo: a feature silo of it.
        rows: people × columns of 0 and 1; the columns are a public list.
    """
    items = made_up_items(rows.shape[1])
    columns = sp.identity(rows.shape[1], format="csr")
    trained = train_encoder(plan, silo, rows, items, columns)
    exact = numbers_of(rows, columns, trained.weight)
    release = EmbeddingNoise(encoder_release_event(plan)).release(
        exact, np.arange(rows.shape[0]), rows.shape[0]
    )
    return SimulatedRelease(exact, release.vectors, (trained.event, release.event))


def made_up_items(count: int) -> Catalogue:
    """A public list whose items are numbers."""
    return Catalogue(tuple(CatalogueItem.model_construct(item_id=f"{n:07d}") for n in range(count)))
