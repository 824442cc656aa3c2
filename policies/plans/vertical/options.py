"""What ``archipel plan new --partition vertical`` can be told besides what every plan is told.

Fields are named as in ``policies.plans.vertical.drafting.VerticalDraft``; all may be left out, as in
:mod:`policies.plans.options`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import typer

from policies.plans.silo_numbers import once
from privacy.errors import UsageError

_FEATURE: Final = re.compile(r"(?P<silo>[^:=]+)(?::(?P<unit>user|user_row|user_node:[1-9][0-9]*))?")


@dataclass(frozen=True, kw_only=True)
class RoleOptions:
    """Vertical: who ranks items, who brings features."""

    label: Annotated[
        str | None, typer.Option(help="The silo whose items are ranked; it leads. Needed.", metavar="SILO")
    ] = None
    feature: Annotated[
        list[str] | None,
        typer.Option(
            help="A silo that knows other things of the same people, once for each. UNIT is what is "
            "protected there: user (the default), user_row, or user_node:DEGREE. Needed.",
            metavar="SILO[:UNIT]",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AlignmentOptions:
    """Vertical: how the people in common are found."""

    capacity: Annotated[
        list[str] | None,
        typer.Option(
            help="Size to which a silo's list is padded, once for each silo; as its policy declares. Needed.",
            metavar="SILO=PEOPLE",
        ),
    ] = None
    min_intersection: Annotated[
        int | None, typer.Option(help="With fewer people in common, roughly, the job ends. Needed.")
    ] = None
    alignment_epsilon: Annotated[
        float | None,
        typer.Option(
            help="Of the noised numbers of a silo's people and of those in common, inside --epsilon; "
            "default: 0.1."
        ),
    ] = None
    reveal: Annotated[
        Literal["none", "both"] | None,
        typer.Option(help="both: every silo learns whom it has in common with the others; default: none."),
    ] = None
    identifiers: Annotated[
        Literal["exact", "email", "phone"] | None,
        typer.Option(help="How ids are written alike before they are blinded; default: exact."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MomentsOptions:
    """Vertical: what is computed of people in common."""

    label_items: Annotated[
        int | None,
        typer.Option(help="The label silo's most frequent items that take part; default: up to 2000."),
    ] = None
    label_norm: Annotated[
        float | None, typer.Option(help="L2 norm of one row of the label silo; default: 1.")
    ] = None
    dimensions: Annotated[
        int | None,
        typer.Option(
            help="Numbers that stand for one person of a feature silo (private-encoder: 8); default: 16."
        ),
    ] = None
    basis: Annotated[
        Literal["dp_pca", "public"] | None,
        typer.Option(
            help="How they are made: dp_pca, from the silo's own noised Gram, or public; default: dp_pca."
        ),
    ] = None
    basis_share: Annotated[
        float | None, typer.Option(help="What the basis takes of a feature silo's promise; default: 0.3.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """Vertical, family private-encoder: how it is trained and released."""

    release_share: Annotated[
        float | None,
        typer.Option(
            help="What the release of everybody's numbers may cost if alone, of --epsilon; default: 0.8."
        ),
    ] = None
    encoder_steps: Annotated[
        int | None, typer.Option(help="Noised steps of a feature silo's own training; default: 40.")
    ] = None


VERTICAL: Final = (RoleOptions, AlignmentOptions, MomentsOptions, EncoderOptions)


def read_features(given: Iterable[str]) -> dict[str, str]:
    """Return the unit of each feature silo, ``user`` where none is written.

    Raises:
        UsageError: not ``SILO``, ``SILO:user``, ``SILO:user_row`` or ``SILO:user_node:DEGREE``, or twice.
    """
    features: dict[str, str] = {}
    for text in given:
        match = _FEATURE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"{text} names no feature silo",
                where="--feature",
                remedy="write SILO, SILO:user_row or SILO:user_node:DEGREE, such as social:user_node:20",
            )
        once(features, match["silo"], "--feature")
        features[match["silo"]] = match["unit"] or "user"
    return features
