"""As much of JSON Schema (2020-12) as the product's own schemas use; an unknown keyword is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "integer": (int,),
    "number": (int, float),
}
_SAID = {"title", "description", "default", "$schema", "$defs", "discriminator", "format", "examples"}


def problems(
    schema: Mapping[str, Any], value: Any, root: Mapping[str, Any] | None = None, at: str = ""
) -> list[str]:
    """Everything that keeps ``value`` from being valid under ``schema``."""
    return list(_problems(schema, value, root or schema, at))


def _problems(schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], at: str) -> Iterator[str]:
    for keyword, rule in schema.items():
        if keyword in _SAID:
            continue
        if keyword == "$ref":
            yield from _problems(root["$defs"][rule.rsplit("/", 1)[-1]], value, root, at)
        elif keyword in ("anyOf", "oneOf"):
            fitting = [branch for branch in rule if not problems(branch, value, root, at)]
            if not fitting or (keyword == "oneOf" and len(fitting) > 1):
                yield f"{at}: fits {len(fitting)} of {len(rule)} alternatives"
        elif keyword == "type":
            is_bool = isinstance(value, bool) and rule in ("integer", "number")
            if is_bool or not isinstance(value, _TYPES[rule]):
                yield f"{at}: {value!r} is no {rule}"
        else:
            yield from _limits(keyword, rule, schema, value, root, at)


def _limits(
    keyword: str, rule: Any, schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], at: str
) -> Iterator[str]:
    number = value if isinstance(value, int | float) else None
    length = len(value) if isinstance(value, str | list | dict) else None
    checks = {
        "enum": lambda: value in rule,
        "const": lambda: value == rule,
        "minimum": lambda: number is None or number >= rule,
        "maximum": lambda: number is None or number <= rule,
        "exclusiveMinimum": lambda: number is None or number > rule,
        "exclusiveMaximum": lambda: number is None or number < rule,
        "pattern": lambda: not isinstance(value, str) or re.search(rule, value),
        "minLength": lambda: not isinstance(value, str) or len(value) >= rule,
        "maxLength": lambda: not isinstance(value, str) or len(value) <= rule,
        "minItems": lambda: not isinstance(value, list) or len(value) >= rule,
        "maxItems": lambda: not isinstance(value, list) or len(value) <= rule,
        "minProperties": lambda: not isinstance(value, dict) or len(value) >= rule,
        "maxProperties": lambda: not isinstance(value, dict) or (length or 0) <= rule,
        "required": lambda: not isinstance(value, dict) or set(rule) <= value.keys(),
    }
    if keyword in checks:
        if not checks[keyword]():
            yield f"{at}: {keyword} {rule!r} does not hold for {value!r}"
    elif keyword == "items":
        for number_of, item in enumerate(value if isinstance(value, list) else ()):
            yield from _problems(rule, item, root, f"{at}[{number_of}]")
    elif keyword == "properties":
        for name, item in (value if isinstance(value, dict) else {}).items():
            if name in rule:
                yield from _problems(rule[name], item, root, f"{at}.{name}")
    elif keyword in ("additionalProperties", "patternProperties", "propertyNames"):
        yield from _others(keyword, rule, schema, value, root, at)
    else:
        yield f"{at}: this checker does not know {keyword}"


def _others(
    keyword: str, rule: Any, schema: Mapping[str, Any], value: Any, root: Mapping[str, Any], at: str
) -> Iterator[str]:
    for name, item in (value if isinstance(value, dict) else {}).items():
        if keyword == "propertyNames":
            yield from _problems(rule, name, root, f"{at}.{name} (name)")
        elif keyword == "patternProperties":
            for pattern, inner in rule.items():
                if re.search(pattern, name):
                    yield from _problems(inner, item, root, f"{at}.{name}")
        elif name not in schema.get("properties", {}) and not any(
            re.search(pattern, name) for pattern in schema.get("patternProperties", {})
        ):
            if rule is False:
                yield f"{at}: {name} is unknown"
            elif rule is not True:
                yield from _problems(rule, item, root, f"{at}.{name}")
