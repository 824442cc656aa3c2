"""What every model family promises, and where families are found.

A family splits learning into three steps, and only the first sees rows:

* ``contribute``: one silo's rows → exact integers whose L2 sensitivity to one user is bounded by the round;
* ``absorb``: the noised sum over all contributors → the next state (public to the members, post-processing);
* ``finish``: the last state → the :class:`~silo.models.shipped.ShippedModel`.

``absorb`` is deterministic, so every silo ends with the same state. Gradient families have one step more, for
silos that walk alone between two sums: ``step_locally``. The worker noises what ``contribute`` gives, adds it
up, and moves its own copy of the state by it::

    for _ in range(shape.steps):
        noised = contribute(rows, local, round_index, shape) + noise
        total += noised
        local = step_locally(local, noised, shape)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from math import sqrt
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from policies.plans.price import weight_at
from privacy.errors import UsageError

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.plan import Plan
    from policies.plans.price import RoundShape
    from silo.data.catalogue import Catalogue
    from silo.data.interactions import Interactions
    from silo.models.shipped import ShippedModel

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
        noise_std: total standard deviation of the noise in the sum that counts or correlates items (a
            statistics family's round, a gradient family's popularity round), in grid units. None (every real
            job) derives it from the round. Only a harness that adds other noise, or none, says otherwise.
        start: a checkpoint to start from (warm start); only families with weights take one.
        silo: whose rows :meth:`contribute` will be given; None where none are, or it is the same for all.

    Raises:
        UsageError: a checkpoint for a family without weights.
    """

    name: ClassVar[str]

    def __init__(
        self,
        plan: Plan,
        catalogue: Catalogue,
        *,
        noise_std: float | None = None,
        start: State | None = None,
        silo: str | None = None,
    ) -> None:
        if start is not None and plan.is_statistics:
            raise UsageError(
                f"family {plan.model.family!r} has no weights to start from", where="plan: model.start_from"
            )
        self.plan = plan
        self.catalogue = catalogue
        self.silo = silo
        self._noise_std = noise_std

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return len(self.catalogue.items)

    def total_noise_std(self, shape: RoundShape, contributors: int) -> float:
        """Standard deviation of the noise in a sum of so many silos' contributions, grid units."""
        if self._noise_std is not None:
            return self._noise_std
        return shape.share_std_among(contributors) * sqrt(contributors)

    @abstractmethod
    def initial_state(self) -> State:
        """The public state before the first round; the same at every silo."""

    def self_test(self) -> None:  # noqa: B027 - what only counts has nothing to try
        """Try on made-up users whether this model can be trained at all.

        Raises:
            PerUserGradientError: it cannot, whatever the rows.
        """

    @abstractmethod
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> Integers:
        """Sum one silo's users for one noised step.

        Args:
            interactions: cleaned rows, capped by the plan.
            state: the state all silos share, or this silo's own between two local steps.
            round_index: 0-based position in the plan's schedule.
            shape: the round's layout and sensitivity.

        Returns:
            ``shape.values`` int64, exact, before any noise.

        Guarantees:
            Adding or removing one user moves the vector by at most ``shape.sensitivity /
            max_silos_per_user`` in L2. Nothing else of a user's rows enters.
        """

    def contribute_each(
        self, interactions: Interactions, state: State, round_index: int, shape: RoundShape
    ) -> sp.csr_array:
        """What each user adds to ``contribute``; for audits, where every user's is wanted at once.

        Args:
            interactions: as ``contribute``.
            state: likewise.
            round_index: likewise.
            shape: likewise.

        Returns:
            users × ``shape.values`` float64, before rounding where ``contribute`` rounds.
        """
        import scipy.sparse as sp

        alone = (interactions.select([user]) for user in range(interactions.num_users))
        sums = (self.contribute(one, state, round_index, shape) for one in alone)
        rows = [sp.csr_array(each[None, :].astype(np.float64)) for each in sums]
        table: sp.csr_array = sp.csr_array(sp.vstack(rows, format="csr"))
        return table

    def step_locally(self, state: State, noised: Integers, shape: RoundShape) -> State:  # noqa: ARG002
        """Move this silo's own state by one noised step of its own.

        Args:
            state: before the step.
            noised: what ``contribute`` gave, with this silo's whole noise.
            shape: the round's.

        Raises:
            UsageError: the family takes no steps.
        """
        raise UsageError(f"family {self.name!r} takes no local steps", where="plan: training.local_steps")

    @abstractmethod
    def absorb(
        self, state: State, sums: Integers, round_index: int, shape: RoundShape, contributors: int
    ) -> State:
        """Turn a noised sum into a new state; the old one is left alone.

        Args:
            state: after the round before.
            sums: ``shape.values`` int64, offset removed.
            round_index: 0-based position in the plan's schedule.
            shape: the round's.
            contributors: how many silos' contributions are in it.

        Raises:
            DataError: a sum of another length.
        """

    @abstractmethod
    def finish(self, state: State) -> ShippedModel:
        """Post-process a state into the model that ships; a state between two rounds will do."""

    def checkpoint(self, state: State) -> State | None:  # noqa: ARG002
        """Return what a later job can ``start`` from, bit-equal at every silo; None without weights."""
        return None

    def local_loss(self, interactions: Interactions, state: State) -> float | None:  # noqa: ARG002
        """Return the mean loss of this silo's own users, for its own people only; None without a loss."""
        return None


# Modules are named, not imported: torch stays out of a process that only counts.
FAMILIES: Mapping[str, tuple[str, str]] = {
    "popularity": ("silo.models.popularity", "Popularity"),
    "item-graph": ("silo.models.item_graph", "ItemGraph"),
    "linear": ("silo.models.linear", "Linear"),
    "autoencoder": ("silo.models.autoencoder", "Autoencoder"),
    "language": ("silo.models.language.family", "Language"),
    "language/adapted": ("silo.models.adapted.family", "AdaptedLanguage"),
    "sequence": ("silo.models.sequence.family", "Sequence"),
}


ADAPTED = "language/adapted"
"""``language`` with a trained part of the encoder; plans name it by their field ``encoder_adapter``."""


def get_family(plan: Plan) -> type[Family]:
    """The class of the plan's model family.

    Raises:
        UnknownFamilyError: this version has no such family.
    """
    family: str = plan.model.family
    if plan.model.family == "language" and plan.model.adapter is not None:
        family = ADAPTED
    if family not in FAMILIES:
        raise UnknownFamilyError(
            f"there is no model family {family!r}",
            where="plan: model.family",
            remedy=f"choose one of {', '.join(FAMILIES)}",
        )
    module, class_name = FAMILIES[family]
    return cast(type[Family], getattr(import_module(module), class_name))
