"""One exception tree for the whole project; only the command line prints them and exits.

::

    ArchipelError
    ├── UsageError            2  the command cannot mean anything
    ├── DeniedError           3  a policy or a budget says no
    │   └── BudgetExceededError
    ├── FindingError          4  an audit found something
    ├── PeerError             5  another party or the network
    │   └── ProtocolError        a message that breaks the protocol
    ├── DataError             6  rows, files, catalogues
    ├── HostError             7  port, disk, permission
    └── TrustError            8  signature, certificate, version, expiry
        └── EquivocationError    one party said two things in one place

Packages derive their own errors from these. Each class has a stable ``code``; ``docs/reference-errors.md``
has a section for each, and a test compares the two.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit status of every ``archipel`` command (``docs/reference-exit-codes.md``)."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    DENIED = 3
    FINDING = 4
    PEER = 5
    DATA = 6
    HOST = 7
    TRUST = 8
    INTERRUPTED = 130


class ArchipelError(Exception):
    """Root of the tree.

    Args:
        message: what happened, without private values.
        where: file, line, field or address it happened at.
        remedy: how to mend it, an imperative sentence.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[ExitCode] = ExitCode.UNEXPECTED

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process with ``where`` and ``remedy``."""
        return _rebuild, (type(self), self.message, self.__dict__.copy())

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.remedy})" if self.remedy else text


def _rebuild(cls: type[ArchipelError], message: str, state: dict[str, object]) -> ArchipelError:
    error = cls.__new__(cls)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(ArchipelError):
    """The command line or its arguments cannot mean anything."""

    code = "usage"
    exit_code = ExitCode.USAGE


class DeniedError(ArchipelError):
    """A policy or a budget says no."""

    code = "denied"
    exit_code = ExitCode.DENIED


class BudgetExceededError(DeniedError):
    """The account cannot pay; its state is as it was."""

    code = "budget_exceeded"


class FindingError(ArchipelError):
    """An audit found something."""

    code = "finding"
    exit_code = ExitCode.FINDING


class PeerError(ArchipelError):
    """Another party, or the way to it, failed."""

    code = "peer"
    exit_code = ExitCode.PEER


class ProtocolError(PeerError):
    """A message that breaks the protocol: wrong place, wrong size, wrong order."""

    code = "protocol"


class DataError(ArchipelError):
    """Rows, files or catalogues that cannot be used as they are."""

    code = "data"
    exit_code = ExitCode.DATA


class HostError(ArchipelError):
    """This machine: a port in use, a full disk, a missing permission."""

    code = "host"
    exit_code = ExitCode.HOST


class TrustError(ArchipelError):
    """A signature, certificate, version or date that must not be trusted."""

    code = "trust"
    exit_code = ExitCode.TRUST


class EquivocationError(TrustError):
    """One party said two different things where it may say one."""

    code = "equivocation"
