"""Pydantic's findings as a person needs them: line, field, what is wrong, how to mend it; all at once.

Validators across fields raise ``ValueError("field: message; other.field: message")``; each part is reported
at the line of its field. Values are read strictly: ``"3"`` is no number and ``1`` is no truth value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from policies.documents import Document, Path, PolicyFileError, Problem, dotted, parse_document

ModelT = TypeVar("ModelT", bound=BaseModel)
Finding = Mapping[str, Any]

_FIELD = r"[a-z_]+(?:\.[A-Za-z0-9_-]+)*"
_NEXT_PART = re.compile(rf"; (?={_FIELD}: )")
_PART = re.compile(rf"({_FIELD}): (.*)", re.DOTALL)

_BOUNDS = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}
_TYPES = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "date_type": "a date such as 2027-06-30",
    "date_parsing": "a date such as 2027-06-30",
    "date_from_datetime_parsing": "a date such as 2027-06-30",
    "date_from_datetime_inexact": "a date such as 2027-06-30",
    "tuple_type": "a list such as [a, b]",
    "list_type": "a list such as [a, b]",
    "dict_type": "fields of its own",
    "model_type": "fields of its own",
    "model_attributes_type": "fields of its own",
}
_PATTERNS = {
    "[0-9a-f]{64}": "64 hexadecimal digits (a SHA-256)",
    "[a-z0-9][a-z0-9-]{0,62}": "lower-case letters, digits and hyphens, at most 63",
    "[A-Za-z0-9]([A-Za-z0-9.:-]{0,252}[A-Za-z0-9])?": "a host name or an IP address",
}


def parse_yaml(content: bytes, model: type[ModelT], source: str) -> ModelT:
    """Read YAML bytes as ``model``.

    Args:
        content: the file's bytes.
        model: what it must be.
        source: the file's name, for messages.

    Raises:
        OversizeError: more than 1 MiB.
        PolicyFileError: every problem, with its line.
    """
    return validate_document(parse_document(content, source), model)


def validate_document(document: Document, model: type[ModelT]) -> ModelT:
    """Check the values of a file against ``model``.

    Raises:
        PolicyFileError: every problem, with its line.
    """
    try:
        return model.model_validate_json(json.dumps(document.value), strict=True)
    except ValidationError as error:
        problems = dict.fromkeys(_problems(error, document, model.model_json_schema()))
        raise PolicyFileError(
            document.source, tuple(sorted(problems, key=lambda problem: problem.line))
        ) from error


def validate_values(values: Mapping[str, Any], model: type[ModelT], source: str) -> ModelT:
    """Check JSON values that came from elsewhere than a file (command line, a card).

    Raises:
        PolicyFileError: every problem, without lines.
    """
    return validate_document(Document(source=source, value=dict(values), lines={}), model)


def _problems(error: ValidationError, document: Document, schema: Mapping[str, Any]) -> Iterator[Problem]:
    findings: list[Finding] = [dict(item) for item in error.errors(include_url=False)]
    located = [(_locate(finding, document.value), finding) for finding in findings]
    for path, finding in located:
        if not _is_consequence(path, finding, located):
            yield from _explain(path, finding, document, schema)


def _locate(finding: Finding, value: Any) -> Path:
    """The path in the document: Pydantic's location without names of union branches."""
    path: list[str | int] = []
    steps: Sequence[str | int] = finding["loc"]
    for position, step in enumerate(steps):
        if _has(value, step):
            path.append(step)
            value = value[step]
        elif finding["type"] == "missing" and position == len(steps) - 1:
            path.append(step)
    return tuple(path)


def _is_consequence(path: Path, finding: Finding, located: Sequence[tuple[Path, Finding]]) -> bool:
    """Whether the finding only follows from others: a list short of its bad items, a branch nobody meant."""
    if finding["type"] == "too_short" and isinstance(finding["input"], list | dict):
        return bool(len(finding["input"]) >= finding["ctx"]["min_length"])
    others = [(other, item) for other, item in located if item is not finding]
    if isinstance(finding["input"], dict) and finding["type"] in ("literal_error", "string_type"):
        return any(other[: len(path)] == path and "literal" not in item["type"] for other, item in others)
    if finding["type"] in ("model_type", "model_attributes_type"):
        return any(other == path and item["type"] == "literal_error" for other, item in others)
    return False


def _explain(
    path: Path, finding: Finding, document: Document, schema: Mapping[str, Any]
) -> Iterator[Problem]:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "value_error":
        yield from _explain_rule(path, str(context["error"]), document)
        return
    if kind.startswith("union_tag"):
        path = (*path, str(context["discriminator"]).strip("'"))
        finding = {**finding, "input": context.get("tag")}
    is_name = "[key]" in finding["loc"]
    if kind == "extra_forbidden":
        message, remedy = "unknown field", _suggest_field(path, document.value, schema)
    elif kind in ("missing", "union_tag_not_found"):
        message, remedy = "missing", f"add {path[-1]} here"
    elif kind in ("literal_error", "union_tag_invalid"):
        message, remedy = _explain_choice(finding, context)
    else:
        message, remedy = _explain_value(finding, context)
    if is_name:
        message = f"as a name {message}"
    yield Problem(document.line_of(path), dotted(path), message, remedy)


