"""What a plan says of silos that know different things about the same people: roles, and alignment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from policies.sections import MAX_SILOS, PartyName, Real, Section, Whole


class FeatureTerms(Section):
    """What one feature silo brings to a vertical plan.

    Attributes:
        unit: what its guarantee protects: ``user``, one person's whole history; of a graph ``user_row``, the
            person's own list, or ``user_node``, the person with every edge, in friends' lists too.
        max_degree: in how many others' lists a person's place is protected; with ``user_node`` only, which
            pays ``1 + 2 · max_degree`` times the noise.
    """

    unit: Literal["user", "user_row", "user_node"] = "user"
    max_degree: Annotated[Whole, Field(ge=1, le=10_000)] | None = None

    @property
    def rows_per_unit(self) -> int:
        """How many whole rows of its silo one unit of the guarantee weighs.

        The person's own, and two for each list in which they stand: where a list is cut to its length, one
        that loses an entry may gain another, and moves by at most twice what a whole row does.
        """
        return 1 + 2 * (self.max_degree or 0)


class Roles(Section):
    """Who wants better recommendations, and who knows other things about the same people.

    Attributes:
        label: the silo whose items are ranked; the roster's first.
        features: the other silos, and what each brings.
    """

    label: PartyName
    features: Annotated[dict[PartyName, FeatureTerms], Field(min_length=1, max_length=8)]

    def __hash__(self) -> int:
        """Plans are keys of what was computed from them; a mapping has no hash of its own."""
        return hash((self.label, frozenset(self.features.items())))

    @property
    def most_taken_along(self) -> int:
        """How many others a person who goes may take out of the people in common.

        Whoever had named nobody else in a friend graph has no row any more, and is in no list. Where several
        silos protect nodes, one person may stand in each of their graphs, and take others along in each.
        """
        return sum(terms.max_degree or 0 for terms in self.features.values())


class AlignmentTerms(Section):
    """How the silos find the people that they have in common.

    Attributes:
        capacities: the declared size to which each silo pads its list, so that nobody learns how long it is.
        min_intersection: people in common with which the job goes on, compared with a noised number.
        epsilon: of that number and of the noised number of each silo's people, which decides how many of them
            its list holds; charged to every silo.
        reveal: ``none``: nobody learns who is known to the others; ``both``: every silo learns it.
        identifiers: how ids are written alike before they are blinded.
    """

    capacities: Annotated[
        dict[PartyName, Annotated[Whole, Field(ge=1, le=10_000_000)]],
        Field(min_length=2, max_length=MAX_SILOS),
    ]
    min_intersection: Annotated[Whole, Field(ge=1, le=10_000_000)]
    epsilon: Annotated[Real, Field(ge=0.001, le=10)]
    reveal: Literal["none", "both"] = "none"
    identifiers: Literal["exact", "email", "phone"] = "exact"

    def __hash__(self) -> int:
        """See :class:`Roles`."""
        return hash((frozenset(self.capacities.items()), self.min_intersection, self.epsilon))

    @property
    def spine_slots(self) -> int:
        """Slots of a spine that hides its people: one for every place of every padded list."""
        return sum(self.capacities.values())
