"""Which model a list is made with: a finished job's, a local one, or the blend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.finished import finished_jobs, load_finished
from silo.local.errors import LocalPartsError
from silo.local.files import LocalParts, Source, load_parts
from silo.local.fusion import Blend
from silo.local.kept import FEDERATED, LOCAL, load_blend, newest_blend
from silo.local.models import RankingModel

BLEND: Final = "blend"
ONLY_FEDERATED: Final = "federated"
TUNED: Final = "tuned"


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model and what it needs.

    Attributes:
        name: ``federated``, ``tuned``, ``blend`` or ``local:<name>``.
        model: itself.
        source: whose rows it reads here.
        catalogue: what it ranks.
        jobs: federated jobs whose models are in it.
        private_parts: parts that are private to this silo.
        note: what a federated model of fewer rounds than planned says of itself, else None.
        uncompared_job: a job that finished after the blend was chosen, else None.
    """

    name: str
    model: RankingModel
    source: Source
    catalogue: Catalogue
    jobs: tuple[str, ...] = ()
    private_parts: tuple[str, ...] = ()
    note: str | None = None
    uncompared_job: str | None = None


def served_model(directory: Path, job: str | None, name: str | None) -> ServedModel:
    """The model that was asked for; without a name the blend where one is kept, unless a job is named.

    Args:
        directory: the silo's.
        job: beginning of a handle; only a federated model has one, tuned or not.
        name: ``blend``, ``federated``, ``tuned``, ``local:<name>`` or None.

    Raises:
        UsageError: no such name, or a job with a model that has none.
        NoModelError, NotTunedError, LocalPartsError: it is not there.
    """
    if name is None:
        has_blend = job is None and newest_blend(directory) is not None
        name = BLEND if has_blend else ONLY_FEDERATED
    if name == ONLY_FEDERATED:
        return _federated(directory, job)
    if name == TUNED:
        return _tuned(directory, job)
    if job is not None:
        raise UsageError(
            f"{name} is no job's model", where="--job, --model", remedy="leave one of the two out"
        )
    if name == BLEND:
        return _blend(directory)
    if name.startswith(LOCAL):
        return _local(load_parts(directory), name)
    raise UsageError(
        f"no model is called {name}", where="--model", remedy="blend, federated, tuned, or local: and a name"
    )


def _federated(directory: Path, job: str | None) -> ServedModel:
    found = load_finished(directory, job)
    source = Source(found.dataset_name, found.dataset, found.plan)
    return ServedModel(
        ONLY_FEDERATED, found.recommender, source, found.catalogue, jobs=(found.job,), note=found.note
    )


def _tuned(directory: Path, job: str | None) -> ServedModel:
    """A job's model with the weights that this silo's people chose: they are private parts of it."""
    from silo.tuning.postprocessing import load_tuned

    found = load_finished(directory, job)
    source = Source(found.dataset_name, found.dataset, found.plan)
    model = load_tuned(directory, found)
    return ServedModel(
        TUNED,
        model,
        source,
        found.catalogue,
        jobs=(found.job,),
        private_parts=("weights of popularity and attributes",),
        note=found.note,
    )


def _local(parts: LocalParts, name: str) -> ServedModel:
    models = _models_of(parts)
    if name not in models:
        raise UsageError(
            f"no model is called {name}", where="--model", remedy=f"there are {', '.join(models)}"
        )
    return ServedModel(name, models[name], parts.source, parts.catalogue, private_parts=(name,))


def _blend(directory: Path) -> ServedModel:
    newest = newest_blend(directory)
    parts = load_parts(directory, None if newest is None else newest.parent.name)
    kept = load_blend(parts)
    weights = {name: weight for name, weight in kept.weights.items() if weight > 0}
    models, finished = _models_of(parts), finished_jobs(directory)
    jobs = tuple(name.removeprefix(FEDERATED) for name in weights if name.startswith(FEDERATED))
    models |= {
        f"{FEDERATED}{job}": load_finished(directory, job).recommender for job in jobs if job in finished
    }
    if gone := sorted(weights.keys() - models.keys()):
        raise LocalPartsError(
            f"{', '.join(gone)} of the blend is not here any more",
            where=str(newest),
            remedy="choose weights with `archipel compare --keep`, or ask for --model federated",
        )
    uncompared = [
        job for job in finished if f"{FEDERATED}{job}" not in kept.weights and job not in kept.left_out
    ]
    return ServedModel(
        BLEND,
        Blend({name: models[name] for name in weights}, weights),
        parts.source,
        parts.catalogue,
        jobs=jobs,
        private_parts=tuple(name for name in weights if name.startswith(LOCAL)),
        uncompared_job=uncompared[-1] if uncompared else None,
    )


def _models_of(parts: LocalParts) -> dict[str, RankingModel]:
    return {f"{LOCAL}{name}": model for name, model in parts.models.scorers().items()}
