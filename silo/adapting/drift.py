"""How far a silo's people have moved from what a model was trained on. For this organisation only.

Exact figures of private rows, without noise: nothing here leaves, and no module of the agent may import it.

Quality is compared like with like: each person's last row before the training, where the plan had held it
out, against their last row since. Both times one item is asked for of all unseen ones, and the history is
what was known then. Whether a difference is more than chance is asked with two standard errors.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import hypot
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.adapting.windows import DAY_SECONDS, Windows
from silo.data.interactions import Interactions
from silo.evaluation import aligned_rows, per_user_metrics, rank_scores
from silo.models.recommender import Recommender
from silo.models.shipped import ShippedModel

METRIC: Final = "ndcg@20"
USERS_PER_BLOCK: Final = 512
MIN_PEOPLE: Final = 50
"""With fewer, a mean says nothing about whether people have moved."""
MAX_LOSS: Final = 0.1
"""Share of the quality whose loss, if it is no chance, says that the federated part has aged."""
MAX_OUTSIDE: Final = 0.05
"""Likewise, share of recent rows that are of items no model of this catalogue can show."""


@dataclass(frozen=True)
class Mean:
    """A mean over people.

    Attributes:
        people: how many.
        value: their mean.
        standard_error: of it.
    """

    people: int
    value: float
    standard_error: float


def measure(model: ShippedModel, windows: Windows) -> dict[str, Any]:
    """All figures of drift, as JSON values; None where there is nobody to measure.

    Returns:
        ``recent`` (counts), ``shift`` (of popularity), ``quality`` (then and now), ``following`` (what new
        rows in a history are worth), ``reasons`` (why the federated part has aged, empty if it has not).
    """
    popular = Recommender.of_popularity(model.popularity, {"family": "popularity"}, is_fallback=False)
    then = _mean(_values(model, windows.train, windows.train, windows.held_out))
    now = _values(model, windows.followed, windows.followed, windows.targets)
    frozen = _values(model, windows.before, windows.followed, windows.targets)
    found: dict[str, Any] = {
        "recent": _counts(model, windows),
        "shift": popularity_shift(windows),
        "quality": {
            "metric": METRIC,
            "then": _json(then),
            "now": _json(_mean(now)),
            "popularity_then": _json(_mean(_values(popular, windows.train, windows.train, windows.held_out))),
            "popularity_now": _json(
                _mean(_values(popular, windows.followed, windows.followed, windows.targets))
            ),
        },
        "following": {
            "metric": METRIC,
            "frozen": _json(_mean(frozen)),
            "followed": _json(_mean(now)),
            "gain": _json(_mean(now - frozen)),
        },
    }
    return found | {"reasons": reasons(then, _mean(now), found["recent"])}


def reasons(then: Mean | None, now: Mean | None, recent: dict[str, Any]) -> list[str]:
    """Why the federated part has aged; empty where nothing shows it."""
    found = []
    if then and now and min(then.people, now.people) >= MIN_PEOPLE:
        loss, chance = then.value - now.value, 2 * hypot(then.standard_error, now.standard_error)
        if loss > chance and loss > MAX_LOSS * then.value:
            found.append(
                f"{METRIC} fell from {then.value:.4f} to {now.value:.4f}, by more than chance and more than "
                f"{MAX_LOSS:.0%} of it"
            )
    outside = recent["outside_share"]
    if outside is not None and outside > MAX_OUTSIDE:
        found.append(f"{outside:.1%} of recent rows are of items outside the catalogue")
    return found


def popularity_shift(windows: Windows) -> dict[str, Any]:
    """Jensen-Shannon divergence, in bits, between which items are met now and were met before.

    Beside it stands the same of the stretch of equal length just before the training: people always move on
    to items they do not have yet, and few rows differ by chance. Both stretches are thinned to equally many
    rows, so the two figures are comparable with each other and with nothing else.
    """
    length = windows.end - windows.since
    now = windows.stretch(windows.since, windows.end)
    just_before = windows.stretch(windows.since - length, windows.since)
    rows = min(now.size, just_before.size)
    found: dict[str, Any] = {"days": length / DAY_SECONDS, "rows": rows, "now": None, "then": None}
    long_before = windows.stretch(0, windows.since - length)
    if not rows or not long_before.size:
        return found
    rng = np.random.default_rng(0)
    items = windows.before.num_items
    was = np.concatenate([long_before, just_before])
    return found | {
        "now": _divergence(_thinned(now, rows, rng), was, items),
        "then": _divergence(_thinned(just_before, rows, rng), long_before, items),
    }


def _counts(model: ShippedModel, windows: Windows) -> dict[str, Any]:
    recent, before = windows.recent, windows.before
    items = recent.frame["item_index"].to_numpy()
    met = np.unique(before.frame["item_index"].to_numpy())
    people, known = (np.unique(rows.frame["user_index"].to_numpy()) for rows in (recent, before))
    unknown = model.popularity[items] <= 0
    return {
        "rows": windows.recent_rows,
        "outside_rows": windows.outside_rows,
        "outside_share": windows.outside_rows / windows.recent_rows if windows.recent_rows else None,
        "new_pairs": recent.num_interactions,
        "new_here_share": _share(~np.isin(items, met)),
        "unknown_to_model_share": _share(unknown),
        "people": int(people.size),
        "new_people_share": _share(~np.isin(people, known)),
    }


def _values(
    model: ShippedModel, histories: Interactions, seen: Interactions, targets: Interactions
) -> NDArray[np.float64]:
    """The metric of each person with a target, scored by one history; whatever is seen is not shown."""
    known, relevant = aligned_rows(histories, targets)
    hidden, _ = aligned_rows(seen, targets)
    found = [np.empty(0)]
    for start in range(0, relevant.shape[0], USERS_PER_BLOCK):
        block = slice(start, start + USERS_PER_BLOCK)
        rankings = rank_scores(_scores(model, known[block]), hidden[block], relevant[block])
        found.append(per_user_metrics(rankings)[METRIC])
    return np.concatenate(found)


def _scores(model: ShippedModel, histories: sp.csr_matrix) -> NDArray[np.float64]:
    return np.asarray(model.scores(histories), dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> Mean | None:
    if values.size < 2:
        return None
    return Mean(int(values.size), float(values.mean()), float(values.std(ddof=1) / np.sqrt(values.size)))


def _json(mean: Mean | None) -> dict[str, Any] | None:
    return None if mean is None else asdict(mean)


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if flags.size else None


def _thinned(rows: NDArray[np.int64], count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(rows, count, replace=False) if rows.size > count else rows


def _divergence(first: NDArray[np.int64], second: NDArray[np.int64], items: int) -> float:
    p, q = (np.bincount(rows, minlength=items) / rows.size for rows in (first, second))
    middle = (p + q) / 2
    return float(sum(_entropy(middle, part) for part in (p, q)) / 2)


def _entropy(middle: NDArray[np.float64], part: NDArray[np.float64]) -> float:
    some = part > 0
    return float(np.sum(part[some] * np.log2(part[some] / middle[some])))
