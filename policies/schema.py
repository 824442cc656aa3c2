"""JSON Schema of the files that people write, with each field's meaning, for editors."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel

from policies.charters.charter import Charter
from policies.files import write_atomically
from policies.freezing import Freeze
from policies.plans.plan import Plan
from policies.requirements import PublishedRequirements
from policies.silo_policy import SiloPolicy
from privacy.errors import UsageError

KINDS: Final[dict[str, type[BaseModel]]] = {
    "policy": SiloPolicy,
    "plan": Plan,
    "charter": Charter,
    "freeze": Freeze,
    "requirements": PublishedRequirements,
}
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a kind of file.

    Args:
        kind: one of :data:`KINDS`.

    Raises:
        UsageError: another kind.
    """
    if kind not in KINDS:
        raise UsageError(f"there is no schema of {kind!r}", remedy=f"choose one of: {', '.join(KINDS)}")
    schema = KINDS[kind].model_json_schema()
    for model in set(_models(KINDS[kind])):
        node = schema if model is KINDS[kind] else schema.get("$defs", {}).get(model.__name__, {})
        for name, text in _meanings(model).items():
            if name in node.get("properties", {}):
                node["properties"][name].setdefault("description", text)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def write_schema(kind: str, path: Path) -> dict[str, Any]:
    """Write, and return, the JSON Schema of a kind of file.

    Args:
        kind: one of :data:`KINDS`.
        path: where it goes.

    Raises:
        UsageError: another kind.
        OSError: the disk is full or not writable.
    """
    schema = schema_of(kind)
    write_atomically(path, (json.dumps(schema, indent=2) + "\n").encode("utf-8"))
    return schema


def editor_line(kind: str) -> str:
    """Return the comment by which editors find a file's schema beside it, without ``#``."""
    return f"yaml-language-server: $schema={kind}.schema.json"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    else:
        for argument in get_args(annotation):
            yield from _models(argument)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a model and its bases say of each field."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        text = inspect.cleandoc(base.__doc__ or "") if issubclass(base, BaseModel) else ""
        attributes = text.partition("Attributes:\n")[2]
        found |= {name: " ".join(words.split()) for name, words in _ATTRIBUTE.findall(attributes)}
    return found
