"""``archipel policy diff``: two files, the plans a silo was asked, and its accounts, as one answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from policies.charters.charter import Charter
from policies.comparison import changes
from policies.decisions.history import Flip, Past, PastPlan, flips, read_past, under
from policies.decisions.reason import Reason
from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import DataError, FindingError
from privacy.ledger.state import LedgerState

DAYS = 90


class WeakerPolicyError(FindingError):
    """The newer policy allows or risks more than the older one, or nobody would take it."""

    code: ClassVar[str] = "policy_weaker"


def policy_in_force(directory: Path) -> Path:
    """Return the file of the newest version that the silo's agent has trusted.

    Raises:
        DataError: it has trusted none yet.
    """
    kept = [path for path in (directory / "policies").glob("*.yaml") if path.stem.isdecimal()]
    if not kept:
        raise DataError(
            "no version of the policy was in force here yet",
            where=str(directory / "policies"),
            remedy="name both files: archipel policy diff OLD NEW",
        )
    return max(kept, key=lambda path: int(path.stem))


def compare(
    old_path: Path,
    new_path: Path,
    directory: Path,
    now: datetime,
    *,
    days: int = DAYS,
    plans: Sequence[Path] = (),
) -> dict[str, Any]:
    """Return everything that follows from a change of policy, as JSON values.

    Args:
        old_path: the older policy.
        new_path: the newer one.
        directory: the silo's; plans, charter and ledger are used where they are, and only read.
        now: reference time, aware.
        days: how far back plans are asked again.
        plans: further plans to ask about, on the accounts as they stand.

    Raises:
        PolicyFileError: everything wrong with a file.
        DataError: plans are to be judged and there is no charter.
    """
    old, new = load_yaml(old_path, SiloPolicy), load_yaml(new_path, SiloPolicy)
    past = read_past(directory, now - timedelta(days=days))
    asked = [*past.plans, *(PastPlan(str(path), load_yaml(path, Plan), past.now) for path in plans)]
    turned: tuple[Flip, ...] = ()
    if asked:
        turned = flips(asked, old, new, charter=_charter(directory), now=now, rosters=past.rosters)
    found = changes(old, new)
    return {
        "silo": new.silo,
        "old": {"file": str(old_path), "version": old.version},
        "new": {"file": str(new_path), "version": new.version},
        "changes": [asdict(change) for change in found],
        "weaker": any(change.direction in ("weaker", "refused") for change in found),
        "budgets": [*_budgets(old, new, past)],
        "plans": {
            "days": days,
            "judged": len(asked),
            "unreadable": list(past.unreadable),
            "now_accepted": [_flip(flip.name, flip.before) for flip in turned if not flip.after],
            "now_denied": [_flip(flip.name, flip.after) for flip in turned if flip.after],
        },
    }


def refuse_weaker(found: Mapping[str, Any]) -> None:
    """Accept a comparison in which nothing is weaker and no further plan is accepted.

    Raises:
        WeakerPolicyError: something is.
    """
    weaker = [change["field"] for change in found["changes"] if change["direction"] in ("weaker", "refused")]
    weaker += [f"plan {plan['plan']}" for plan in found["plans"]["now_accepted"]]
    if weaker:
        raise WeakerPolicyError(
            f"weaker than before, or not to be taken: {', '.join(weaker)}",
            where=found["new"]["file"],
            remedy="look at each; leave out --strict where all of them are meant",
        )


def describe(found: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Return the comparison as lines for people, each with a style or None.

    Args:
        found: what :func:`compare` returned.
    """
    yield f"{found['silo']}: policy version {found['old']['version']} → {found['new']['version']}", "bold"
    if not found["changes"]:
        yield "Both say the same.", None
    headings = {
        "refused": ("Nobody would take it", "bold red"),
        "weaker": ("Weaker: look twice", "bold red"),
        "stricter": ("Stricter", "bold green"),
        "other": ("Otherwise", "bold"),
    }
    for direction, (heading, style) in headings.items():
        group = [change for change in found["changes"] if change["direction"] == direction]
        if group:
            yield heading, style
            yield from ((line, None) for change in group for line in _change_lines(change))
    if found["budgets"]:
        yield "Budgets", "bold"
        yield from ((line, None) for line in map(_budget_line, found["budgets"]))
    yield from _plan_lines(found["plans"])


