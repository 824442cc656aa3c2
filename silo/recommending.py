"""``archipel recommend``: one user's list as JSON values, and as lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from silo.local.serving import BLEND, ONLY_FEDERATED, served_model
from silo.rows import known_rows
from silo.serving import recommend

_FALLBACKS = {
    "unknown-user": "no history of this user here: the popularity list",
    "model": "the model found popularity no worse: the popularity list",
}
_PARTNERS = {
    "no token": "{silo} was not asked: no token of it",
    "released": "{silo} released noised numbers of everybody in the job: the list depends on them",
    "answered": "{silo} gave this person's numbers: the list depends on their row there",
    "denied": "{silo} gave nothing for this token, and does not say why: made without it",
    "unreachable": "{silo} did not answer: made without it",
}


def recommend_alone(
    directory: Path,
    job: str | None,
    user: str,
    k: int,
    model: str | None = None,
    *,
    explained: int = 0,
    notice: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The list of a model that asks no partner, as JSON values; arguments as the command's.

    ``notice`` is told (items done, items in all) while the first ``explained`` items are explained.
    """
    served = served_model(directory, job, model)
    rows = known_rows(directory, served.source.plan, served.source.dataset)
    ranked = recommend(
        served.model, served.catalogue, rows.seen, user, k, reserve=served.name == BLEND, liked=rows.liked
    )
    found: dict[str, Any] = {
        "model": served.name,
        "job": served.jobs[0] if served.name == ONLY_FEDERATED else None,
        "jobs": list(served.jobs),
        "private_parts": list(served.private_parts),
        "user_id": user,
        "fallback": ranked.fallback,
        "new_item": ranked.new_item,
        "items": [asdict(row) for row in ranked.rows],
    }
    if explained:
        from silo.explaining import explain

        explain(directory, served.catalogue, rows.liked.of(user), found["items"][:explained], notice)
    remarks = {"note": served.note, "uncompared_job": served.uncompared_job}
    return found | {name: said for name, said in remarks.items() if said is not None}


def describe(found: dict[str, Any]) -> Iterator[object]:
    """The list for people.

    Args:
        found: what ``recommend`` writes as JSON.
    """
    yield f"for {found['user_id']}, by {_made_with(found)}"
    if found.get("private_parts"):
        parts = ", ".join(found["private_parts"])
        yield f"  private to this silo, made of its rows without noise: {parts}"
    if "serving_mode" in found:
        alone = found["serving_mode"] == "own_features_only"
        yield f"serving mode {found['serving_mode']}" + (": this silo's own rows alone" if alone else "")
        yield from (f"  {_PARTNERS[said].format(silo=silo)}" for silo, said in found["partners"].items())
    if found.get("merges_on_device"):
        yield "  what partners know joins it on the person's own device: `archipel merge start`"
    table = Table("rank", "item_id", "title", "score")
    for row in found["items"]:
        table.add_row(str(row["rank"]), row["item_id"], row["title"], f"{row['score']:.4g}")
    yield table
    if any("explanation" in row for row in found["items"]):
        yield "Written on this machine by a small text model; it ranked nothing, and may be wrong:"
    for row in found["items"]:
        if "explanation" in row:
            yield f"  {row['rank']}. {row['explanation']} (has {', '.join(row['because'])})"
    if found.get("new_item") is not None:
        yield f"{found['new_item']} is new here: the last place is kept for such items, by their attributes"


def _made_with(found: dict[str, Any]) -> str:
    if found.get("model", ONLY_FEDERATED) == ONLY_FEDERATED:
        return f"job {found['job']}"
    jobs = ", ".join(found["jobs"])
    return f"{found['model']}" + (f" with job {jobs}" if jobs else "")


def warnings(found: dict[str, Any]) -> Iterator[str]:
    """What the list is not; argument as for :func:`describe`."""
    if "note" in found:
        yield f"this model is of a job that did not run to its end: {found['note']}"
    if "uncompared_job" in found:
        yield f"job {found['uncompared_job']} is not in the blend: `archipel compare --keep` looks at it"
    if found["fallback"] is not None:
        yield _FALLBACKS[found["fallback"]]
