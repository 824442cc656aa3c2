"""Many options of one command, declared in groups: dataclasses whose fields are the options."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from typer.core import TyperCommand
from typer.models import OptionInfo

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


class SectionedCommand(TyperCommand):
    """A command whose ``--help`` shows each group of options under the first line of its docstring."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group, in order; options of no group come first."""
        sections: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = getattr(parameter, "rich_help_panel", None) or "Options"
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def given_options(groups: Iterable[object]) -> Iterator[str]:
    """Yield the options of some groups that somebody decided, as they are written: ``--max-grad-norm``.

    Args:
        groups: whose options may all be left out; a value that is not the default was decided.
    """
    for group in groups:
        declared = _options(type(group))
        for field in fields(group):  # type: ignore[arg-type]
            if getattr(group, field.name) != field.default:
                yield _flag(declared[field.name])


def _options(group: Any) -> Mapping[str, inspect.Parameter]:
    """The options of a group, each knowing the group's title."""
    title = (inspect.getdoc(group) or "").partition("\n")[0].rstrip(".")
    return {
        name: option.replace(annotation=_entitled(option.annotation, title))
        for name, option in inspect.signature(group, eval_str=True).parameters.items()
    }


def _entitled(annotation: Any, title: str) -> Any:
    marked = copy.copy(annotation)
    metadata = []
    for told in annotation.__metadata__:
        option = copy.copy(told)
        if isinstance(option, OptionInfo):
            option.rich_help_panel = title
        metadata.append(option)
    marked.__metadata__ = tuple(metadata)
    return marked


def _flag(option: inspect.Parameter) -> str:
    """How an option is written; Typer takes its first name, too, where a default would stand."""
    names = (
        name
        for told in option.annotation.__metadata__
        for name in (told.default, *(told.param_decls or ()))
        if isinstance(name, str) and name.startswith("--")
    )
    return next(names, "--" + option.name.replace("_", "-"))
