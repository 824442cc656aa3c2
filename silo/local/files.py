"""``local/<dataset>/parts.safetensors``: a silo's private models, with where they come from; and their card.

Models and origin are one file, so a crash leaves the old ones or the new ones. ``card.json`` repeats for
people what the file says. The directory is readable by its owner only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from policies.files import write_atomically
from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.local.errors import LocalPartsError
from silo.local.models import LocalModels
from silo.rows import plan_catalogue
from silo.tensor_files import load_tables, save_tables, sha256_of

KIND: Final = "archipel-local-parts/v1"
PARTS_FILE: Final = "parts.safetensors"
CARD_FILE: Final = "card.json"
BLEND_FILE: Final = "blend.json"
STATEMENT: Final = (
    "Private to this silo: made of its own rows without noise. No part of it is sent to anybody, so it costs "
    "no epsilon; no epsilon covers it either. Do not publish it or hand it on."
)


@dataclass(frozen=True)
class Source:
    """The rows that models may be learnt from, as a plan and a policy say.

    Attributes:
        dataset_name: as the policy calls it.
        dataset: from the policy.
        plan: names catalogue, caps and holdout.
    """

    dataset_name: str
    dataset: Dataset
    plan: Plan

    def terms(self) -> dict[str, Any]:
        """What decides which rows are learnt from and which are held out: equal terms, equal split."""
        return {
            "dataset": self.dataset_name,
            "source": self.dataset.source.model_dump(mode="json"),
            "columns": self.dataset.columns.model_dump(mode="json"),
            "events": self.dataset.events,
            "min_rating": self.dataset.min_rating,
            "catalogue_sha256": self.plan.catalogue.sha256,
            **({"item_list": self.dataset.item_list} if self.plan.catalogue.kind == "per_silo" else {}),
            "max_interactions_per_user": min(
                self.plan.max_interactions_per_user, self.dataset.max_interactions_per_user
            ),
            "holdout": self.plan.holdout.model_dump(mode="json"),
        }


@dataclass(frozen=True, eq=False)
class LocalParts:
    """Local models as they were kept.

    Attributes:
        directory: ``local/<dataset>`` of the silo.
        source: what they were learnt from.
        catalogue: what they rank.
        models: themselves.
        card: what ``card.json`` says.
        sha256: of the file.
    """

    directory: Path
    source: Source
    catalogue: Catalogue
    models: LocalModels
    card: dict[str, Any]
    sha256: str


def save_parts(
    directory: Path,
    source: Source,
    models: LocalModels,
    train: Interactions,
    fitted_at: datetime,
    network: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Keep local models; weights chosen for earlier ones are removed first.

    Args:
        directory: the silo's.
        source: what they were learnt from.
        models: the models.
        train: the very rows.
        fitted_at: now.
        network: of a network over ordered histories: how it was trained, JSON values.

    Returns:
        Their card.
    """
    card = {
        "kind": "LocalCard",
        "schema_version": 1,
        "is_private_to_silo": True,
        "statement": STATEMENT,
        "fitted_at": fitted_at.isoformat(timespec="seconds"),
        "terms": source.terms(),
        "rows": {
            "users": train.num_users,
            "interactions": train.num_interactions,
            "sha256": rows_digest(train),
            "values_sha256": values_digest(train),
        },
        "models": list(models.scorers()),
        "network": None if models.sequence is None else {**models.sequence.about(), **(network or {})},
    }
    place = directory / "local" / source.dataset_name
    for made in (place.parent, place):
        made.mkdir(mode=0o700, exist_ok=True)
    (place / BLEND_FILE).unlink(missing_ok=True)
    about = {
        "card": json.dumps(card),
        "dataset_name": source.dataset_name,
        "dataset": source.dataset.model_dump_json(),
        "plan": source.plan.model_dump_json(),
    }
    save_tables(place / PARTS_FILE, KIND, models.tables(), about)
    write_atomically(place / CARD_FILE, json.dumps(card, indent=2).encode())
    return card


def load_parts(directory: Path, dataset: str | None = None) -> LocalParts:
    """Load the local models of a dataset, or those that were fitted last.

    Raises:
        LocalPartsError: there are none, or the tables do not fit.
        TensorFileError: the file is damaged.
    """
    found = sorted(
        (directory / "local").glob(f"{dataset or '*'}/{PARTS_FILE}"), key=lambda path: path.stat().st_mtime
    )
    if not found:
        raise LocalPartsError(
            f"no local models{f' of dataset {dataset}' if dataset else ''} here",
            where=str(directory / "local"),
            remedy="make them with `archipel fit --local`",
        )
    path = found[-1]
    tables, about = load_tables(path, KIND)
    source, card = _origin(about, path)
    catalogue = plan_catalogue(directory, source.plan, source.dataset)
    try:
        models = LocalModels.of_tables(tables, len(catalogue), card.get("network"))
    except LocalPartsError as error:
        raise LocalPartsError(error.message, where=str(path), remedy=error.remedy) from error
    return LocalParts(path.parent, source, catalogue, models, card, sha256_of(path))


def _origin(about: dict[str, Any], path: Path) -> tuple[Source, dict[str, Any]]:
    try:
        source = Source(
            str(about["dataset_name"]),
            Dataset.model_validate_json(about["dataset"]),
            Plan.model_validate_json(about["plan"]),
        )
        return source, dict(json.loads(about["card"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise LocalPartsError(
            "the file does not say what its models were learnt from",
            where=str(path),
            remedy="run `archipel fit --local` again",
        ) from error


def rows_digest(interactions: Interactions) -> str:
    """SHA-256, hex, of who touched what; for weights and times see :func:`values_digest`."""
    digest = hashlib.sha256(json.dumps(interactions.user_ids).encode())
    for column in ("user_index", "item_index"):
        digest.update(interactions.frame[column].to_numpy().astype("<u4").tobytes())
    return digest.hexdigest()


def values_digest(interactions: Interactions) -> str:
    """SHA-256, hex, of each row's weight and time, which neighbours, graph and network learn from."""
    frame = interactions.frame
    times = frame["timestamp"].fill_null(np.iinfo(np.int64).min)
    digest = hashlib.sha256(frame["weight"].to_numpy().astype("<f4").tobytes())
    digest.update(times.to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()
