"""A small vertical federation of real processes: a shop, a platform and a network, of the same people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from policies.files import save_yaml
from policies.plans.vertical.drafting import VerticalDraft, complete_vertical_plan
from policies.plans.vertical.encoder_drafting import EncoderDraft, complete_encoder_plan
from silo.joining import join
from tests.contracts.federation_directories import free_port, make_federation
from tests.contracts.small_federation import SmallFederation, small_catalogue
from tests.support.vertical_federation import LITTLE_NOISE, alignment_policy

NAMES = ("shop", "platform", "network")
CAPACITIES = dict(zip(NAMES, (110, 100, 90), strict=True))
NUM_COMMON, NUM_OWN = 60, 10
LABEL_NORM, DIMENSIONS, LABEL_ITEMS = 2.0, 4, 20


def partner_rows(seed: int = 5) -> dict[str, pl.DataFrame]:
    """Two kinds of people; what they have in one silo says what they have in another."""
    rng = np.random.default_rng(seed)
    items = small_catalogue().item_ids
    tables = {}
    for name in NAMES:
        ids = items if name == NAMES[0] else [f"{name}-item-{number:02d}" for number in range(len(items))]
        people = [f"person-{n}" for n in range(NUM_COMMON)] + [f"{name}-{n}" for n in range(NUM_OWN)]
        rows = [
            (user, ids[2 * int(item) + place % 2])
            for place, user in enumerate(people)
            for item in rng.choice(len(ids) // 2, 6, replace=False)
        ]
        tables[name] = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row")
    return tables


def make_partners(
    root: Path,
    *,
    epsilon: float = 90.0,
    reveal: str = "none",
    asking: tuple[str, ...] = (),
    encoder: EncoderDraft | None = None,
    **draft: Any,
) -> SmallFederation:
    """Parties, charter, data, signed policies and a vertical plan; ``draft`` overrides the plan's fields.

    ``asking`` names the silos whose policy wants somebody to approve each alignment. With ``encoder`` the
    plan is one of a private encoder.
    """
    catalogue = small_catalogue()
    catalogue.save(root / "catalogues")
    parties = make_federation(root / "parties", silos=NAMES, port=free_port())
    parties.install_charter()
    fields: dict[str, Any] = {
        "label": NAMES[0],
        "features": dict.fromkeys(NAMES[1:], "user"),
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "target_epsilon": epsilon,
        "target_delta": 1e-6,
        "capacities": CAPACITIES,
        "min_intersection": 20,
        "alignment_epsilon": LITTLE_NOISE,
        "reveal": reveal,
        "label_items": LABEL_ITEMS,
        "label_norm": LABEL_NORM,
        "dimensions": DIMENSIONS,
    }
    wanted = VerticalDraft(**(fields | draft))
    plan = complete_vertical_plan(wanted) if encoder is None else complete_encoder_plan(wanted, encoder)
    made = SmallFederation(root, parties, catalogue, plan, rows=partner_rows())
    save_yaml(made.plan_path, plan)
    for name in NAMES:
        made.table(name).parent.mkdir()
        made.rows[name].write_parquet(made.table(name))
        text = alignment_policy(
            name, others=tuple(other for other in NAMES if other != name), capacity=CAPACITIES[name],
            reveal=reveal, epsilon=epsilon, approval="ask" if name in asking else "automatic",
        )  # fmt: skip
        (made.directory(name) / "policy.yaml").write_text(text)
        join(made.directory(name), parties.hub.directory / "charter.yaml")
    return made


def cross_moments_in_clear(
    rows: dict[str, pl.DataFrame], items: NDArray[np.int64], numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Items × features of the people in common, from rows that no process of the federation has together.

    Args:
        rows: of every silo.
        items: the label silo's ranked ones.
        numbers: of ``person-0``, ``person-1`` … at a feature silo.
    """
    column = {small_catalogue().item_ids[item]: place for place, item in enumerate(items)}
    labels = np.zeros((NUM_COMMON, items.size))
    for user, item in rows[NAMES[0]].iter_rows():
        if user.startswith("person-") and item in column:
            labels[int(user.split("-")[1]), column[item]] = 1.0
    lengths = np.linalg.norm(labels, axis=1, keepdims=True)
    clear: NDArray[np.float64] = (
        labels * np.minimum(1.0, LABEL_NORM / np.maximum(lengths, 1e-9))
    ).T @ numbers
    return clear
