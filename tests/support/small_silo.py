"""One silo's directory in the middle of a training, made without a federation: rows, plan, opened sums."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from policies.plans.drafting import Draft, complete_plan
from policies.plans.plan import Plan
from policies.plans.price import schedule
from policies.silo_policy import Dataset
from privacy.agreement import round_digest
from silo.session import Course, OpenedSum
from tests.contracts.family_contract import make_catalogue, random_histories

SILOS = ("shop-a", "shop-b", "shop-c", "shop-d")
JOB, JOB_ID = "ab" * 16, "cd" * 32
GROUP_KEY = bytes(range(32))


@dataclass
class SmallSilo:
    """A silo directory and one job in it, with whatever sums a test says were opened."""

    directory: Path
    plan: Plan
    dataset: Dataset
    job: str = JOB
    sums: list[OpenedSum] = field(default_factory=list)

    @property
    def job_directory(self) -> Path:
        return self.directory / "jobs" / self.job

    @property
    def course(self) -> Course:
        return Course(self.directory, self.job, JOB_ID, GROUP_KEY, self.plan, tuple(self.sums))

    def course_after(self, rounds: int) -> Course:
        return Course(self.directory, self.job, JOB_ID, GROUP_KEY, self.plan, tuple(self.sums[:rounds]))

    def opened(self, integers: NDArray[np.int64], contributors: int = len(SILOS)) -> None:
        """The next round was opened with these integers, and everybody signed for them."""
        path = self.job_directory / f"aggregate-{len(self.sums) + 1}-1.npy"
        np.save(path, integers)
        canonical = hashlib.sha256(integers.astype("<i8").tobytes()).digest()
        before = self.sums[-1].digest if self.sums else b""
        digest = round_digest(GROUP_KEY, JOB_ID, len(self.sums) + 1, before, canonical)
        self.sums.append(OpenedSum(path, contributors, digest))

    def train(self, rounds: int, *, seed: int = 0) -> None:
        """So many rounds of noise were opened."""
        rng = np.random.default_rng(seed)
        for shape in schedule(self.plan)[len(self.sums) : len(self.sums) + rounds]:
            std = shape.share_std * len(SILOS) ** 0.5
            self.opened(np.rint(rng.normal(0, std, shape.values)).astype(np.int64))

    def write_rows(self, histories: list[list[int]]) -> None:
        rows = [(f"u{user}", f"i{item:04d}") for user, items in enumerate(histories) for item in items]
        pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").write_parquet(
            self.directory / "rows.parquet"
        )

    def write_exclusions(self, *users: str) -> None:
        (self.directory / "no.csv").write_text("\n".join(("user_id", *users, "")))


def small_plan(**changes: Any) -> Plan:
    """A plan of four silos over the contract's catalogue; by default an autoencoder of six rounds."""
    catalogue = make_catalogue()
    fields: dict[str, Any] = {
        "silos": SILOS,
        "catalogue_sha256": catalogue.sha256,
        "catalogue_items": len(catalogue),
        "family": "autoencoder",
        "features": 5,
        "hidden": 3,
        "rounds": 6,
        "bias_epsilon": 0.0,
        "target_epsilon": 4.0,
        "target_delta": 1e-6,
        "max_users_per_silo": 100,
        "max_silos_per_user": 1,
    }
    merged = fields | changes
    if merged["family"] == "autoencoder":
        merged.setdefault("input_dropout", 0.0)  # its coins nobody can repeat
    return complete_plan(Draft(**merged))


def small_silo(directory: Path, plan: Plan | None = None) -> SmallSilo:
    """A directory with rows of 30 users and the plan's catalogue."""
    dataset = Dataset.model_validate(
        {
            "source": {"parquet": "*.parquet"},
            "max_interactions_per_user": 50,
            "population": "customers",
            "max_silos_per_user": 1,
            "exclude_users": "no.csv",
        }
    )
    made = SmallSilo(directory, plan or small_plan(), dataset)
    make_catalogue().save(directory / "catalogues")
    made.job_directory.mkdir(parents=True)
    made.write_rows(random_histories(0))
    made.write_exclusions()
    return made
