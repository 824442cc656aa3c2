"""The schemas that editors use accept what the product writes and refuse what it refuses."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from policies.canonical import digest
from policies.catalog import TEMPLATES, render_template
from policies.documents import PolicyFileError, parse_document
from policies.plans.text import render_plan
from policies.schema import KINDS, editor_line, schema_of, write_schema
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from privacy.errors import UsageError
from tests.contracts.decision_scene import make_plan
from tests.contracts.policy_scene import make_scene
from tests.docs.test_policy_files import fields_of
from tests.support.json_schema import problems

EXAMPLES = Path(__file__).parents[2] / "examples"
EXPIRES = date(2027, 6, 30)
POLICY = schema_of("policy")


def values(text: str) -> Any:
    return parse_document(text.encode(), "file").value


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("partners", [[], ["shop-b", "shop-c", "shop-d"]])
def test_every_template_is_valid_and_names_its_schema(template, partners):
    text = render_template(template, silo="shop-a", expires=EXPIRES, with_members=partners)
    assert problems(POLICY, values(text)) == []
    assert text.splitlines()[0] == f"# {editor_line('policy')}"


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_example_is_valid_and_names_its_schema(path):
    text = path.read_text(encoding="utf-8")
    kind = re.fullmatch(r"# yaml-language-server: \$schema=([a-z]+)\.schema\.json", text.splitlines()[0])
    assert kind is not None
    assert problems(schema_of(kind[1]), values(text)) == []


@pytest.mark.parametrize("family", ["popularity", "item-graph"])
def test_plans_that_the_product_writes(family):
    text = render_plan(make_plan(family=family))
    assert problems(schema_of("plan"), values(text)) == []
    assert text.startswith(f"# {editor_line('plan')}\n")


def test_a_charter():
    assert problems(schema_of("charter"), make_scene().charter.model_dump(mode="json")) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("metrics: noised", "metrix: noised"),
        ("epsilon: 8.0", "epsilon: -1"),
        ("epsilon: 8.0", "epsilon: much"),
        ("min_silos: 3", "min_silos: 1"),
        ("encryption: true", "encryption: false"),
        ("kind: SiloPolicy", "kind: Plan"),
        ("population: customers", "population: Our Customers"),
        ("scope: lifetime", "scope: weekly"),
        ("  min_silos: 3", "  #"),
    ],
)
def test_what_the_product_refuses_is_underlined_while_it_is_typed(old, new):
    text = render_template("retailer", silo="shop-a", expires=EXPIRES, with_members=["shop-b"])
    altered = text.replace(old, new)
    assert altered != text
    with pytest.raises(PolicyFileError):
        parse_yaml(altered.encode(), SiloPolicy, "policy.yaml")
    assert problems(POLICY, values(altered)) != []


@pytest.mark.parametrize("kind", KINDS)
def test_editors_can_say_what_nearly_every_field_means(kind):
    schema = schema_of(kind)
    nodes = [schema, *schema.get("$defs", {}).values()]
    silent = [
        f"{node['title']}.{name}"
        for node in nodes
        for name, field in node.get("properties", {}).items()
        if "description" not in field and name not in ("kind", "schema_version", "family")
    ]
    assert silent == []


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_the_schema(tmp_path, kind):
    path = tmp_path / "x.schema.json"
    schema = write_schema(kind, path)
    assert json.loads(path.read_text()) == schema
    assert {"kind", "schema_version"} <= set(schema["required"])
    assert schema["additionalProperties"] is False


def test_an_unknown_schema_names_those_there_are(tmp_path):
    with pytest.raises(UsageError, match="policy, plan, charter, freeze, requirements"):
        write_schema("ledger", tmp_path / "x")


def test_the_schema_has_the_fields_of_the_model_and_no_other():
    model: type[BaseModel]
    for kind, model in KINDS.items():
        schema = schema_of(kind)
        names = set(schema["properties"])
        for node in schema.get("$defs", {}).values():
            names |= set(node.get("properties", {}))
        assert {path.rsplit(".", 1)[-1] for path in fields_of(model)} == names


def test_comments_and_editor_lines_are_not_signed():
    text = render_template("retailer", silo="shop-a", expires=EXPIRES)
    bare = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    one, two = (parse_yaml(item.encode(), SiloPolicy, "x") for item in (text, bare))
    assert digest(one) == digest(two)
