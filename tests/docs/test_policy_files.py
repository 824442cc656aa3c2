"""``docs/reference-policy-files.md`` against the models: every field, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from policies.charters.charter import Card, Charter
from policies.freezing import Freeze
from policies.plans.plan import Plan
from policies.requirements import PublishedRequirements
from policies.silo_policy import SiloPolicy

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference-policy-files.md").read_text(encoding="utf-8")


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every path of a model; a mapping's keys are written ``*``, a list's places nothing."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner, star in models_in(field.annotation):
            yield from fields_of(inner, f"{prefix}{name}.{'*.' if star else ''}")


def models_in(annotation: Any) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, False
        return
    is_mapping = get_origin(annotation) is dict
    for argument in get_args(annotation):
        for inner, star in models_in(argument):
            yield inner, star or is_mapping


def documented(heading: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \| \S.* \|", section, re.MULTILINE)


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("policy.yaml", SiloPolicy),
        ("plan.yaml", Plan),
        ("charter.yaml", Charter),
        ("card.json", Card),
        ("freeze.yaml", Freeze),
        ("requirements.json", PublishedRequirements),
    ],
)
def test_every_field_stands_in_the_table_once(heading: str, model: type[BaseModel]) -> None:
    rows = documented(heading)
    assert sorted(rows) == sorted(set(rows))
    assert set(rows) == set(fields_of(model))
