"""One seed's world: what each institution knows of the same people, and what is held back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp

from privacy.errors import DataError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.ciao import alternate_categories, load_ciao
from silo.data.public_sets import load_public_set
from silo.data.synthetic import marketplace
from silo.data.synthetic_partners import content_views, follows
from silo.demo.vertical.settings import CONTENT_SILO, LABEL_SILO, SOCIAL_SILO, VerticalSettings
from silo.vertical.columns import column_map, unit_rows
from silo.vertical.joint.model import Matrix
from silo.vertical.joint.selection import LabelUsers
from silo.vertical.worlds import halved_columns, label_users, most_frequent_columns

LABEL_ITEMS_KEPT: Final = 2_000
"""The label silo's most frequent items take part, no more."""
MARKETPLACE_ITEMS: Final = 600
MARKETPLACE_CONTENTS: Final = 300
_SHARES: Final = {LABEL_SILO: 0.75, CONTENT_SILO: 0.7, SOCIAL_SILO: 0.6}
"""Of the marketplace's people, who uses what: independently, so that silos overlap and are unequal."""


@dataclass(frozen=True, eq=False)
class Partner:
    """What one feature silo has.

    Attributes:
        name: of the silo.
        table: what its rows are called.
        item_column: what it calls its items.
        rows: everybody × its own items, 0 or 1; no row, no member.
        item_ids: external ids, in the order of the columns.
        has_public_list: whether the list of its items is public; if not, its columns are folded by hashing.
        unit: what its guarantee protects.
    """

    name: str
    table: str
    item_column: str
    rows: sp.csr_matrix
    item_ids: tuple[str, ...]
    has_public_list: bool
    unit: Literal["user", "user_row"]

    def columns(self) -> Matrix:
        """Everybody × columns as its agent makes them: norm 1 or zero."""
        folding = column_map(self.item_ids, is_public_list=self.has_public_list)
        return unit_rows(self.rows, folding)


@dataclass(frozen=True, eq=False)
class VerticalData:
    """All rows of all silos: what only the harness has.

    Attributes:
        name: of the set.
        people: external ids of everybody, row by row of all matrices.
        catalogue: the label silo's items.
        users: the label silo's rows, what nobody but the harness holds, and on whom weights are chosen.
        partners: the feature silos.
        coverage: share of the label silo's interactions that its catalogue holds.
        notes: what a reader of the figures must know.
    """

    name: str
    people: tuple[str, ...]
    catalogue: Catalogue
    users: LabelUsers
    partners: tuple[Partner, ...]
    coverage: float
    notes: tuple[str, ...]

    def members(self, name: str) -> npt.NDArray[np.int64]:
        """Row numbers of the people that a silo has rows of."""
        rows = self.users.rows if name == LABEL_SILO else self.partner(name).rows
        return np.flatnonzero(np.diff(rows.indptr))

    def partner(self, name: str) -> Partner:
        """A feature silo by its name."""
        return next(partner for partner in self.partners if partner.name == name)

    def rows_of(self, name: str) -> pl.DataFrame:
        """One silo's rows with external ids: ``user_id`` and its own word for an item."""
        if name == LABEL_SILO:
            return _pairs(self.users.rows, self.people, self.catalogue.item_ids, "item_id")
        partner = self.partner(name)
        return _pairs(partner.rows, self.people, partner.item_ids, partner.item_column)


def prepare(settings: VerticalSettings, seed: int) -> VerticalData:
    """Make the world of one seed.

    Raises:
        DataError: a set that cannot be read, or with too few items.
    """
    if settings.kind == "marketplace":
        return _marketplace(settings, seed)
    return _ciao(settings, seed) if settings.kind == "ciao" else _halves(settings, seed)


def _marketplace(settings: VerticalSettings, seed: int) -> VerticalData:
    size = (settings.num_people, MARKETPLACE_ITEMS)
    market = marketplace(seed, *size)
    tables = {
        LABEL_SILO: market.rows,
        CONTENT_SILO: content_views(seed, *size, MARKETPLACE_CONTENTS),
        SOCIAL_SILO: follows(seed, *size),
    }
    people = tuple(market.rows["user_id"].unique().sort())
    rng = np.random.default_rng([seed, len(people)])
    members = {
        name: set(np.array(people)[rng.permutation(len(people))[: round(share * len(people))]].tolist())
        for name, share in _SHARES.items()
    }
    own = {name: table.filter(pl.col("user_id").is_in(members[name])) for name, table in tables.items()}
    shop = _matrix(own[LABEL_SILO], people, market.catalogue.item_ids)
    contents = tuple(tables[CONTENT_SILO]["item_id"].unique().sort())
    return VerticalData(
        market.name,
        people,
        market.catalogue,
        label_users(shop, settings.label_items, seed),
        (
            Partner(
                CONTENT_SILO, "views", "content_id", _matrix(own[CONTENT_SILO], people, contents),
                contents, has_public_list=True, unit="user",
            ),
            Partner(
                SOCIAL_SILO, "follows", "followed_id", _matrix(own[SOCIAL_SILO], people, people),
                people, has_public_list=False, unit="user_row",
            ),
        ),
        1.0,
        market.notes,
    )  # fmt: skip


