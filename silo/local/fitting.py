"""``archipel fit --local``: learn a silo's private models from the rows that a plan lets jobs learn from."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import UsageError
from silo.data.splits import NoTimesError
from silo.finished import NoModelError, load_finished
from silo.local.errors import LocalPartsError
from silo.local.files import Source, save_parts
from silo.local.fusion import METRIC
from silo.local.models import LocalModels
from silo.rows import load_rows

if TYPE_CHECKING:
    from silo.local.sequence_training import Look, SequenceOptions


def find_source(directory: Path, job: str | None, plan_file: Path | None) -> Source:
    """Which rows to learn from: those of a finished job, or of a plan under ``policy.yaml``.

    Rows that the plan holds out stay out, so that ``archipel compare`` measures local and federated models
    on rows that neither has seen.

    Args:
        directory: the silo's.
        job: beginning of its handle; None for the newest.
        plan_file: instead of a job.

    Raises:
        UsageError: both are named, the plan is vertical, or the policy has no dataset for its purpose.
        NoModelError: no such job left a model.
    """
    if plan_file is None:
        try:
            finished = load_finished(directory, job)
        except NoModelError as error:
            raise NoModelError(
                error.message, where=error.where, remedy="name a horizontal plan to learn by: --plan FILE"
            ) from error
        return Source(finished.dataset_name, finished.dataset, finished.plan)
    if job is not None:
        raise UsageError("a job has its own plan", where="--plan, --job", remedy="name one of the two")
    plan = load_yaml(plan_file, Plan)
    if plan.is_vertical:
        raise UsageError("the plan is vertical", where=str(plan_file), remedy="name a horizontal plan")
    policy = load_yaml(directory / "policy.yaml", SiloPolicy)
    found = policy.dataset_for(plan.purpose)
    if found is None:
        raise UsageError(
            f"the policy names no dataset for purpose {plan.purpose}",
            where=str(directory / "policy.yaml"),
            remedy="add it to accepts.purposes",
        )
    return Source(*found, plan)


def fit_local(
    directory: Path,
    source: Source,
    now: datetime,
    options: SequenceOptions | None = None,
    notice: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Learn all local models and keep them; returns their card.

    Args:
        directory: the silo's.
        source: which rows.
        now: goes into the card.
        options: of a network over ordered histories; None trains none.
        notice: called with what is being done.

    Raises:
        LocalPartsError: no row is left to learn from, or nothing that a network could learn.
        NoTimesError: a network is wanted and no row has a time.
        DataError: what is wrong with the tables.
    """
    train = load_rows(directory, source.plan, source.dataset).train
    where = f"dataset {source.dataset_name}"
    if not train.num_interactions:
        raise LocalPartsError(
            "no row is left to learn from",
            where=where,
            remedy="see what cleaning leaves out with `archipel data check`",
        )
    if options is None:
        return save_parts(directory, source, LocalModels.fit(train.weights()), train, now)
    without_time, tied = train.disorder()
    if without_time == train.num_interactions:
        raise NoTimesError(
            "no row has a time, so histories have no order",
            where=f"{where}: columns.timestamp",
            remedy="name the column of times in policy.yaml, or leave --architecture out",
        )
    looks: list[Look] = []

    def look(found: Look) -> None:
        looks.append(found)
        notice(f"{options.architecture}, epoch {found.epoch}: {METRIC} {found.quality:.4f}")

    notice(f"training {options.architecture}")
    models = LocalModels.fit(train.weights(), options, look, ordered=train.histories())
    network = {
        "options": options.as_json(),
        "epochs": looks[-1].epoch,
        "validation": {METRIC: looks[-1].best},
        "rows_without_time": without_time,
        "rows_with_equal_times": tied,
    }
    return save_parts(directory, source, models, train, now, network)
