"""One silo that has joined a charter, with rows of a small public set and two finished jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from policies.administration import sign_policy
from silo.data.catalogue import Catalogue
from silo.data.public_sets import load_public_set
from silo.models.recommender import Recommender
from silo.site import Site
from tests.contracts.federation_directories import make_federation
from tests.support.local_silo import POLICY, finish_job, local_plan, make_local_silo
from tests.support.small_set import write_set

GOOD, BAD = "aa" * 16, "bb" * 16
SELECTIONS = "  max_epsilon_per_selection: 0.5\n"


def taste_model(catalogue: Catalogue, sign: float = 1.0) -> Recommender:
    """Ranks what is of the same taste first, or last, and of it the rare; its popularity is right."""
    taste = np.arange(len(catalogue)) % 4
    same = sign * (taste[:, None] == taste[None, :]).astype(np.float32)
    rare_first = np.linspace(0.0, 0.1, len(taste), dtype=np.float32)
    return Recommender(same, None, rare_first, np.linspace(2.0, 1.0, len(taste), dtype=np.float32))


def make_joined_silo(root: Path, extra: str = SELECTIONS) -> Path:
    """``shop-a`` with a signed policy and a ledger; ``GOOD`` knows the tastes, ``BAD`` has them reversed."""
    parties = make_federation(root, silos=("shop-a", "shop-b", "shop-c"))
    parties.install_charter()
    public = load_public_set(write_set(root / "set"))
    rows = public.rows.select("user_id", "item_id", "timestamp")
    directory = make_local_silo(parties.parties["shop-a"].directory, public.catalogue, rows)
    (directory / "policy.yaml").write_text(POLICY + extra)
    sign_policy(directory, datetime.now(UTC))
    with Site(directory) as site:
        site.trusted_policy()
    for job, sign in ((BAD, -1.0), (GOOD, 1.0)):
        finish_job(directory, job, local_plan(public.catalogue), taste_model(public.catalogue, sign))
    return directory
