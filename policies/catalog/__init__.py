"""Policies to start from: commented YAML with the blanks filled in.

A template is a whole, valid policy that denies everything until its administrator names partners. The
settings replace a template's own choices; whatever is left out stays as the template has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from importlib import resources
from string import Template
from typing import Any, Final, Literal, TypedDict

from typing_extensions import Unpack

from privacy.errors import UsageError

__all__ = ["TEMPLATES", "render_template"]

_SHARED: Final[Mapping[str, Any]] = {
    "with_members": (),
    "dataset": "purchases",
    "purpose": "product-recommendation",
    "population": "customers",
    "source": {"parquet": "data/purchases/*.parquet"},
    "columns": {"user_id": "user_id", "item_id": "item_id"},
    "max_silos_per_user": 1,
    "orders": None,
    "unit": None,
}
_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "retailer": {
        "max_interactions_per_user": 200,
        "epsilon": 8.0,
        "delta": 1e-6,
        "max_epsilon_per_plan": 4.0,
        "min_silos": 3,
        "min_colluding_silos": 1,
        "metrics": "noised",
        "verify_sums": 1.0,
    },
    "strict": {
        "dataset": "encounters",
        "purpose": "care-recommendation",
        "population": "patients",
        "source": {"parquet": "data/encounters/*.parquet"},
        "max_interactions_per_user": 100,
        "max_silos_per_user": 4,
        "epsilon": 2.0,
        "delta": 1e-7,
        "max_epsilon_per_plan": 1.0,
        "min_silos": 4,
        "min_colluding_silos": 2,
        "metrics": "none",
        "verify_sums": 1.0,
    },
    "social-network": {
        "dataset": "likes",
        "purpose": "content-recommendation",
        "population": "members",
        "source": {"parquet": "data/likes/*.parquet"},
        "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "at"},
        "max_interactions_per_user": 200,
        "max_silos_per_user": 4,
        "epsilon": 6.0,
        "delta": 1e-7,
        "orders": (2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        "max_epsilon_per_plan": 3.0,
        "min_silos": 4,
        "min_colluding_silos": 1,
        "metrics": "noised",
        "verify_sums": 0.1,
    },
    "vertical-partner": {
        "dataset": "views",
        "population": "members",
        "source": {"parquet": "data/views/*.parquet"},
        "max_silos_per_user": 3,
        "max_interactions_per_user": 200,
        "epsilon": 8.0,
        "delta": 1e-6,
        "max_epsilon_per_plan": 4.0,
        "min_silos": 2,
        "min_colluding_silos": 1,
        "metrics": "none",
        "verify_sums": 1.0,
        "capacity": 10_000,
        "min_intersection": 1_000,
        "max_alignment_epsilon": 0.1,
        "approval": "automatic",
    },
    "research": {
        "dataset": "ratings",
        "purpose": "research",
        "population": "participants",
        "source": {"csv": "data/ratings.csv"},
        "max_interactions_per_user": 500,
        "epsilon": 20.0,
        "delta": 1e-5,
        "orders": (2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
        "max_epsilon_per_plan": 10.0,
        "min_silos": 2,
        "min_colluding_silos": 1,
        "metrics": "noised",
        "verify_sums": 1.0,
    },
}
_COMMENT_COLUMN = 44
_TRAILING_COMMENT = re.compile(r"^( *[^ #\n].*?) {2,}# (.*)$", re.MULTILINE)
TEMPLATES: Final[tuple[str, ...]] = tuple(_DEFAULTS)


class Blanks(TypedDict, total=False):
    """What may be filled into a template; left out, or None: the template's own choice.

    Attributes:
        with_members: partners; none yet by default, so that everything is denied.
        dataset: what the template's one table is called.
        purpose: the one purpose that the template's dataset may serve.
        source: ``{"parquet" | "csv" | "inter": path}``.
        columns: column names in the source.
        max_interactions_per_user: cap of one history.
        max_silos_per_user: in how many silos one person may be.
        epsilon: lifetime budget of the account.
        delta: likewise.
        orders: Rényi orders; the account's filter is then ``renyi``.
        max_epsilon_per_plan: ceiling of one plan.
        min_silos: fewest silos of a sum.
        min_colluding_silos: collusion every plan must cover.
        verify_sums: share of sums this silo recomputes.
        capacity: declared size of its list of people; ``vertical-partner`` only, as all that follow.
        min_intersection: fewest people in common.
        max_alignment_epsilon: ceiling of the noised numbers that an alignment takes.
        unit: of a friend graph, what the promise protects.
        approval: whether somebody approves each alignment.
    """

    with_members: Sequence[str] | None
    dataset: str | None
    purpose: str | None
    source: Mapping[str, str] | None
    columns: Mapping[str, str] | None
    max_interactions_per_user: int | None
    max_silos_per_user: int | None
    epsilon: float | None
    delta: float | None
    orders: Sequence[float] | None
    max_epsilon_per_plan: float | None
    min_silos: int | None
    min_colluding_silos: int | None
    verify_sums: float | None
    capacity: int | None
    min_intersection: int | None
    max_alignment_epsilon: float | None
    unit: Literal["user_row", "user_node"] | None
    approval: Literal["automatic", "ask"] | None


def render_template(
    template: str, *, silo: str, expires: date | None = None, **filled_in: Unpack[Blanks]
) -> str:
    """Text of a ``policy.yaml``.

    Args:
        template: one of :data:`TEMPLATES`.
        silo: whose policy it is.
        expires: last day in force; a year from today by default.
        filled_in: see :class:`Blanks`.

    Raises:
        UsageError: there is no such template, or no such blank.
    """
    if template not in _DEFAULTS:
        raise UsageError(
            f"there is no template {template!r}", remedy=f"choose one of: {', '.join(TEMPLATES)}"
        )
    if unknown := filled_in.keys() - Blanks.__annotations__.keys():
        raise UsageError(f"templates have no blank {', '.join(sorted(unknown))}")
    chosen = {name: value for name, value in filled_in.items() if value is not None}
    settings = {**_SHARED, **_DEFAULTS[template], **chosen}
    blanks = {name: _flow(value) for name, value in settings.items()}
    blanks["filter"] = _flow_filter(settings["orders"])
    blanks["unit"] = "# unit: user_row" if settings["unit"] is None else f"unit: {settings['unit']}"
    text = resources.files(__name__).joinpath(f"{template}.yaml").read_text(encoding="utf-8")
    last_day = expires or datetime.now(UTC).date() + timedelta(days=365)
    filled = Template(text).substitute(blanks, silo=_flow(silo), expires=last_day.isoformat())
    return _TRAILING_COMMENT.sub(lambda match: f"{match[1]:<{_COMMENT_COLUMN}}  # {match[2]}", filled)


def _flow(value: Any) -> str:
    """A value in YAML's flow style; words stay bare where YAML reads them as words."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and value.replace("-", "").replace("_", "").isalpha() and value.isascii():
        return value if value.lower() not in ("true", "false", "null") else json.dumps(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in repr(value):
        digits, _, exponent = repr(value).partition("e")
        return f"{digits if '.' in digits else digits + '.0'}e{int(exponent)}"
    return json.dumps(value)


def _flow_filter(orders: Sequence[float] | None) -> str:
    return "filter: zcdp" if orders is None else f"filter: renyi, orders: {_flow(tuple(orders))}"
