"""``archipel export`` and ``compress``: which model, under which terms, into which files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from privacy.errors import DeniedError, UsageError
from silo.evaluation import NothingToEvaluateError
from silo.export.index import IndexedModel, ItemIndex, vectors_of
from silo.export.measuring import (
    MADE_UP_USERS,
    PrivateFigures,
    made_up_histories,
    measure_privately,
    top_overlap,
)
from silo.export.pruning import pruned
from silo.export.scorers import ExportableModel, exportable
from silo.export.writing import Format, model_bytes
from silo.extras import require_extra
from silo.finished import MODEL_FILE, left_by_job
from silo.local.files import STATEMENT
from silo.local.serving import ServedModel, served_model
from silo.outputs import new_file, refuse_existing
from silo.rows import load_rows

FIGURES_STATEMENT: Final = (
    "Measured on this silo's own people without noise: for this organisation only. "
    "Do not hand it on with the model."
)


class PrivateModelError(DeniedError):
    """A model made of the silo's rows without noise was about to become a file for other programs."""

    code = "private_model"


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the model.
        card_path: what may be said of it, beside it.
        card: the same.
        figures_path: what may not; None where nothing was measured on people.
        figures: the same.
    """

    path: Path
    card_path: Path
    card: dict[str, Any]
    figures_path: Path | None = None
    figures: PrivateFigures | None = None


def export_model(
    directory: Path, job: str | None, name: str, kind: Format, out: Path, *, is_private_allowed: bool
) -> Exported:
    """Write a model as it is.

    Args:
        directory: the silo's.
        job: beginning of a handle, of a federated model; None for the newest.
        name: ``federated`` or ``local:NAME``.
        kind: format.
        out: new file; its card goes beside it.
        is_private_allowed: somebody said that a model without noise may become a file.

    Raises:
        PrivateModelError: it is made without noise, and nobody said so.
        NotExportableError: a blend, or too large.
        OutputExistsError: a name is taken.
        MissingExtraError: packages are missing.
    """
    card_path = _beside(out, "card")
    served = _find(directory, job, name, is_private_allowed, out, card_path)
    model = exportable(served.name, served.model)
    card = _card(directory, served, model) | {"format": kind}
    content = model_bytes(model, served.catalogue, kind, card)
    if kind == "index":
        card |= _index_figures(model)
    return _write(out, content, card_path, card | {"bytes": len(content)})


def compress_model(
    directory: Path, job: str | None, name: str, out: Path, *, is_int8: bool, prune: float | None,
    is_private_allowed: bool, notice: Callable[[str], None] = lambda _: None,
) -> Exported:  # fmt: skip
    """Write a smaller ONNX file, and measure what it lost.

    Args:
        directory: as :func:`export_model`.
        job: as :func:`export_model`.
        name: as :func:`export_model`.
        out: new file; its card and the private figures go beside it.
        is_int8: one byte a value of the tables.
        prune: share of the dimensions that goes, or None.
        is_private_allowed: as :func:`export_model`.
        notice: called with what is being done.

    Raises:
        UsageError: neither way of compressing, or a share out of range; else as :func:`export_model`.
    """
    if not is_int8 and prune is None:
        raise UsageError(
            "nothing says how to compress", where="--int8, --prune", remedy="write --int8, or --prune 0.5"
        )
    require_extra("export", "onnx", "onnxruntime")
    card_path, figures_path = _beside(out, "card"), _beside(out, "figures")
    served = _find(directory, job, name, is_private_allowed, out, card_path, figures_path)
    before = exportable(served.name, served.model)
    notice("compressing")
    smaller = before if prune is None else pruned(before, prune)
    card = _card(directory, served, before) | {"format": "onnx", "int8": is_int8, "pruned": prune or 0.0}
    content = model_bytes(smaller, served.catalogue, "onnx", card, is_int8=is_int8)
    whole = model_bytes(before, served.catalogue, "onnx", card)
    notice("measuring on made-up histories")
    card |= _public_figures(before, whole, content)
    notice("measuring on this silo's rows")
    figures = _private_figures(directory, served, before, content)
    written = _write(out, content, card_path, card)
    if figures is None:
        return written
    said = {"kind": "CompressionFigures", "statement": FIGURES_STATEMENT, **asdict(figures)}
    with new_file(figures_path) as file:
        file.write(json.dumps(said, indent=2).encode())
    return Exported(out, card_path, written.card, figures_path, figures)


def _find(
    directory: Path, job: str | None, name: str, is_private_allowed: bool, *outputs: Path
) -> ServedModel:
    for path in outputs:
        refuse_existing(path)
    served = served_model(directory, job, name)
    if served.private_parts and not is_private_allowed:
        raise PrivateModelError(
            f"{', '.join(served.private_parts)} is made of this silo's rows without noise",
            where=f"--model {name}",
            remedy="keep it here; if the file stays inside this organisation, say so with --allow-private",
        )
    return served


def _card(directory: Path, served: ServedModel, model: ExportableModel) -> dict[str, Any]:
    card: dict[str, Any] = {
        "kind": "ExportedModel",
        "schema_version": 1,
        "model": served.name,
        "job": served.jobs[0] if served.jobs else None,
        "is_private_to_silo": bool(served.private_parts),
        "statement": STATEMENT if served.private_parts else None,
        "catalogue_sha256": served.catalogue.sha256,
        "items": model.num_items,
        "dimensions": model.dimensions,
        "formula": model.formula,
        "note": served.note,
    }
    if model.about:
        card["network"] = dict(model.about)
    if served.jobs:
        left = left_by_job(directory, served.jobs[0], MODEL_FILE)
        of_job = json.loads((left.parent / "model-card.json").read_bytes())
        if not served.private_parts:
            card["statement"] = of_job.get("privacy", {}).get("statement")
        card["privacy"] = of_job.get("privacy")
    return card


def _index_figures(model: ExportableModel) -> dict[str, Any]:
    """Bytes of the items as they were, and what became of lists on made-up histories."""
    model = model.balanced()
    items = vectors_of(model, "--format index")
    indexed = IndexedModel(model, ItemIndex.of(items))
    return {
        "bytes_before": items.vectors.nbytes + items.bias.nbytes + items.popularity.nbytes,
        "made_up_users": MADE_UP_USERS,
        "top_10_overlap": top_overlap(model, indexed, made_up_histories(model.popularity)),
    }


def _public_figures(before: ExportableModel, whole: bytes, content: bytes) -> dict[str, Any]:
    from silo.export.running import OnnxScorer, milliseconds_a_user

    nobody = made_up_histories(before.popularity)
    first, second = OnnxScorer.of(whole), OnnxScorer.of(content)
    return {
        "bytes": len(content),
        "bytes_before": len(whole),
        "milliseconds_a_user": milliseconds_a_user(second, nobody),
        "milliseconds_a_user_before": milliseconds_a_user(first, nobody),
        "made_up_users": MADE_UP_USERS,
        "top_10_overlap": top_overlap(before, second, nobody),
    }


def _private_figures(
    directory: Path, served: ServedModel, before: ExportableModel, content: bytes
) -> PrivateFigures | None:
    from silo.export.running import OnnxScorer

    rows = load_rows(directory, served.source.plan, served.source.dataset)
    try:
        return measure_privately(before, OnnxScorer.of(content), rows.train, rows.held_out)
    except NothingToEvaluateError:
        return None


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.name}.{what}.json")


def _write(out: Path, content: bytes, card_path: Path, card: dict[str, Any]) -> Exported:
    with new_file(out) as file:
        file.write(content)
    with new_file(card_path) as file:
        file.write(json.dumps(card, indent=2).encode())
    return Exported(out, card_path, card)
