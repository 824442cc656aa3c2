"""A model for a silo that was in no job: weights that others trained, over this silo's own item texts.

Only weights that name no item can be adopted, so only those of plans where each silo ranks a list of its own.
It is post-processing of what the job released: no row is read, nothing is charged, nothing leaves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.canonical import canonical_bytes, digest
from policies.files import load_yaml, save_yaml, write_atomically
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import UsageError
from silo.checkpoints import add_checkpoint, load_checkpoint
from silo.data.catalogue import Catalogue
from silo.finished import ADOPTED, MODEL_FILE, NoModelError
from silo.language.places import place_items
from silo.rows import plan_catalogue

if TYPE_CHECKING:
    from silo.language.encoder import Notice


def adopt(
    directory: Path,
    plan_file: Path,
    checkpoint: Path,
    *,
    reference: Path | None = None,
    notice: Notice | None = None,
) -> dict[str, Any]:
    """Write ``adopted/…``: a model like a job's own, which ``recommend`` finds.

    Args:
        directory: the silo's; its policy.yaml maps the plan's purpose to a dataset with an ``item_list``.
        plan_file: of the job that trained the weights.
        checkpoint: what it left.
        reference: the plan's public texts, where ``catalogues/`` lacks them.
        notice: told (texts done, texts in all) while texts are encoded.

    Returns:
        Name, digests and sizes, as JSON values.

    Raises:
        UsageError: a plan over one shared catalogue.
        NoModelError: the policy has no dataset for the plan's purpose.
        DataError: a checkpoint of another plan; no item list, reference or encoder here.
    """
    from silo.models.base import get_family

    plan = load_yaml(plan_file, Plan)
    if plan.catalogue.kind != "per_silo":
        raise UsageError(
            "the weights of this plan belong to one list of items",
            where=str(plan_file),
            remedy="adopt those of a language plan, or take part in a job",
        )
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    named = policy.dataset_for(plan.purpose)
    if named is None:
        raise NoModelError(
            f"policy.yaml has no dataset for {plan.purpose}",
            where=str(directory / "policy.yaml"),
            remedy="map the purpose to a dataset in accepts.purposes",
        )
    own = plan_catalogue(directory, plan, named[1])
    if reference is not None:
        Catalogue.load(reference, plan.catalogue.sha256).save(directory / "catalogues")
    sha256, kept = add_checkpoint(directory, checkpoint)
    family = get_family(plan)(plan, place_items(directory, plan, own, notice), start=load_checkpoint(kept))
    made = {
        "job": f"{ADOPTED}-{sha256[:16]}",
        "family": plan.model.family,
        "checkpoint": sha256,
        "plan_sha256": digest(plan),
        "catalogue_sha256": own.sha256,
        "items": len(own),
        "silos": plan.num_silos,
        "epsilon": 0.0,
    }
    place = directory / ADOPTED / str(made["job"])
    place.mkdir(parents=True, exist_ok=True)
    save_yaml(place / "plan.yaml", plan)
    write_atomically(place / "policy.json", canonical_bytes(policy))
    write_atomically(place / "model-card.json", json.dumps(made, indent=2).encode())
    part = place / "model.part"
    family.finish(family.initial_state()).save(part, {"catalogue_sha256": own.sha256})
    part.replace(place / MODEL_FILE)
    return made
