"""What every command shares: options, people's output, machine output, and one way to fail.

A command is written ``@app.command() @command def …(directory: Dir = HERE, json_file: Json = None, debug:
Debug = False)``. Whatever it raises ends as one message and the documented exit code; a traceback is shown
with ``--debug`` only. With ``--json -`` standard output belongs to the machine and ``say`` speaks on standard
error.
"""

from __future__ import annotations

import errno
import functools
import inspect
import json
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, ParamSpec, TypeVar, get_args, get_origin

import typer

from privacy.errors import ArchipelError, DataError, ExitCode, HostError, PeerError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.progress import Progress, TaskID

HERE = Path()
DIR_OPTION = typer.Option("--dir", help="The party's directory.", metavar="DIR", file_okay=False)
JSON_OPTION = typer.Option("--json", help="Write the result as JSON; - is standard output.", metavar="FILE")
DEBUG_OPTION = typer.Option("--debug", help="Show a traceback when something fails.")

Dir = Annotated[Path, DIR_OPTION]
Json = Annotated[str | None, JSON_OPTION]
Debug = Annotated[bool, DEBUG_OPTION]

P = ParamSpec("P")
R = TypeVar("R")

_people_on_stderr: ContextVar[bool] = ContextVar("people_on_stderr", default=False)


class MissingFileError(DataError):
    """A file or directory that a command needs is not there."""

    code: ClassVar[str] = "missing_file"


class Speaker:
    """Prints for people: text as it is, or any rich renderable (table, panel, rule)."""

    @property
    def console(self) -> Console:
        """The rich console in use: standard output, or standard error while a machine has that."""
        from rich.console import Console

        return Console(stderr=_people_on_stderr.get(), highlight=False)

    def __call__(self, *objects: object, style: str | None = None) -> None:
        """Print ``objects``; strings are never read as markup and never wrapped."""
        wrapped = not all(isinstance(item, str) for item in objects)
        self.console.print(*objects, style=style, markup=False, emoji=False, soft_wrap=not wrapped)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self(f"warning: {text}", style="yellow")


say = Speaker()


class Advance:
    """Handle on one progress bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def __call__(self, steps: float = 1, *, description: str | None = None) -> None:
        """Go ``steps`` further and, when given, say what is being done now."""
        self._progress.update(self._task, advance=steps, description=description)

    def total(self, steps: float) -> None:
        """Set how many steps there are, once known."""
        self._progress.update(self._task, total=steps)


@contextmanager
def progress(description: str, total: float | None = None) -> Iterator[Advance]:
    """A progress bar on standard error for as long as the block runs; silent where nobody watches.

    Args:
        description: what is being done.
        total: number of steps, None while unknown.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Advance(bar, bar.add_task(description, total=total))


def emit_json(data: BaseModel | Mapping[str, Any] | list[Any], json_file: str | None) -> None:
    """Write machine output where ``--json`` asked for it; nothing when it did not.

    Args:
        data: a model, or JSON values (dates, paths and models inside are written as text and objects).
        json_file: value of the option: a path, ``-`` for standard output, or None.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
    """
    if json_file is None:
        return
    plain = data if isinstance(data, Mapping | list) else _to_json(data)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False, default=_to_json) + "\n"
    if json_file == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    target = Path(json_file)
    scratch = target.with_name(target.name + ".part")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(target)