def _charter(directory: Path) -> Charter:
    path = directory / "charter.yaml"
    if not path.exists():
        raise DataError(
            "plans are judged by the members of a charter, and there is none here",
            where=str(path),
            remedy="name the silo's directory with --dir",
        )
    return load_yaml(path, Charter)


def _budgets(old: SiloPolicy, new: SiloPolicy, past: Past) -> Iterator[dict[str, Any]]:
    before, after = under(past.now, old), under(past.now, new)
    for account in sorted(old.budgets.keys() | new.budgets.keys()):
        known = past.now.accounts.get(account)
        shown: dict[str, Any] = {"account": account}
        for name, state in (("old", before), ("new", after)):
            shown[name] = _standing(state, account)
        asked = new.budgets.get(account)
        shown["filter_changed"] = (
            known is not None and asked is not None and asked.filter_spec != known.budget.filter
        )
        if shown["old"] != shown["new"] or shown["filter_changed"]:
            yield shown


def _standing(state: LedgerState, account: str) -> dict[str, Any] | None:
    found = state.accounts.get(account)
    if found is None:
        return None
    return {
        "epsilon": found.budget.epsilon,
        "delta": found.budget.delta,
        "remaining": found.epsilon_remaining,
        "frozen": found.frozen,
    }


def _flip(name: str, reasons: Sequence[Reason]) -> dict[str, Any]:
    return {"plan": name, "reasons": [asdict(reason) for reason in reasons]}


def _change_lines(change: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(change["old"], dict) or isinstance(change["new"], dict):
        yield f"  {change['field']}: {'added' if change['old'] is None else 'removed'}"
    else:
        yield f"  {change['field']}: {_shown(change['old'])} → {_shown(change['new'])}"
    yield f"      {change['consequence']}"


def _shown(value: Any) -> str:
    if value is None:
        return "(not said)"
    if isinstance(value, float):
        return f"{value:g}"
    return ", ".join(map(str, value)) or "(none)" if isinstance(value, list) else str(value)


def _budget_line(shown: Mapping[str, Any]) -> str:
    account, old, new = shown["account"], shown["old"], shown["new"]
    if shown["filter_changed"]:
        return f"  {account}: has another filter for life; the ledger will not take this policy"
    if old is None:
        return f"  {account}: opens with epsilon {new['epsilon']:g}"
    if new is None:
        return f"  {account}: nothing can be drawn any more; {old['remaining']:.4g} remained"
    more = new["remaining"] - old["remaining"]
    change = f"{abs(more):.4g} {'more' if more >= 0 else 'less'} may be spent from now on"
    frozen = "; frozen: less than what is spent and reserved already" if new["frozen"] else ""
    return f"  {account}: {change}; {new['remaining']:.4g} of {new['epsilon']:g} remain{frozen}"


def _plan_lines(plans: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    yield "Plans", "bold"
    if not plans["judged"]:
        yield f"  none was answered in the last {plans['days']} days", None
        return
    come, gone = plans["now_accepted"], plans["now_denied"]
    yield (
        f"  of {plans['judged']} asked again ({plans['days']} days), {len(come)} more would be accepted, "
        f"{len(gone)} more would be denied",
        None,
    )
    for heading, flipped, style in (("accepted, before: ", come, "red"), ("denied: ", gone, None)):
        for plan in flipped:
            why = "; ".join(f"{reason['field']} ({reason['code']})" for reason in plan["reasons"])
            yield f"  {plan['plan']}: would be {heading}{why}", style
    for job in plans["unreadable"]:
        yield f"  {job}: its plan cannot be read", None
