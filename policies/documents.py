"""YAML text to JSON values that remember their lines. Pure: bytes in, values out.

Only what a policy needs is YAML here: mappings, lists, plain scalars and comments. Anchors, merge keys, tags,
duplicate keys and a second document are refused, because a reader would not see what they do. ``yes`` is a
word, not a truth value; dates stay text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from privacy.errors import DataError, TrustError

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 32

Path: TypeAlias = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]{1,3})?")


class OversizeError(TrustError):
    """More bytes than anybody would sign."""

    code: ClassVar[str] = "oversize"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a file.

    Attributes:
        line: counted from 1; 0 = the file as a whole.
        field: dotted path, empty for the document itself.
        message: what is wrong.
        remedy: how to mend it.
    """

    line: int
    field: str
    message: str
    remedy: str

    def place(self, source: str) -> str:
        """``policy.yaml:12``."""
        return f"{source}:{self.line}" if self.line else source

    @property
    def text(self) -> str:
        """``budgets.customers.epsilon: must be above 0``."""
        return f"{self.field}: {self.message}" if self.field else self.message


class PolicyFileError(DataError):
    """A policy file that does not say what it must; carries every problem at once.

    Attributes:
        source: name of the file.
        problems: in the order of their lines.
    """

    code: ClassVar[str] = "policy_file"

    def __init__(self, source: str, problems: tuple[Problem, ...]) -> None:
        self.source = source
        self.problems = problems
        if len(problems) == 1:
            only = problems[0]
            super().__init__(only.text, where=only.place(source), remedy=only.remedy or None)
            return
        lines = [
            f"  {problem.place(source)}: {problem.text}"
            + (f"\n      how to mend: {problem.remedy}" if problem.remedy else "")
            for problem in problems
        ]
        super().__init__("\n".join([f"{len(problems)} problems", *lines]), where=source)


@dataclass(frozen=True, slots=True)
class Document:
    """JSON values of a file and the line each of them starts on."""

    source: str
    value: Any
    lines: dict[Path, int] = field(repr=False)

    def line_of(self, path: Path) -> int:
        """Line of the value at ``path``, or of its nearest parent."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 0


def check_size(content: bytes, source: str) -> bytes:
    """Accept at most ``MAX_FILE_BYTES``.

    Raises:
        OversizeError: more.
    """
    if len(content) > MAX_FILE_BYTES:
        raise OversizeError(
            f"more than {MAX_FILE_BYTES} bytes, nothing of it was read",
            where=source,
            remedy="this is no policy file; restore the right one",
        )
    return content


def parse_document(content: bytes, source: str) -> Document:
    """Read YAML.

    Args:
        content: the file's bytes, UTF-8.
        source: its name, for messages.

    Raises:
        OversizeError: more than 1 MiB.
        PolicyFileError: not YAML, or YAML beyond what is allowed here.
    """
    check_size(content, source)
    try:
        root = _compose(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PolicyFileError(
            source, (Problem(0, "", "this is not UTF-8 text", "save it as UTF-8"),)
        ) from error
    except RecursionError as error:
        raise PolicyFileError(source, (_too_deep(0, ""),)) from error
    except YAMLError as error:
        raise PolicyFileError(source, (_syntax_problem(error),)) from error
    if root is None:
        raise PolicyFileError(source, (Problem(0, "", "the file is empty", "start from a template"),))
    reader = _Reader()
    value = reader.read(root, ())
    if reader.problems:
        raise PolicyFileError(source, tuple(sorted(reader.problems, key=lambda problem: problem.line)))
    return Document(source=source, value=value, lines=reader.lines)


def dotted(path: Path) -> str:
    """``members[2].silo`` of ``("members", 2, "silo")``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _compose(text: str) -> Node | None:
    composed: Node | None = YAML(typ="safe", pure=True).compose(text)
    return composed


def _syntax_problem(error: YAMLError) -> Problem:
    remedy = "look for a missing colon, quote or bracket, or a wrong indentation, at or above this line"
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return Problem(
            0, "", "this is not YAML: a character that text files do not have", "save it as plain text"
        )
    line = error.problem_mark.line + 1
    if "another document" in (error.problem or ""):
        return Problem(line, "", "a second document starts here", "keep one document in a file")
    return Problem(line, "", f"this is not YAML: {error.problem or error.context}", remedy)


def _too_deep(line: int, name: str) -> Problem:
    return Problem(line, name, f"nested more than {MAX_DEPTH} deep", "no policy needs this; remove it")


class _Reader:
    """Turns nodes into values and notes lines and problems on the way."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.problems: list[Problem] = []
        self._visited: set[int] = set()

    def read(self, node: Node, path: Path) -> Any:
        line = self.lines.setdefault(path, node.start_mark.line + 1)
        if len(path) > MAX_DEPTH:
            self.problems.append(_too_deep(line, dotted(path)))
            return None
        if id(node) in self._visited:
            self._refuse(line, path, "an alias (*name) is not allowed here", "write the value out")
            return None
        self._visited.add(id(node))
        if isinstance(node, MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and node.tag == _TAG + "seq":
            return [self.read(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and _short_tag(node) in _SCALARS:
            return self._scalar(node, path)
        self._refuse(line, path, f"the tag {node.tag} is not allowed here", "remove the tag")
        return None

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, line, child in self._entries(node, path):
            if name in values:
                first = self.lines[(*path, name)]
                self._refuse(
                    line, (*path, name), f"stands here twice, first on line {first}", "keep one of them"
                )
                continue
            self.lines[(*path, name)] = line
            values[name] = self.read(child, (*path, name))
        return values

    def _entries(self, node: MappingNode, path: Path) -> Iterator[tuple[str, int, Node]]:
        for key, child in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, ScalarNode) and key.tag == _TAG + "str":
                yield key.value, line, child
            elif isinstance(key, ScalarNode) and key.tag == _TAG + "merge":
                self._refuse(line, path, "a merge key (<<) is not allowed here", "write the fields out")
            else:
                self._refuse(line, path, "a field name that is not a word", "put it in quotes")

    def _scalar(self, node: ScalarNode, path: Path) -> Any:
        try:
            return _SCALARS[_short_tag(node)](node.value)
        except ValueError as error:
            self._refuse(
                node.start_mark.line + 1, path, f"{node.value[:40]}: {error}", "write a plain number"
            )
            return None

    def _refuse(self, line: int, path: Path, message: str, remedy: str) -> None:
        self.problems.append(Problem(line, dotted(path), message, remedy))


def _short_tag(node: Node) -> str:
    return str(node.tag).removeprefix(_TAG)


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise ValueError("not a plain decimal number")
    return int(text)


def _float(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError("not a finite decimal number")
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("too large for a number")
    return value


def _truth(text: str) -> bool | str:
    return {"true": True, "false": False}.get(text.lower(), text)


_SCALARS: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": _integer,
    "float": _float,
    "bool": _truth,
    "null": lambda _: None,
    "timestamp": str,
}
