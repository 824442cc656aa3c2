"""What ``archipel tune`` can be told, by kind; options of another kind are refused."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from policies.option_groups import given_options
from privacy.errors import UsageError


class Kind(enum.StrEnum):
    """By whose rows is chosen, and what that costs."""

    PUBLIC = "public"
    POST_PROCESSING = "post-processing"
    LOCAL_PRIVATE = "local-private"


@dataclass(frozen=True, kw_only=True)
class PublicOptions:
    """public: numbers of a plan, searched on public rows. Costs no epsilon."""

    plan: Annotated[Path | None, typer.Option(help="The plan to improve. Needed.", metavar="FILE")] = None
    data: Annotated[
        Path | None, typer.Option(help="A public set; default: the built-in marketplace.", metavar="PATH")
    ] = None
    format: Annotated[
        Literal["movielens", "csv", "parquet", "inter"] | None, typer.Option(help="How it is written.")
    ] = None
    min_rating: Annotated[float | None, typer.Option(help="Keep rows rated at least this.")] = None
    people: Annotated[
        int | None,
        typer.Option(
            help="Of the marketplace; default: as the plan allows, 4,096 at most.", min=64, max=1_000_000
        ),
    ] = None
    trials: Annotated[int, typer.Option(help="How often something is tried.", min=1, max=10_000)] = 20
    metric: Annotated[str, typer.Option(help="What is searched by.")] = "ndcg@20"
    seed: Annotated[int, typer.Option(help="Of data and proposals, never of noise.", min=0)] = 0
    chart: Annotated[
        Path | None, typer.Option(help="Draw the trials into this HTML file.", metavar="FILE")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ReleasedOptions:
    """post-processing, local-private: models that jobs released here, judged by this silo's own people."""

    job: Annotated[
        list[str] | None,
        typer.Option(help="A job; default: post-processing: the newest, local-private: all. Repeatable."),
    ] = None
    keep: Annotated[
        bool, typer.Option("--keep", help="post-processing: `recommend --model tuned` uses the choice.")
    ] = False
    epsilon: Annotated[
        float | None,
        typer.Option(help="local-private: what the choice may cost. Charged before it is made. Needed."),
    ] = None

    @property
    def one_job(self) -> str | None:
        """The only job that is named, if any.

        Raises:
            UsageError: there are several.
        """
        if len(self.job or ()) > 1:
            raise UsageError(
                "one released model is tuned at a time", where="--job", remedy="name one job, or none"
            )
        return self.job[0] if self.job else None


@dataclass(frozen=True, kw_only=True)
class ProposalOptions:
    """public, local-private: the plan that is proposed."""

    out: Annotated[
        Path | None, typer.Option(help="Where to write it; default: DIR/plan-tuned.yaml.", metavar="FILE")
    ] = None
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False


def refuse_others(
    kind: Kind, public: PublicOptions, released: ReleasedOptions, proposal: ProposalOptions
) -> None:
    """Refuse options that mean nothing to a kind, and the absence of those it needs.

    Raises:
        UsageError: which, and what would do.
    """
    foreign = {
        Kind.PUBLIC: {*given_options([released])},
        Kind.POST_PROCESSING: {*given_options([public, proposal])}
        | ({"--epsilon"} & {*given_options([released])}),
        Kind.LOCAL_PRIVATE: {*given_options([public])} | ({"--keep"} & {*given_options([released])}),
    }[kind]
    if foreign:
        raise UsageError(
            f"--kind {kind} has no {', '.join(sorted(foreign))}",
            where="--kind",
            remedy="see `archipel tune --help` for the options of each kind",
        )
    if kind is Kind.PUBLIC and public.plan is None:
        raise UsageError(
            "there is no plan to improve", where="--plan", remedy="make one with `archipel plan new`"
        )
    if kind is Kind.LOCAL_PRIVATE and released.epsilon is None:
        raise UsageError(
            "a private choice has a price",
            where="--epsilon",
            remedy="write --epsilon 0.1, say",
        )
