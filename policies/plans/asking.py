"""From the options of ``archipel plan new`` to a plan: which belong to which partition, what they mean."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from policies.option_groups import given_options
from policies.plans.drafting import Draft, complete_plan
from policies.plans.silo_numbers import read_numbers
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from policies.plans.vertical.options import read_features
from policies.plans.words import listed
from privacy.budget import RenyiFilter
from privacy.errors import UsageError

if TYPE_CHECKING:
    from policies.plans.models import FamilyName
    from policies.plans.plan import Plan

Partition = Literal["horizontal", "vertical"]

FAMILIES: Final[Mapping[Partition, tuple[FamilyName, ...]]] = {
    "horizontal": ("item-graph", "popularity", "linear", "autoencoder", "language", "sequence"),
    "vertical": ("cross-moments", "private-encoder"),
}
"""What each partition can make; the first is what it makes unless told."""

_OF_ENCODER: Final = {"release_share": "release_share", "encoder_steps": "steps"}
_OF_MOMENTS: Final = ("label_norm", "basis", "basis_share")

_NEEDED: Final[Mapping[Partition, tuple[str, ...]]] = {
    "horizontal": ("--silos", "--max-users-per-silo"),
    "vertical": ("--label", "--feature", "--capacity", "--min-intersection"),
}


@dataclass(frozen=True)
class Asked:
    """What somebody asked for.

    Attributes:
        partition: of the plan.
        family: of its model; None for the usual one.
        common: groups of options that every plan has.
        horizontal: groups that only horizontal plans have.
        vertical: groups that only vertical plans have.
    """

    partition: Partition
    family: FamilyName | None
    common: tuple[object, ...]
    horizontal: tuple[object, ...]
    vertical: tuple[object, ...]

    def check(self) -> None:
        """Refuse options of the other partition, and fewer than the partition needs.

        Raises:
            UsageError: naming all of them.
        """
        is_vertical = self.partition == "vertical"
        own, others = (self.horizontal, self.vertical)[:: -1 if is_vertical else 1]
        other = "horizontal" if is_vertical else "vertical"
        misplaced, needed = tuple(given_options(others)), _NEEDED[self.partition]
        if misplaced:
            raise UsageError(
                f"only {other} plans have {listed(misplaced)}",
                where=f"--partition {self.partition}",
                remedy=f"write --partition {other}, or leave out what it has; "
                f"a {self.partition} plan needs {listed(needed)}",
            )
        missing = tuple(option for option in needed if option not in set(given_options(own)))
        if missing:
            raise UsageError(
                f"a {self.partition} plan needs {listed(missing)}",
                where=f"--partition {self.partition}",
                remedy=f"add {listed(missing)}; archipel plan new --help says what each is",
            )
        if self.family is not None and self.family not in FAMILIES[self.partition]:
            raise UsageError(
                f"a {self.partition} plan makes no {self.family}",
                where="--family",
                remedy=f"write one of {', '.join(FAMILIES[self.partition])}, or --partition {other}",
            )

    def decided(self) -> dict[str, Any]:
        """Return what was decided, by its field in the draft; what was left out is left to the draft."""
        own = self.vertical if self.partition == "vertical" else self.horizontal
        values = {name: value for group in (*self.common, *own) for name, value in vars(group).items()}
        return {name: value for name, value in values.items() if value is not None}


def draft_plan(asked: Asked, catalogue: tuple[str, int, int]) -> Plan:
    """Return the complete plan that keeps what was asked for with the least noise.

    Args:
        asked: checked.
        catalogue: its digest, its number of items, and of their attributes.

    Raises:
        UsageError: an option that cannot be read.
        PlanImpossibleError: no noise or grid can do it.
        PolicyFileError: fields out of range or contradicting each other; all problems at once.
        CalibrationError: what is released besides the model uses up the promise.
    """
    sha256, items, attributes = catalogue
    decided = asked.decided() | {"catalogue_sha256": sha256, "catalogue_items": items}
    if "orders" in decided:
        decided["filter"] = _filter(decided.pop("orders"))
    if asked.partition == "vertical":
        decided["features"] = read_features(decided.pop("feature"))
        if decided["label"] in decided["features"]:
            raise UsageError(
                f"{decided['label']} is the label silo; a silo ranks items or brings features, not both",
                where="--feature",
                remedy="leave it out of --feature, or name another silo as --label",
            )
        decided["capacities"] = read_numbers(decided.pop("capacity"), "--capacity", "people")
        return _draft_vertical(asked.family, decided)
    family = asked.family or FAMILIES["horizontal"][0]
    decided["silos"] = tuple(name.strip() for name in decided["silos"].split(","))
    if "adapter_columns" in decided:
        columns = read_numbers(decided.pop("adapter_columns"), "--adapter-columns", "columns")
        decided["adapter_columns"] = columns
    if decided.pop("no_bias"):
        decided["bias_epsilon"] = _no_bias(decided.get("bias_epsilon"))
    if (family == "language") != ("encoder_sha256" in decided):
        raise UsageError(
            "language, and no other family, reads items through a text encoder",
            where="--encoder",
            remedy="write both, with the digest that archipel silo encoder show prints, or neither",
        )
    if family == "linear":
        decided.setdefault("features", max(attributes, 1))
    return complete_plan(Draft(family=family, **decided))


def _draft_vertical(family: FamilyName | None, decided: dict[str, Any]) -> Plan:
    of_encoder = {option: decided.pop(option) for option in _OF_ENCODER if option in decided}
    if family != "private-encoder":
        _refuse(of_encoder, "private-encoder", family or FAMILIES["vertical"][0])
        return complete_vertical_plan(VerticalDraft(**decided))
    _refuse([option for option in _OF_MOMENTS if option in decided], "cross-moments", family)
    encoder = {_OF_ENCODER[option]: value for option, value in of_encoder.items()}
    if "dimensions" in decided:
        encoder["dimensions"] = decided["dimensions"]
    return complete_encoder_plan(VerticalDraft(**decided), EncoderDraft(**encoder))


def _refuse(given: Collection[str], owner: FamilyName, family: FamilyName) -> None:
    if given:
        options = listed(tuple(f"--{name.replace('_', '-')}" for name in given))
        raise UsageError(
            f"only {owner} plans have {options}",
            where=f"--family {family}",
            remedy=f"leave out {options}, or write --family {owner}",
        )


def _filter(orders: str) -> RenyiFilter:
    from pydantic import ValidationError

    try:
        return RenyiFilter(orders=tuple(float(order) for order in orders.split(",")))
    except (ValueError, ValidationError) as error:
        raise UsageError(
            "these are no Rényi orders",
            where="--orders",
            remedy="write 1 to 8 ascending numbers above 1: 2,4,8",
        ) from error


def _no_bias(given: float | None) -> float:
    if given:
        raise UsageError(
            "popularity is counted at a price, or not at all",
            where="--no-bias",
            remedy="leave out --bias-epsilon or --no-bias",
        )
    return 0.0
