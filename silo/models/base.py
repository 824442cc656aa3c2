"""What every model family promises, and where families are found.

A family splits learning into three steps, and only the first sees rows:

* ``contribute``: one silo's rows → exact integers whose L2 sensitivity to one user is bounded by the round;
* ``absorb``: the noised sum over all silos → the next state (public to the members, post-processing);
* ``finish``: the last state → the :class:`~silo.models.recommender.Recommender` that ships.

``absorb`` and ``finish`` are deterministic, so every silo ends with the same model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from policies.price import weight_at
from privacy.errors import UsageError

if TYPE_CHECKING:
    from policies.plan import Plan
    from policies.price import RoundShape
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions
    from silo.models.recommender import Recommender

Integers = NDArray[np.int64]
State = dict[str, NDArray[Any]]


class UnknownFamilyError(UsageError):
    """The plan names a model family this version does not have."""

    code = "unknown_family"


def user_weights(family: str, grid: int, lengths: NDArray[np.integer]) -> Integers:
    """Integer weight of each user's statistics, from the one place that derives it; 0 without a history.

    Args:
        family: a family of statistics (``item-graph`` or ``popularity``).
        grid: integer units per contribution norm.
        lengths: items of each user's history, after cap and de-duplication.
    """
    weights = {int(n): weight_at(family, grid, int(n)) for n in np.unique(lengths) if n > 0}
    return np.array([weights.get(int(n), 0) for n in lengths], dtype=np.int64)


class Family(ABC):
    """One way to learn a recommender from noised sums.

    Args:
        plan: the plan in force; all constants come from it.
        catalogue: the public items; its order is the order of every vector.
        noise_std: total standard deviation of the noise in the sums ``absorb`` will be given, in grid
            units. None (every real job) derives it from the round: ``share_std · √silos``. Only a harness
            that adds other noise, or none, says otherwise.
    """

    name: ClassVar[str]

    def __init__(self, plan: Plan, catalogue: Catalogue, *, noise_std: float | None = None) -> None:
        self.plan = plan
        self.catalogue = catalogue
        self._noise_std = noise_std

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.catalogue.items)

    def total_noise_std(self, shape: RoundShape) -> float:
        """Standard deviation of the noise in the aggregate of one round, grid units."""
        if self._noise_std is not None:
            return self._noise_std
        return shape.share_std * sqrt(len(self.plan.silos))

    @abstractmethod
    def initial_state(self) -> State:
        """The public state before the first round; the same at every silo."""

    @abstractmethod
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        """Sum one silo's users.

        Args:
            interactions: cleaned rows, capped by the plan.
            state: the state all silos share.
            round_index: 0-based round.
            shape: the round's layout and sensitivity.

        Returns:
            ``shape.values`` int64, exact.

        Guarantees:
            Adding or removing one user moves the vector by at most ``shape.sensitivity /
            max_silos_per_user`` in L2. Nothing else of a user's rows enters.
        """

    @abstractmethod
    def absorb(self, state: State, sums: Integers, round_index: int, shape: RoundShape) -> State:
        """Turn the noised sum over all silos (``shape.values`` int64, offset removed) into a new state."""

    @abstractmethod
    def finish(self, state: State) -> Recommender:
        """Post-process the last state into the model that ships."""


# Modules are named, not imported: torch stays out of a process that only counts.
FAMILIES: Mapping[str, tuple[str, str]] = {
    "popularity": ("silo.models.popularity", "Popularity"),
    "item-graph": ("silo.models.item_graph", "ItemGraph"),
    "linear": ("silo.models.linear", "Linear"),
}


def get_family(plan: Plan) -> type[Family]:
    """The class of the plan's model family.

    Raises:
        UnknownFamilyError: this version has no such family.
    """
    family = plan.model.family
    if family not in FAMILIES:
        raise UnknownFamilyError(
            f"there is no model family {family!r}",
            where="plan: model.family",
            remedy=f"choose one of {', '.join(FAMILIES)}",
        )
    module, class_name = FAMILIES[family]
    return cast(type[Family], getattr(import_module(module), class_name))
