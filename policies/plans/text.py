"""A plan as the commented file that people read before they agree to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from policies.plans.plan import Plan

_COLUMN: Final = 44
_LONGEST_FLOW: Final = 88
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_NOT_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_IN_LINES: Final = frozenset({"catalogue", "privacy", "roles", "alignment"})

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
    "catalogue.encoder_sha256": "what reads item texts; every silo has it",
    "model.dimensions": "of the space of item texts",
    "model.architecture": "transformer | masked | gru | lstm | cnn: what reads a history",
    "model.layers": "of it",
    "model.places": "newest items of a history that it reads",
    "model.hidden": "width of the hidden layer",
    "model.input_dropout": "share of a history that a step hides and asks for",
    "model.negatives": "items that compete in a step where a list is longer than above (20,000)",
    "model.seed": "of the first weights; never of noise",
    "model.encoder_adapter": "what is trained of the encoder's last layers",
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
_COMMENTS_OF_VERTICAL: Final[Mapping[str, str]] = {
    **_COMMENTS,
    "partition": "same users, different data",
    "roles.label": "whose items are ranked",
    "roles.features": "who knows other things about the same people, and what is protected there",
    "alignment": "how the people in common are found",
    "alignment.capacities": "each list is padded to it, so nobody learns how long it is",
    "alignment.min_intersection": "with fewer in common the job ends and nobody learns more",
    "alignment.epsilon": "of the noised numbers of people, its own and in common",
    "alignment.reveal": "none | both: every silo learns whom it has in common with the others",
    "alignment.identifiers": "how ids are written alike: exact | email | phone",
    "model.label_items": "items that take part, the label silo's most frequent",
    "model.label_norm": "of the label silo's rows",
    "model.dimensions": "numbers that stand for one person of a feature silo",
    "model.basis": "how they are made: dp_pca | public",
    "model.basis_share": "what the basis takes of the promise",
    "max_users_per_silo": "public bound: the largest capacity",
    "model.release_epsilon": "of everybody's noised numbers if alone; the training gets the rest",
    "model.input_dropout": "share of a row hidden from the encoder and asked of it",
    "training": "cross-moments: none; private-encoder: each feature silo's own steps",
    "training.rounds": "steps",
    "privacy.unit": "the whole history of one person; a feature silo may have its own",
    "privacy.noise_multiplier": "of basis and moments together, or of a step; every silo verifies it",
    "privacy.noise_placement": "each feature silo adds all of its noise itself",
    "releases": "label: only the label silo learns the joint model",
}


_COMMENTS_OF_OWN_LISTS: Final[Mapping[str, str]] = {
    **_COMMENTS,
    "partition": "different users",
    "catalogue": "public texts that make the silos' own lists comparable",
    "catalogue.kind": "each silo ranks the item_list of its own policy",
    "model.architecture": "bottleneck: its items added up | transformer | masked | gru | lstm | cnn",
}


def render_plan(plan: Plan) -> str:
    """Return the text of ``plan.yaml``: every field that was set, so it reads back to the same digest."""
    comments = _COMMENTS_OF_VERTICAL if plan.is_vertical else _COMMENTS
    if plan.catalogue.kind == "per_silo":
        comments = _COMMENTS_OF_OWN_LISTS
    lines = _lines(plan.model_dump(mode="json", exclude_unset=True), comments)
    return _HEADER + "".join(
        f"{content:<{_COLUMN}}  # {comment}\n" if comment else f"{content}\n" for content, comment in lines
    )


def _lines(values: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        comment = comments.get(name, "")
        flow = f"{name}: {_flow(value)}"
        if name not in _IN_LINES and (not isinstance(value, Mapping) or len(flow) <= _LONGEST_FLOW):
            yield flow, comment
            continue
        yield f"{name}:", comment
        for field, item in value.items():
            yield f"  {field}: {_flow(item)}", comments.get(f"{name}.{field}", "")


def _flow(value: Any) -> str:
    """A JSON value in YAML's flow style; plain words stay bare."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(name)}: {_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(item) for item in value) + "]"
    if isinstance(value, str) and _WORD.fullmatch(value) and value.lower() not in _NOT_WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
