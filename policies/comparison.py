"""Two versions of a policy compared by what follows from them. Pure.

A difference is *weaker* where the newer version allows, or risks, more than the older one; *stricter* where
it allows less; *other* where neither can be said from the files (another table, another date); *refused*
where no silo would take the newer version at all. A field left out counts as what its absence means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, NamedTuple

from policies.silo_policy import SiloPolicy

Direction = Literal["weaker", "stricter", "other", "refused"]
Rule = Callable[[Any, Any], Direction]


@dataclass(frozen=True)
class Change:
    """One field of two versions.

    Attributes:
        field: dotted path.
        old: what it was, None if it was not there.
        new: what it is, None if it is not there any more.
        direction: what that does to the protection of the people whose data it is.
        consequence: the same in words.
    """

    field: str
    old: Any
    new: Any
    direction: Direction
    consequence: str


class _Known(NamedTuple):
    pattern: str
    rule: Rule
    words: str


def changes(old: SiloPolicy, new: SiloPolicy) -> tuple[Change, ...]:
    """Return every difference between two versions: what no silo would take first, then what is weaker."""
    before, after = _leaves(old), _leaves(new)
    found = [*_version_change(old, new), *_alignment_change(old, new)]
    whole = {"alignment."} if (old.alignment is None) != (new.alignment is None) else set()
    for section, name in _entries(old) ^ _entries(new):
        whole.add(f"{section}.{name}.")
        found.append(_entry_change(section, name, is_new=name in getattr(new, section), policies=(old, new)))
    found.extend(
        _field_change(path, before.get(path), after.get(path))
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and not path.startswith(tuple(whole))
    )
    order: tuple[Direction, ...] = ("refused", "weaker", "stricter", "other")
    return tuple(sorted(found, key=lambda change: (order.index(change.direction), change.field)))


def _version_change(old: SiloPolicy, new: SiloPolicy) -> Iterator[Change]:
    if new.version > old.version or new == old:
        return
    text = "one version has one content" if new.version == old.version else "an older version is never taken"
    yield Change("version", old.version, new.version, "refused", f"{text}; write version: {old.version + 1}")


def _alignment_change(old: SiloPolicy, new: SiloPolicy) -> Iterator[Change]:
    """The whole section appears or goes; what changes in it is said field by field."""
    before, after = (
        None if policy.alignment is None else policy.alignment.model_dump(mode="json")
        for policy in (old, new)
    )
    if before is None and after is not None:
        words = "vertical plans may find whom this silo has in common with partners"
        yield Change("alignment", before, after, "weaker", words)
    elif after is None and before is not None:
        yield Change("alignment", before, after, "stricter", "every vertical plan is denied")


def _entries(policy: SiloPolicy) -> set[tuple[str, str]]:
    return {("datasets", name) for name in policy.datasets} | {("budgets", name) for name in policy.budgets}


def _entry_change(
    section: str, name: str, *, is_new: bool, policies: tuple[SiloPolicy, SiloPolicy]
) -> Change:
    path, value = f"{section}.{name}", getattr(policies[is_new], section)[name].model_dump(mode="json")
    old, new = (None, value) if is_new else (value, None)
    if section == "budgets":
        words = "a new account, with nothing spent yet" if is_new else "no plan can draw on it any more"
        return Change(path, old, new, "weaker" if is_new else "stricter", words)
    used = sorted(p for p, table in policies[is_new].accepts.purposes.items() if table == name)
    use = f"for {', '.join(used)}" if used else "which no purpose uses"
    return Change(path, old, new, "other", f"{'one more' if is_new else 'no longer a'} table, {use}")


def _field_change(path: str, old: Any, new: Any) -> Change:
    for known in _FIELDS:
        if fnmatchcase(path, known.pattern):
            return Change(path, old, new, known.rule(old, new), known.words.format(**_named(path, old, new)))
    return Change(path, old, new, "other", "changed")


def _named(path: str, old: Any, new: Any) -> dict[str, str]:
    amount = ""
    if isinstance(old, int | float) and isinstance(new, int | float):
        amount = f"{abs(new - old):.6g} {'more' if new > old else 'less'}"
    gone, come = _lost(old, new)
    moved = (f"{come} may" if come else "", f"{gone} may not" if gone else "")
    return {
        "name": path.split(".")[1] if "." in path else path,
        "amount": amount,
        "moved": "; ".join(part for part in moved if part) or "in another order the same may",
    }


def _lost(old: Any, new: Any) -> tuple[str, str]:
    """What only the old list has, and what only the new one has."""
    if not isinstance(old, list) or not isinstance(new, list):
        return "", ""
    return ", ".join(str(x) for x in old if x not in new), ", ".join(str(x) for x in new if x not in old)


def _more_is_weaker(old: Any, new: Any) -> Direction:
    """None stands for no limit."""
    if old is None or new is None:
        return "weaker" if new is None else "stricter"
    return "weaker" if new > old else "stricter"


def _more_is_weaker_from_none(old: Any, new: Any) -> Direction:
    """None stands for nothing allowed."""
    return _more_is_weaker(old or 0.0, new or 0.0)


def _less_is_weaker(old: Any, new: Any) -> Direction:
    return "weaker" if new < old else "stricter"


def _longer_is_weaker(old: Any, new: Any) -> Direction:
    """Lists of what is allowed; None stands for everything."""
    if old is None or new is None:
        return "weaker" if new is None else "stricter"
    return "weaker" if set(new) - set(old) else "stricter" if set(old) - set(new) else "other"


def _answers_more(old: Any, new: Any) -> Direction:
    """Lists of what is given away; None stands for nothing."""
    return _longer_is_weaker(old or [], new or [])


def _serving_mode(old: Any, new: Any) -> Direction:
    """From nobody, by the person alone, to another silo that is told."""
    order = ("own_features_only", "user_side_merge", "consented_session", "dp_release")
    return "stricter" if order.index(new) < order.index(old) else "weaker"


def _presence_protects(old: Any, new: Any) -> Direction:
    if old is None or new is None:
        return "weaker" if new is None else "stricter"
    return "other"


def _presence_allows(old: Any, new: Any) -> Direction:
    if old is None or new is None:
        return "weaker" if old is None else "stricter"
    return "other"


def _added_is_weaker(old: Any, new: Any) -> Direction:
    """Lists of renewals; what counts is how much they add."""
    before, after = (sum(item["epsilon"] for item in renewals or ()) for renewals in (old, new))
    return "weaker" if after > before else "stricter" if after < before else "other"


def _weaker_with(value: str) -> Rule:
    return lambda _old, new: "weaker" if new == value else "stricter"


def _always(direction: Direction) -> Rule:
    return lambda _old, _new: direction


_FIELDS: Final[tuple[_Known, ...]] = (
    _Known("version", _always("other"), "a newer version"),
    _Known("silo", _always("refused"), "another silo's policy"),
    _Known("expires", _always("other"), "the last day in force"),
    _Known("budgets.*.epsilon", _more_is_weaker, "all plans together may cost each of the {name} {amount}"),
    _Known(
        "budgets.*.delta", _more_is_weaker, "the promise to the {name} may fail with probability {amount}"
    ),
    _Known("budgets.*.filter", _always("other"), "no ledger takes another filter for an account it has"),
    _Known("budgets.*.orders", _always("other"), "no ledger takes other orders for an account it has"),
    _Known("budgets.*.scope", _always("other"), "whether additions to the budget are declared"),
    _Known("budgets.*.renewals", _added_is_weaker, "what may be added to the budget later"),
    _Known("budgets.*.renewed", _more_is_weaker, "declared renewals taken: {amount}"),
    _Known("budgets.*.expires", _more_is_weaker, "until when plans may draw on the account"),
    _Known("budgets.*.max_epsilon_with.*", _more_is_weaker, "what all jobs with one partner may cost"),
    _Known(
        "datasets.*.max_interactions_per_user", _more_is_weaker, "{amount} of one person's history is used"
    ),
    _Known("datasets.*.max_silos_per_user", _less_is_weaker, "plans reckon with a person in {amount} silos"),
    _Known(
        "datasets.*.exclude_users", _presence_protects, "who said no is read from elsewhere, or not at all"
    ),
    _Known(
        "datasets.*.population", _always("weaker"), "another account pays; what was spent stays on the old"
    ),
    _Known("datasets.*.source.*", _always("other"), "other rows are read"),
    _Known("datasets.*.columns.*", _always("other"), "the rows are read otherwise"),
    _Known("datasets.*.events.*", _always("other"), "which kinds of events count, and how much"),
    _Known("datasets.*.min_rating", _always("other"), "from which rating on a row is an interaction"),
    _Known("datasets.*.default_region", _always("other"), "telephone numbers without a country are others"),
    _Known("datasets.*.item_list", _always("other"), "other columns stand for items in vertical plans"),
    _Known("datasets.*.unit", _always("other"), "the promise protects something else"),
    _Known("accepts.purposes.*", _presence_allows, "which plans may use a table, or which table"),
    _Known("accepts.with_members", _longer_is_weaker, "{moved} be in a roster with this silo"),
    _Known("accepts.max_epsilon_per_plan", _more_is_weaker, "one plan may cost {amount}"),
    _Known("accepts.min_silos", _less_is_weaker, "a sum needs {amount} contributions"),
    _Known("accepts.min_colluding_silos", _less_is_weaker, "plans must hold against {amount} colluders"),
    _Known("accepts.require.*", _always("other"), "what no plan may lack"),
    _Known("accepts.metrics", _weaker_with("noised"), "whether quality figures leave"),
    _Known(
        "accepts.verify_sums", _less_is_weaker, "share of the coordinator's sums recomputed here: {amount}"
    ),
    _Known("accepts.catalogues", _longer_is_weaker, "which item lists plans may use"),
    _Known("accepts.families", _longer_is_weaker, "which kinds of models plans may train"),
    _Known("accepts.max_rounds", _more_is_weaker, "how often one training may read the rows"),
    _Known(
        "accepts.max_epsilon_per_selection",
        _more_is_weaker_from_none,
        "what one private choice made here costs",
    ),
    _Known("alignment.capacity", _always("other"), "plans must declare another size of this silo's list"),
    _Known("alignment.min_intersection", _less_is_weaker, "a job goes on with {amount} people in common"),
    _Known("alignment.reveal", _weaker_with("both"), "whether silos may learn whom they have in common"),
    _Known("alignment.max_runs_per_30_days", _more_is_weaker, "people are aligned {amount} times a month"),
    _Known("alignment.max_epsilon", _more_is_weaker, "what the numbers of people may cost"),
    _Known("alignment.identifiers", _always("other"), "ids are written alike otherwise"),
    _Known("alignment.roles", _longer_is_weaker, "what this silo may be in a vertical plan"),
    _Known("alignment.approval", _weaker_with("automatic"), "whether somebody here approves each alignment"),
    _Known("serving.mode", _serving_mode, "whether scores may rest on another silo's row of a person"),
    _Known(
        "serving.answers.*", _answers_more, "for what its lists may rest on the numbers of people who consent"
    ),
    _Known(
        "serving.max_requests_per_hour", _more_is_weaker, "one silo may try {amount} tokens within an hour"
    ),
    _Known("serving.token_minutes", _more_is_weaker, "a person's consent holds {amount} minutes"),
)
"""What a field does to the protection of people; a field that stands nowhere here is ``other``."""


def _leaves(policy: SiloPolicy) -> dict[str, Any]:
    """Every value by its dotted path, defaults included, without fields that say nothing."""
    return dict(_walk(policy.model_dump(mode="json"), ()))


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _walk(item, (*path, name))
    elif value is not None:
        yield ".".join(path), value
