"""``local/<dataset>/blend.json``: the weights that lists are made with."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from policies.files import write_atomically
from silo.local.errors import LocalPartsError
from silo.local.files import BLEND_FILE, LocalParts

LOCAL = "local:"
FEDERATED = "federated:"


class KeptBlend(BaseModel):
    """Weights of a blend, and of which models they are.

    Attributes:
        kind: of the document.
        schema_version: of the document.
        chosen_at: when.
        metric: what the weights were chosen by, on the validation users.
        parts_sha256: file of the local models.
        weights: ``local:<name>`` and ``federated:<job>``, sum 1.
        left_out: jobs that could not be compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["LocalBlend"] = "LocalBlend"
    schema_version: Literal[1] = 1
    chosen_at: datetime
    metric: str
    parts_sha256: str
    weights: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    left_out: tuple[str, ...] = ()

    @field_validator("weights")
    @classmethod
    def _sum_to_one(cls, value: dict[str, float]) -> dict[str, float]:
        if not math.isclose(sum(value.values()), 1.0):
            raise ValueError("weights do not sum to 1")
        return value


def save_blend(parts: LocalParts, blend: KeptBlend) -> Path:
    """Keep the weights beside the local models; returns their file."""
    path = parts.directory / BLEND_FILE
    write_atomically(path, blend.model_dump_json(indent=2).encode())
    return path


def newest_blend(directory: Path) -> Path | None:
    """The file of the weights that were kept last, or None."""
    found = (directory / "local").glob(f"*/{BLEND_FILE}")
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def load_blend(parts: LocalParts) -> KeptBlend:
    """Read the weights of ``parts``.

    Raises:
        LocalPartsError: there are none, they are damaged, or they are of other local models.
    """
    path = parts.directory / BLEND_FILE
    remedy = "choose weights with `archipel compare --keep`"
    try:
        blend = KeptBlend.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise LocalPartsError("no blend is kept here", where=str(path), remedy=remedy) from error
    except ValidationError as error:
        raise LocalPartsError("the weights cannot be read", where=str(path), remedy=remedy) from error
    if blend.parts_sha256 != parts.sha256:
        raise LocalPartsError("the weights are of other local models", where=str(path), remedy=remedy)
    return blend
