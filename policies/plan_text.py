"""A plan as the commented file that people read before they agree to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from policies.plan import Plan

_COLUMN: Final = 44
_LONGEST_FLOW: Final = 88
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NOT_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_IN_LINES: Final = frozenset({"catalogue", "privacy"})

_HEADER: Final = """\
# yaml-language-server: $schema=plan.schema.json
# One job. Every silo accepts this file unchanged or denies it; every number here is public.
"""
_COMMENTS: Final[Mapping[str, str]] = {
    "purpose": "each silo's policy maps it to one of its datasets",
    "partition": "same catalogue, different users",
    "silos": "the roster; the first leads",
    "catalogue": "the public item list, never the items that happen to occur",
    "max_users_per_silo": "public bound, rounded up; grid and clamp derive from it",
    "max_interactions_per_user": "a silo may cap lower",
    "holdout": "none | random | last: rows kept out of contributions",
    "model.features": "width of the items' public features",
    "model.hidden": "width of the hidden layer",
    "model.input_dropout": "share of a history that a step hides and asks for",
    "model.seed": "of the first weights; never of noise",
    "model.bias": "popularity, counted with noise before the training",
    "model.start_from": "checkpoint that every silo has",
    "training": "the public schedule",
    "training.rounds": "secure sums of the training",
    "training.max_burned_rounds": "sums that may fail; all are paid for in advance",
    "training.sample_rate": "chance of each person to be in a step",
    "training.expected_batch_size": "public divisor over all silos; never a count of rows",
    "training.decay": "linear: the step size falls to 0",
    "training.local_steps": "noised steps of a silo between two sums",
    "training.local_learning_rate": "of those",
    "privacy.unit": "the whole history of one person",
    "privacy.target_epsilon": "everything this plan releases, metrics and burned rounds included",
    "privacy.filter": "each silo checks with its own account's filter",
    "privacy.noise_multiplier": "std of the promised noise / norm; every silo verifies it",
    "privacy.contribution_norm": "of one person's statistics",
    "privacy.max_grad_norm": "one person's gradient is clipped to it",
    "privacy.clipping": "flat: longer ones are shortened | automatic: all are scaled to it",
    "privacy.grid": "integer units per norm",
    "privacy.noise_placement": "federation: shares that add up | silo: each silo's own suffices",
    "privacy.colluding_silos": "that many may pool what they know with the coordinator",
    "privacy.max_silos_per_user": "in how many silos of the roster one person may be",
    "protection.min_silos": "fewest contributions to a sum",
    "protection.round_minutes": "then a round goes on without a silo",
    "releases": "metrics: none, or noised at an epsilon inside target_epsilon",
}


def render_plan(plan: Plan) -> str:
    """Return the text of ``plan.yaml``: every field that was set, so it reads back to the same digest."""
    lines = _lines(plan.model_dump(mode="json", exclude_unset=True))
    return _HEADER + "".join(
        f"{content:<{_COLUMN}}  # {comment}\n" if comment else f"{content}\n" for content, comment in lines
    )


def _lines(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        comment = _COMMENTS.get(name, "")
        flow = f"{name}: {_flow(value)}"
        if name not in _IN_LINES and (not isinstance(value, Mapping) or len(flow) <= _LONGEST_FLOW):
            yield flow, comment
            continue
        yield f"{name}:", comment
        for field, item in value.items():
            yield f"  {field}: {_flow(item)}", _COMMENTS.get(f"{name}.{field}", "")


def _flow(value: Any) -> str:
    """A JSON value in YAML's flow style; plain words stay bare."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NOT_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