def _explain_rule(path: Path, text: str, document: Document) -> Iterator[Problem]:
    for part in _NEXT_PART.split(text):
        match = _PART.fullmatch(part)
        inner = (*path, *match[1].split(".")) if match else path
        if match is None or not _may_hold(document.value, inner):
            yield Problem(document.line_of(path), dotted(path), *_halves(part))
            continue
        yield Problem(document.line_of(inner), dotted(inner), *_halves(match[2]))


def _may_hold(value: Any, path: Path) -> bool:
    """Whether all but the last step of ``path`` is there."""
    for step in path[:-1]:
        if not _has(value, step):
            return False
        value = value[step]
    return isinstance(value, dict)


def _has(value: Any, step: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(step, int) and step < len(value)
    return isinstance(value, dict) and step in value


def _halves(text: str) -> tuple[str, str]:
    """Message and remedy of ``what is wrong; what to do``."""
    message, _, remedy = text.partition("; ")
    return message, remedy


def _suggest_field(path: Path, value: Any, schema: Mapping[str, Any]) -> str:
    known = _known_fields(schema, path[:-1], value)
    close = get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"remove it; known here: {', '.join(known)}" if known else "remove it"


def _explain_choice(finding: Finding, context: Mapping[str, Any]) -> tuple[str, str]:
    text = str(context.get("expected") or context.get("expected_tags"))
    choices = re.findall(r"'([^']*)'", text) or [text.lower() if text in ("True", "False") else text]
    found = finding["input"]
    close = get_close_matches(str(found), choices, n=1, cutoff=0.6)
    remedy = f"did you mean {close[0]}?" if close else f"write {' or '.join(choices)}"
    return f"{_shown(found)} is not one of: {', '.join(choices)}", remedy


def _explain_value(finding: Finding, context: Mapping[str, Any]) -> tuple[str, str]:
    kind, found = finding["type"], finding["input"]
    if kind in _BOUNDS:
        word, name = _BOUNDS[kind]
        bound = f"{word} {context[name]:g}"
        return f"{_shown(found)} is not {bound}", f"write a value {bound}"
    if kind in _TYPES:
        quotes = " (in quotes)" if kind == "string_type" and isinstance(found, int | float) else ""
        return f"{_shown(found)} is not {_TYPES[kind]}", f"write {_TYPES[kind]}{quotes}"
    if kind == "string_pattern_mismatch":
        wanted = _PATTERNS.get(str(context["pattern"]).strip("^$"), f"text of the form {context['pattern']}")
        return f"{_shown(found)} is not {wanted}", f"write {wanted}"
    if kind in ("too_long", "too_short"):
        word, limit = ("at most", "max_length") if kind == "too_long" else ("at least", "min_length")
        return f"{context['actual_length']} entries", f"give {word} {context[limit]}"
    if kind in ("string_too_long", "string_too_short"):
        return f"{_shown(found)} is too {kind.rsplit('_', 1)[-1]}", "use a text of usual length"
    return str(finding["msg"]), ""


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def _known_fields(schema: Mapping[str, Any], path: Path, value: Any) -> list[str]:
    """Field names that the schema has at ``path``, over all branches of unions that ``value`` may mean."""
    nodes = _alternatives(schema, schema, value)
    for step in path:
        value = value[step] if _has(value, step) else None
        nodes = [child for node in nodes for child in _children(schema, node, step, value)]
    return list(dict.fromkeys(name for node in nodes for name in node.get("properties", {})))


def _children(
    schema: Mapping[str, Any], node: Mapping[str, Any], step: str | int, value: Any
) -> list[Mapping[str, Any]]:
    if isinstance(step, int):
        child = node.get("items")
    else:
        child = node.get("properties", {}).get(step) or node.get("additionalProperties")
        child = child or next(iter(node.get("patternProperties", {}).values()), None)
    return _alternatives(schema, child, value) if isinstance(child, Mapping) else []


def _alternatives(schema: Mapping[str, Any], node: Mapping[str, Any], value: Any) -> list[Mapping[str, Any]]:
    if "$ref" in node:
        return _alternatives(schema, schema["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]], value)
    branches = [*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())]
    rule = node.get("discriminator", {})
    tag = value.get(rule.get("propertyName")) if isinstance(value, Mapping) else None
    if isinstance(tag, str) and tag in rule.get("mapping", {}):
        branches = [{"$ref": rule["mapping"][tag]}]
    return [leaf for branch in branches for leaf in _alternatives(schema, branch, value)] or [node]
