"""What follows new rows without a new job, and what is proposed where that is not enough.

A person's federated list follows by itself: the item side is frozen, and the history that it is applied to is
read when the list is made. Local parts are learnt anew from all rows, not added to: the result is the same to
the last bit, takes seconds, and forgets whoever has opted out since.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.plans.drafting import recalibrate
from policies.plans.plan import Plan
from policies.validation import validate_values
from silo.checkpoints import FILE_NAME as CHECKPOINT_FILE
from silo.finished import Finished
from silo.local.comparing import compare_models
from silo.local.errors import LocalPartsError
from silo.local.files import BLEND_FILE, LocalParts, load_parts, rows_digest, values_digest
from silo.local.fitting import fit_local
from silo.rows import load_rows
from silo.tensor_files import sha256_of

if TYPE_CHECKING:
    from silo.local.sequence_training import SequenceOptions

Notice = Callable[[str], None]


def refresh(
    directory: Path, dataset: str, now: datetime, *, keep: bool, notice: Notice = lambda _: None
) -> dict[str, Any]:
    """Look whether local parts have fallen behind their rows; with ``keep``, learn them anew.

    Where a blend was kept its weights are chosen again, because fitting forgets them.

    Args:
        directory: the silo's.
        dataset: whose local parts.
        now: goes into what is kept.
        keep: learn anew what has fallen behind.
        notice: called with what is being done.

    Returns:
        JSON values: ``state`` (``absent``, ``current``, ``behind`` or ``refreshed``) and ``blend`` (whether
        weights were chosen again).

    Raises:
        LocalPartsError, DataError: the parts or the rows cannot be read.
    """
    if not (directory / "local" / dataset).is_dir():
        return {"state": "absent", "blend": False}
    parts = load_parts(directory, dataset)
    notice("looking for rows that local parts do not know")
    if _is_current(directory, parts):
        return {"state": "current", "blend": False}
    if not keep:
        return {"state": "behind", "blend": False}
    has_blend = (parts.directory / BLEND_FILE).exists()
    notice("learning local parts anew")
    fit_local(directory, parts.source, now, _network_options(parts), notice)
    if has_blend:
        notice("choosing the blend anew")
        compare_models(directory, dataset, now, keep=True)
    return {"state": "refreshed", "blend": has_blend}


def _network_options(parts: LocalParts) -> SequenceOptions | None:
    """Those of the network among the parts, so that it is learnt anew as it was."""
    if parts.card["network"] is None:
        return None
    from silo.local.sequence_training import SequenceOptions

    return SequenceOptions.of_json(parts.card["network"]["options"])


def next_plan(directory: Path, finished: Finished) -> Plan:
    """The plan that would train the federated part again: the same promise, from where the last one ended.

    A model with weights starts from the checkpoint that every silo of the last job has; its catalogue is the
    old one.
    """
    document = finished.plan.model_dump(mode="json", exclude_unset=True)
    checkpoint = directory / "jobs" / finished.job / CHECKPOINT_FILE
    if "start_from" in type(finished.plan.model).model_fields and checkpoint.exists():
        document["model"]["start_from"] = sha256_of(checkpoint)
    return recalibrate(validate_values(document, Plan, "plan"), finished.plan.privacy.target_epsilon)


def _is_current(directory: Path, parts: LocalParts) -> bool:
    rows = load_rows(directory, parts.source.plan, parts.source.dataset)
    said = parts.card.get("rows", {})
    known = said.get("sha256")
    if not isinstance(known, str):
        raise LocalPartsError(
            "the card does not say of which rows",
            where=str(parts.directory),
            remedy="run `archipel fit --local`",
        )
    # Cards that say nothing of weights and times are of an older version: nobody knows.
    is_same = said.get("values_sha256") == values_digest(rows.train)
    return is_same and known == rows_digest(rows.train)