def _halves(settings: VerticalSettings, seed: int) -> VerticalData:
    if settings.data is None:
        raise DataError("there is no set to halve", where="--data", remedy="name one")
    source = load_public_set(settings.data, settings.format, min_rating=settings.min_rating)
    people = tuple(source.rows["user_id"].unique().sort())
    everything = _matrix(source.rows, people, source.catalogue.item_ids)
    label, feature = halved_columns(everything, seed=seed)
    if min(label.size, feature.size) < 2:
        raise DataError(
            "too few items that 20 people have", where=str(settings.data), remedy="give a larger set"
        )
    by_column = sp.csc_matrix(everything)
    kept, coverage = most_frequent_columns(sp.csr_matrix(by_column[:, label]), LABEL_ITEMS_KEPT)
    users = label_users(sp.csr_matrix(by_column[:, label[kept]]), settings.label_items, seed)
    order, feature = np.argsort(label[kept]), np.sort(feature)
    return VerticalData(
        source.name,
        people,
        Catalogue(tuple(source.catalogue.items[item] for item in np.sort(label[kept]))),
        LabelUsers(
            sp.csr_matrix(users.rows[:, order]), sp.csr_matrix(users.held_out[:, order]), users.is_validation
        ),
        (
            Partner(
                CONTENT_SILO, "views", "content_id", sp.csr_matrix(by_column[:, feature]),
                tuple(source.catalogue.item_ids[item] for item in feature), has_public_list=True, unit="user",
            ),
        ),
        coverage,
        (*source.notes, _halves_note(kept.size, coverage)),
    )  # fmt: skip


def _halves_note(num_items: int, coverage: float) -> str:
    note = "Items that 20 people or more have, halved at random between two silos."
    if coverage == 1.0:
        return note
    return (
        f"{note} The shop keeps its {num_items:,} most frequent ones, {100 * coverage:.0f} % of its rows; "
        "which ones is public here, as a plan's catalogue."
    )


def _ciao(settings: VerticalSettings, seed: int) -> VerticalData:
    if settings.data is None:
        raise DataError("there is no set to read", where="--data", remedy="name one")
    ciao = load_ciao(settings.data)
    is_label = alternate_categories(ciao.ratings)
    shop, other = ciao.ratings.filter(is_label), ciao.ratings.filter(~is_label)
    people = _in_numeric_order(pl.concat([ciao.ratings["user_id"], *ciao.trust.get_columns()]))
    items, contents = _in_numeric_order(shop["item_id"]), _in_numeric_order(other["item_id"])
    everything = _matrix(shop, people, items)
    customers = np.flatnonzero(np.diff(everything.indptr))
    kept, coverage = most_frequent_columns(everything, LABEL_ITEMS_KEPT)
    users = label_users(sp.csr_matrix(everything[customers][:, kept]), settings.label_items, seed)
    names = np.array(items)[kept]
    order = np.argsort(names)
    return VerticalData(
        "ciao",
        people,
        Catalogue(tuple(CatalogueItem(item_id=str(names[place])) for place in order)),
        _among(users, customers, len(people), order),
        (
            Partner(
                CONTENT_SILO, "ratings", "product_id", _matrix(other, people, contents),
                contents, has_public_list=False, unit="user",
            ),
            Partner(
                SOCIAL_SILO, "trust", "trusted_id", _matrix(ciao.trust, people, people),
                people, has_public_list=False, unit="user_row",
            ),
        ),
        coverage,
        (
            f"The shop has every second category by size and keeps its {kept.size:,} most frequent items, "
            f"{100 * coverage:.0f} % of its ratings; which ones is public here, as a plan's catalogue. The "
            "content platform has the other categories, the social network each person's own list of whom "
            "they trust.",
        ),
    )  # fmt: skip


def _among(
    users: LabelUsers, customers: npt.NDArray[np.int64], num_people: int, order: npt.NDArray[np.int64]
) -> LabelUsers:
    """Put the label silo's users among everybody, and their items into the catalogue's order."""
    gather = sp.csr_matrix(
        (np.ones(customers.size), (customers, np.arange(customers.size))), shape=(num_people, customers.size)
    )
    is_validation = np.zeros(num_people, dtype=np.bool_)
    is_validation[customers] = users.is_validation
    return LabelUsers(
        sp.csr_matrix(gather @ users.rows[:, order]),
        sp.csr_matrix(gather @ users.held_out[:, order]),
        is_validation,
    )


def _in_numeric_order(ids: pl.Series) -> tuple[str, ...]:
    return tuple(ids.unique().cast(pl.Int64).sort().cast(pl.String))


def _matrix(frame: pl.DataFrame, people: tuple[str, ...], item_ids: tuple[str, ...]) -> sp.csr_matrix:
    """People × items of 0 and 1, each pair once."""
    rows = _places(frame["user_id"], people)
    columns = _places(frame["item_id"], item_ids)
    found = sp.csr_matrix((np.ones(rows.size), (rows, columns)), shape=(len(people), len(item_ids)))
    found.data[:] = 1.0
    return found


def _places(ids: pl.Series, order: tuple[str, ...]) -> npt.NDArray[np.int64]:
    return ids.replace_strict(list(order), list(range(len(order))), return_dtype=pl.Int64).to_numpy()


def _pairs(
    rows: sp.csr_matrix, people: tuple[str, ...], item_ids: tuple[str, ...], item_column: str
) -> pl.DataFrame:
    pairs = rows.tocoo()
    users = pl.Series("user_id", people, dtype=pl.String).gather(pairs.row)
    items = pl.Series(item_column, item_ids, dtype=pl.String).gather(pairs.col)
    return pl.DataFrame([users, items]).sort("user_id", item_column)