def command(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a typer command with :func:`guard`; finds its ``Json`` and ``Debug`` options by their type."""
    signature = inspect.signature(function, eval_str=True)
    options = {name: _option_of(parameter.annotation) for name, parameter in signature.parameters.items()}

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = {id(options[name]): value for name, value in bound.arguments.items() if options[name]}
        with guard(debug=bool(given.get(id(DEBUG_OPTION))), json_file=given.get(id(JSON_OPTION))):
            return function(*args, **kwargs)

    return wrapper


@contextmanager
def guard(*, debug: bool = False, json_file: str | None = None) -> Iterator[None]:
    """Turn whatever the block raises into one message and ``SystemExit`` with the documented code.

    Args:
        debug: show the traceback too.
        json_file: value of ``--json``; ``-`` moves people's output to standard error.
    """
    token = _people_on_stderr.set(json_file == "-")
    try:
        yield
    except (typer.Exit, SystemExit, GeneratorExit) as meant:
        # rich answers `archipel … | head` with 1; a reader that has read enough is no failure.
        if isinstance(meant.__context__, BrokenPipeError):
            raise SystemExit(ExitCode.OK) from None
        raise
    except BaseException as error:
        cause = _first_cause(error)
        if isinstance(cause, BrokenPipeError) and _reader_is_gone():
            raise SystemExit(ExitCode.OK) from None
        if _is_usage_error(cause):
            raise cause from None
        if debug:
            traceback.print_exception(error, file=sys.stderr)
        raise SystemExit(report(cause)) from None
    finally:
        _people_on_stderr.reset(token)


def report(error: BaseException) -> ExitCode:
    """Print what happened, where and how to mend it on standard error; returns the exit code."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        _complain("interrupted; what was durable before stays as it is")
        return ExitCode.INTERRUPTED
    known = explain_error(error)
    if known is None:
        text = " ".join(str(error).split())
        _complain(f"error[unexpected] {type(error).__name__}: {text}")
        _complain("how to mend: run the same command with --debug for a traceback, and report it")
        return ExitCode.UNEXPECTED
    place = f"{known.where}: " if known.where else ""
    _complain(f"error[{known.code}] {place}{known.message}")
    if known.remedy:
        _complain(f"how to mend: {known.remedy}")
    return known.exit_code


def explain_error(error: BaseException) -> ArchipelError | None:
    """The project's error for ``error``; None when it is a bug and not a condition of the machine.

    Operating-system and SQLite errors are mapped here and nowhere else.
    """
    if isinstance(error, ArchipelError):
        return error
    if isinstance(error, OSError):
        return _explain_os_error(error)
    if isinstance(error, sqlite3.OperationalError):
        return _explain_sqlite_error(error)
    return None


_HOST_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free some space and run the same command again; nothing was lost"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EROFS: ("the file system is read-only", "choose a directory that can be written"),
    errno.EACCES: ("permission denied", "give this account access, or choose another directory"),
    errno.EPERM: ("the operating system does not permit it", "run as the owner of the directory"),
    errno.EADDRINUSE: ("the port is in use", "stop the other program, or choose another port"),
    errno.EADDRNOTAVAIL: ("this machine does not have that address", "choose an address of this machine"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n) and run again"),
    errno.ENOMEM: ("out of memory", "free memory and run the same command again"),
    errno.EEXIST: ("it exists already", "choose another name, or move the old one away"),
}  # fmt: skip
_MISSING = {errno.ENOENT: "no such file or directory", errno.ENOTDIR: "a part of the path is not a directory",
            errno.EISDIR: "this is a directory, a file was expected"}  # fmt: skip
_SQLITE_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
}


def _explain_os_error(error: OSError) -> ArchipelError:
    where = str(error.filename) if error.filename is not None else None
    if error.errno in _MISSING:
        return MissingFileError(_MISSING[error.errno], where=where, remedy="check the path and --dir")
    if error.errno in _HOST_REMEDIES:
        message, remedy = _HOST_REMEDIES[error.errno]
        return HostError(message, where=where, remedy=remedy)
    if isinstance(error, ConnectionError | TimeoutError):
        return PeerError(
            error.strerror or "the connection failed", where=where, remedy="check address and network"
        )
    return HostError(error.strerror or str(error), where=where, remedy="see the message of the system")


def _explain_sqlite_error(error: sqlite3.OperationalError) -> ArchipelError | None:
    primary = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if primary in _SQLITE_ERRNO:
        return _explain_os_error(OSError(_SQLITE_ERRNO[primary], str(error)))
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return HostError(
            "another process holds the database",
            remedy="wait for it, or stop the other process, and run again",
        )
    if primary == sqlite3.SQLITE_IOERR:
        return HostError("the disk failed to read or write", remedy="check the disk and the space left on it")
    return None


def _first_cause(error: BaseException) -> BaseException:
    """The telling member of an exception group: an interrupt, else ours, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_first_cause(inner) for inner in error.exceptions]
    for wanted in (KeyboardInterrupt, ArchipelError):
        for leaf in leaves:
            if isinstance(leaf, wanted):
                return leaf
    return leaves[0]


def _is_usage_error(error: BaseException) -> bool:
    """Typer prints its own usage errors, with the command's usage line, and exits with 2."""
    return hasattr(error, "show") and isinstance(getattr(error, "exit_code", None), int)


def _option_of(annotation: Any) -> object | None:
    if get_origin(annotation) is not Annotated:
        return None
    known = (DIR_OPTION, JSON_OPTION, DEBUG_OPTION)
    return next((item for item in get_args(annotation)[1:] if any(item is option for option in known)), None)


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


def _reader_is_gone() -> bool:
    """Whether the pipe that broke is standard output (``archipel … | head``); if so, stay silent at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _to_json(value: Any) -> Any:
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
