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
from typing import Any, Final

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
        "dataset": "payments",
        "purpose": "offer-recommendation",
        "population": "clients",
        "source": {"parquet": "data/payments/*.parquet"},
        "max_interactions_per_user": 100,
        "max_silos_per_user": 4,
        "epsilon": 4.0,
        "delta": 1e-6,
        "max_epsilon_per_plan": 2.0,
        "min_silos": 4,
        "min_colluding_silos": 2,
        "metrics": "noised",
        "verify_sums": 1.0,
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


def render_template(
    template: str,
    *,
    silo: str,
    expires: date | None = None,
    with_members: Sequence[str] | None = None,
    purpose: str | None = None,
    source: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    max_interactions_per_user: int | None = None,
    max_silos_per_user: int | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    orders: Sequence[float] | None = None,
    max_epsilon_per_plan: float | None = None,
    min_silos: int | None = None,
    min_colluding_silos: int | None = None,
    verify_sums: float | None = None,
) -> str:
    """Text of a ``policy.yaml``.

    Args:
        template: one of :data:`TEMPLATES`.
        silo: whose policy it is.
        expires: last day in force; a year from today by default.
        with_members: partners; none yet by default, so that everything is denied.
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

    Raises:
        UsageError: there is no such template.
    """
    if template not in _DEFAULTS:
        raise UsageError(
            f"there is no template {template!r}", remedy=f"choose one of: {', '.join(TEMPLATES)}"
        )
    given: dict[str, Any] = {
        "with_members": with_members,
        "purpose": purpose,
        "source": source,
        "columns": columns,
        "max_interactions_per_user": max_interactions_per_user,
        "max_silos_per_user": max_silos_per_user,
        "epsilon": epsilon,
        "delta": delta,
        "orders": orders,
        "max_epsilon_per_plan": max_epsilon_per_plan,
        "min_silos": min_silos,
        "min_colluding_silos": min_colluding_silos,
        "verify_sums": verify_sums,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = {**_SHARED, **_DEFAULTS[template], **chosen}
    blanks = {name: _flow(value) for name, value in settings.items()}
    blanks["filter"] = _flow_filter(settings["orders"])
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
