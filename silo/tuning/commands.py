"""``archipel tune``: choose by trying, on rows that cost nothing or at a price that is paid first."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policies.console import HERE, Debug, Dir, Json, command, emit_json, progress, say
from policies.option_groups import grouped
from silo.tuning.options import Kind, ProposalOptions, PublicOptions, ReleasedOptions, refuse_others

if TYPE_CHECKING:
    from policies.plans.plan import Plan
    from silo.data.public_sets import PublicSet

PROPOSAL_FILE = "plan-tuned.yaml"
MOST_PEOPLE = 4_096
FEWEST_PEOPLE = 64
MOST_ITEMS = 1_200
FEWEST_ITEMS = 50


@command
@grouped
def tune(
    *,
    kind: Annotated[
        Kind,
        typer.Option(
            help="Chosen by public rows, free; by this silo's people for itself alone, free; or by them, "
            "published and paid for."
        ),
    ] = Kind.PUBLIC,
    public: PublicOptions,
    released: ReleasedOptions,
    proposal: ProposalOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="public, local-private: say what it takes or costs, and stop.")
    ] = False,
    directory: Dir = HERE,
    json_file: Json = None,
    debug: Debug = False,
) -> None:
    """Choose numbers of a plan, or how a released model is used, by trying.

    `archipel tune --plan plan.yaml --trials 40 --chart trials.html` searches a plan's numbers on public rows.

    `archipel tune --kind post-processing --keep` fits how a released model is used to this silo's people.

    `archipel tune --kind local-private --epsilon 0.1` lets them choose among released models, and pays.
    """
    refuse_others(kind, public, released, proposal)
    if kind is Kind.PUBLIC:
        found = _tune_public(public, _target(proposal, directory), directory, dry_run=dry_run)
    elif kind is Kind.POST_PROCESSING:
        found = _tune_post_processing(released, directory)
    else:
        found = _tune_local_private(released, _target(proposal, directory), directory, dry_run=dry_run)
    emit_json(found, json_file)


def _tune_public(options: PublicOptions, target: Path, directory: Path, *, dry_run: bool) -> dict[str, Any]:
    from policies.files import load_yaml, write_atomically
    from policies.plans.plan import Plan
    from privacy.errors import UsageError
    from silo.extras import require_extra
    from silo.tuning.proposal import as_json, propose
    from silo.tuning.search import Search, total_seconds
    from silo.tuning.showing import describe, estimate, page
    from silo.tuning.world import make_world

    require_extra("tune", "optuna")
    plan = load_yaml(Path(options.plan or ""), Plan)
    if plan.is_vertical or plan.catalogue.kind != "shared":
        raise UsageError(
            "only plans of one catalogue and different people are searched on public rows",
            where=str(options.plan),
            remedy="name a horizontal plan with catalogue: {kind: shared, …}",
        )
    with _watched("reading public rows") as report:
        world = make_world(_public_set(options, plan, directory), plan.num_silos, options.seed)
        search = Search(plan, world, options.metric, options.seed)
        report(f"trial 0: the plan as it is, on {world.name}")
        first = search.try_next()
    say(estimate(first, options.trials))
    if dry_run:
        seconds = total_seconds(first, options.trials)
        return {"kind": "public", "dry_run": True, "epsilon": 0.0, "seconds": seconds}
    with _watched("trials", options.trials) as report:
        for number in range(1, options.trials):
            report(f"trial {number} of {options.trials}, best so far {search.best().value:.4f}")
            search.try_next()
        found = search.confirm(report)
    propose(plan, found, target)
    written = as_json(found, world, target)
    for part in describe(written):
        say(part)
    if options.chart is not None:
        write_atomically(options.chart, page(written, found, plan).encode())
        say(f"trials drawn: {options.chart}")
    say(f"{target}: ask what it costs each silo with `archipel plan forecast {target}`")
    return written


def _tune_post_processing(options: ReleasedOptions, directory: Path) -> dict[str, Any]:
    from silo.site import utc_now
    from silo.tuning.postprocessing import describe, tune_released

    with _watched("reading rows") as report:
        found = tune_released(directory, options.one_job, utc_now(), keep=options.keep, notice=report)
    for part in describe(found):
        say(part)
    return found


def _tune_local_private(
    options: ReleasedOptions, target: Path, directory: Path, *, dry_run: bool
) -> dict[str, Any]:
    from silo.site import Site
    from silo.tuning.selection import ask, choose, price, show_price

    with Site(directory) as site:
        question = ask(site, options.job or [], options.epsilon or 0.0)
        cost = price(site, question)
        for line in show_price(question, cost):
            say(line)
        if dry_run:
            return {"kind": "local-private", "dry_run": True, **cost}
        with _watched("judging") as report:
            found = choose(site, question, target, report)
    say(f"chosen: job {found['winner'][:12]} ({found['family']}); {target} proposes its plan again")
    return found


@contextmanager
def _watched(what: str, total: float | None = None) -> Iterator[Callable[[str], None]]:
    """A moving bar for whoever watches, lines for a log."""
    with progress(what, total) as advance:

        def report(text: str) -> None:
            advance(description=text)
            if not sys.stderr.isatty():
                say(f"… {text}")

        yield report


def _public_set(options: PublicOptions, plan: Plan, directory: Path) -> PublicSet:
    from silo.data.public_sets import load_public_set
    from silo.data.synthetic import marketplace
    from silo.tuning.proposal import refuse_private_rows

    if options.data is not None:
        refuse_private_rows(options.data, directory)
        return load_public_set(options.data, options.format, min_rating=options.min_rating)
    allowed = min(plan.num_silos * plan.max_users_per_silo, MOST_PEOPLE)
    people = options.people or max(FEWEST_PEOPLE, allowed)
    return marketplace(options.seed, people, min(MOST_ITEMS, max(FEWEST_ITEMS, plan.catalogue.items)))


def _target(proposal: ProposalOptions, directory: Path) -> Path:
    """Where the proposal goes; asked before anything is learnt."""
    from policies.plans.commands import PlanExistsError

    target = proposal.out or directory / PROPOSAL_FILE
    if target.exists() and not proposal.force:
        raise PlanExistsError("it exists already", where=str(target), remedy="name another --out, or --force")
    return target
