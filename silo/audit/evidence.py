"""What an auditor is handed: a silo's directory, or a bundle exported from one. Read, never written.

Both hold the same: the ledger's entries, and the files that digests and receipts of those entries name.
Everything else of a directory (keys, rows, models, the outbox, logs) is not evidence and is never opened.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from policies.charters.charter import Card
from policies.documents import Document
from policies.files import read_limited
from policies.validation import validate_document
from privacy.errors import DataError
from privacy.ledger.chain import Entry, LogReader, Row

LEDGER = "ledger.db"
CARD = "card.json"
POLICY = "policy.yaml"
CHARTER = "charter.yaml"
FREEZES = ("freeze.yaml", "policies/freeze.yaml")

_FILE = re.compile(
    r"card\.json"
    r"|(?:charter|policy|freeze)\.(?:yaml|sig\.json)"
    r"|charters/[1-9][0-9]{0,4}\.(?:yaml|sig\.json)"
    r"|policies/(?:freeze|[1-9][0-9]{0,9})\.(?:yaml|sig\.json)"
    r"|jobs/[0-9a-z][0-9a-z-]{0,127}/(?:plan\.yaml|policy\.json|receipts\.json|model-card\.json)"
)


class LedgerCopy(Protocol):
    """A ledger's entries at one moment."""

    def rows(self) -> Iterator[Row]:
        """Every entry as it stands in the file."""

    def entries(self) -> Iterator[Entry]:
        """Every entry; ``LogCorruptError`` where one cannot be read."""


class Evidence(ABC):
    """The record of one silo.

    Attributes:
        path: the directory or the bundle.
        ledger: what findings call the file of the entries.
    """

    ledger: str

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def open_ledger(self) -> AbstractContextManager[LedgerCopy]:
        """The entries at one moment.

        Raises:
            DataError: there is no ledger.
            LogStorageError: it cannot be read now.
            LogCorruptError: it is damaged.
        """

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Every file beside the ledger, relative, with ``/``, in order."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file of at most 1 MiB.

        Raises:
            DataError: there is no such file, or it is larger.
        """

    def silo(self) -> str:
        """Whose record it says it is; what the charter says of that name decides.

        Raises:
            DataError: no card, or one that cannot be read.
            SignatureError: the card was altered.
        """
        source = self.place(CARD)
        try:
            values = json.loads(self.read(CARD))
        except (ValueError, RecursionError) as error:
            raise DataError("this is not JSON", where=source, remedy="ask the silo for its card") from error
        return validate_document(Document(source=source, value=values, lines={}), Card).verify().name

    def jobs(self) -> tuple[str, ...]:
        """Every job of which a file was kept."""
        found = (name.split("/") for name in self.names())
        return tuple(dict.fromkeys(parts[1] for parts in found if parts[0] == "jobs"))

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return name in self.names()

    def place(self, name: str) -> str:
        """A file's place for messages."""
        return f"{self.path}/{name}"


class DirectoryEvidence(Evidence):
    """A silo's directory, or a copy of one; the agent may be running."""

    ledger = LEDGER

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._names = tuple(sorted(_files(path)))
        self._known = frozenset(self._names)

    def open_ledger(self) -> AbstractContextManager[LogReader]:
        """Open ``ledger.db`` for reading."""
        return LogReader.open(self.path / LEDGER)

    def names(self) -> tuple[str, ...]:
        """What stood there when the directory was opened."""
        return self._names

    def has(self, name: str) -> bool:
        """Whether there was such a file."""
        return name in self._known

    def read(self, name: str) -> bytes:
        """Read a file as it is now."""
        if not is_evidence(name):
            raise DataError("this file is no evidence", where=self.place(name))
        return read_limited(self.path / name)


def is_evidence(name: str) -> bool:
    """Whether a file of this relative name is read, and exported, by an auditor."""
    return _FILE.fullmatch(name) is not None


@contextmanager
def open_evidence(path: Path) -> Iterator[Evidence]:
    """Open a silo's directory or a bundle.

    Args:
        path: a directory, or a file that ``archipel audit export`` wrote.

    Raises:
        DataError: there is nothing here.
        BundleError: the file is no bundle, or is damaged.
        BundleVersionError: a newer version made it.
    """
    if path.is_dir():
        yield DirectoryEvidence(path)
    elif path.is_file():
        from silo.audit.bundle import open_bundle

        with open_bundle(path) as bundle:
            yield bundle
    else:
        raise DataError(
            "there is nothing here", where=str(path), remedy="name a silo's directory or an exported bundle"
        )


def _files(directory: Path) -> Iterator[str]:
    """Names of all evidence; what a link leads out of the directory to is not the silo's."""
    root = directory.resolve()
    for pattern in ("*", "charters/*", "policies/*", "jobs/*/*"):
        for path in directory.glob(pattern):
            name = path.relative_to(directory).as_posix()
            if is_evidence(name) and path.is_file() and path.resolve().is_relative_to(root):
                yield name
