"""Many options of one command, declared in groups: dataclasses whose fields are the options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeVar

R = TypeVar("R")


def grouped(function: Callable[..., R]) -> Callable[..., R]:
    """Let a command take whole groups of options.

    A keyword parameter whose type is a dataclass stands for the options that its fields declare:
    ``Annotated`` with a ``typer.Option``, and a default where they may be left out. Typer sees the options,
    one by one and in order; the command sees the groups. Put it below ``@command``.

    Args:
        function: with keyword-only parameters; no two options may share a name.
    """
    signature = inspect.signature(function, eval_str=True)
    kinds = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    groups = {name: _options(kind) for name, kind in kinds.items() if is_dataclass(kind)}

    @functools.wraps(function)
    def wrapper(**options: object) -> R:
        packed = {
            name: kinds[name](**{option: options.pop(option) for option in group})
            for name, group in groups.items()
        }
        return function(**packed, **options)

    flat = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in signature.parameters.items()
        for option in groups.get(name, {name: parameter}).values()
    ]
    wrapper.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {option.name: option.annotation for option in flat}
    return wrapper


def _options(group: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(group, eval_str=True).parameters
