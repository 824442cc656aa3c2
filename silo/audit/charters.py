"""The charters of a federation, as far as an auditor can follow them from the one that the auditor trusts.

The auditor's own ``--charter`` is the root of trust; it may be any version. A charter names the one before it
by digest, so the earlier ones need no other proof; a later one has to be an amendment that enough members of
the one before it signed. The files may lie beside the auditor's charter or come with the record: what they
say is believed for these reasons only.

==================================  ================================================================
the auditor's charter is            what is followed
==================================  ================================================================
the newest version                  back, by digests
an older version                    back, and forward by the members' signatures
newer than what the ledger says     back; what it changes is not shown by this record, which is said
==================================  ================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cached_property
from pathlib import Path

from policies.canonical import digest
from policies.charters.amendments import trust_amendment
from policies.charters.charter import Charter, CoordinatorEntry, Member
from policies.files import CHARTERS, SignedFile, read_signed
from policies.trust import trust_charter
from policies.validation import parse_yaml
from privacy.errors import ArchipelError, DataError
from privacy.ledger.fold import Fold
from silo.audit.evidence import CHARTER, Evidence
from silo.audit.findings import Finding, finding, untrusted


@dataclass(frozen=True)
class CharterChain:
    """Trusted charters of consecutive versions, the oldest first.

    Attributes:
        charters: they, at least one.
        rooted: the version that the auditor brought.
        findings: charters of the record that do not belong to them.
    """

    charters: tuple[Charter, ...]
    rooted: int
    findings: tuple[Finding, ...] = ()

    @property
    def root(self) -> Charter:
        """The auditor's own."""
        return next(charter for charter in self.charters if charter.version == self.rooted)

    @property
    def newest(self) -> Charter:
        """The latest one that is known."""
        return self.charters[-1]

    def member(self, name: str) -> Member | None:
        """A silo of any of the charters, as the latest that has it says; its identity key never changes."""
        found = (charter.member(name) for charter in reversed(self.charters))
        return next((member for member in found if member is not None), None)

    def coordinators(self) -> tuple[CoordinatorEntry, ...]:
        """Whoever was the coordinator, the latest first."""
        found = {charter.coordinator.identity_key: charter.coordinator for charter in self.charters}
        return tuple(reversed(found.values()))

    def with_digest(self, sha256: str) -> Charter | None:
        """The one of that digest."""
        return self._by_digest.get(sha256)

    @cached_property
    def _by_digest(self) -> dict[str, Charter]:
        return {digest(charter): charter for charter in self.charters}

    def in_force_at(self, fold: Fold, seq: int) -> tuple[Charter, ...]:
        """The charter that an entry was made under; all that come into question where no entry says so.

        Empty where an entry names one that is not among these.
        """
        named = [item.record for item in fold.charters if item.seq < seq]
        if named:
            known = self.with_digest(named[-1].charter_sha256)
            return (known,) if known else ()
        later = fold.charters[0].record.charter_version if fold.charters else self.newest.version
        return tuple(charter for charter in self.charters if charter.version <= later)


def follow_charters(path: Path, evidence: Evidence, now: datetime) -> CharterChain:
    """Follow the charters from the auditor's own, back and forward.

    Args:
        path: the auditor's charter, its signatures beside it.
        evidence: the record, which may hold the others.
        now: reference time; a charter that has expired since is still who they were.

    Raises:
        TrustError: the auditor's charter is not agreed to by its members, or was altered.
        DataError: no such file, no charter, or an amendment and nowhere the charter before it.
    """
    return _Search(path, evidence, now).chain()


def check_charters(chain: CharterChain, fold: Fold, *, silo: str, ledger: str) -> Iterator[Finding]:
    """Hold the charters that the ledger names against those that can be trusted.

    Args:
        chain: the trusted ones.
        fold: the ledger's entries.
        silo: whose ledger.
        ledger: what its file is called.
    """
    yield from chain.findings
    for item in fold.charters:
        if chain.with_digest(item.record.charter_sha256) is None:
            text = (
                f"version {item.record.charter_version} ({item.record.charter_sha256[:12]}…) of the charter"
            )
            text += " is none that the auditor can trust"
            yield finding("charter_untrusted", f"{ledger} entry {item.seq}", text)
    yield from _unrecorded(chain, fold, silo, ledger)


def at_most(now: datetime, expires: date) -> datetime:
    """The latest moment up to ``now`` at which something that expires was in force."""
    return min(now, datetime.combine(expires, time.max, tzinfo=UTC))


def _unrecorded(chain: CharterChain, fold: Fold, silo: str, ledger: str) -> Iterator[Finding]:
    """Terms of which no entry says whose administrators had to sign them, where that makes a difference."""
    first = fold.terms[0].seq if fold.terms else 0
    charters = chain.in_force_at(fold, first)
    administrators = {member.administrators for item in charters if (member := item.member(silo))}
    if first and len(administrators) > 1:
        text = f"no entry says which charter it was made under, of versions {charters[0].version} to "
        text += f"{charters[-1].version}, which give {silo} different administrators"
        yield finding("charter_unrecorded", f"{ledger} entry {first}", text)


class _Search:
    """One auditor's charter, and the files beside it and in a record."""

    def __init__(self, path: Path, evidence: Evidence, now: datetime) -> None:
        self._path, self._evidence, self._now = path, evidence, now
        self._own = read_signed(path)
        self._anchor = parse_yaml(self._own.content, Charter, str(path))
        self._parsed: dict[str, Charter | None] = {}

    def chain(self) -> CharterChain:
        former = self._back()
        charters = [*former, self._trust(former[-1] if former else None, self._own)]
        found = [*self._forward(charters), *self._others(charters)]
        return CharterChain(tuple(charters), self._anchor.version, tuple(found))

    def _back(self) -> list[Charter]:
        """The charters before the auditor's, the oldest first, each recognised by its digest."""
        former: list[Charter] = []
        wanted = self._anchor.amends
        for version in range(self._anchor.version - 1, 0, -1):
            known = [charter for charter, _ in self._of_version(version) if digest(charter) == wanted]
            if not known:
                break
            former.insert(0, known[0])
            wanted = known[0].amends
        if self._anchor.amends and not former:
            raise DataError(
                "this is an amendment, and the charter before it is nowhere",
                where=str(self._path),
                remedy=f"put it into {self._path.parent / CHARTERS}, or name the charter that you have",
            )
        return former

    def _forward(self, charters: list[Charter]) -> Iterator[Finding]:
        """Add every later version that is an agreed amendment of the one before it."""
        while True:
            previous, problems = charters[-1], list[Finding]()
            for _, signed in self._of_version(previous.version + 1):
                try:
                    charters.append(self._trust(previous, signed))
                    break
                except ArchipelError as error:
                    problems += untrusted("charter_untrusted", str(signed.path), error)
            if charters[-1] is previous:
                yield from problems
                return

    def _others(self, charters: list[Charter]) -> Iterator[Finding]:
        """Charters of the record that claim the version of one that is known."""
        for charter in charters:
            for other, signed in self._of_version(charter.version):
                if digest(other) != digest(charter):
                    text = f"it is another version {charter.version} than the one that the auditor can trust"
                    yield finding("charter_untrusted", str(signed.path), text)

    def _trust(self, previous: Charter | None, signed: SignedFile) -> Charter:
        source = str(signed.path)
        at = at_most(self._now, parse_yaml(signed.content, Charter, source).expires)
        if previous is None:
            return trust_charter(signed.content, signed.signatures, at, source=source)
        return trust_amendment(previous, signed.content, signed.signatures, at, source=source)

    def _of_version(self, version: int) -> list[tuple[Charter, SignedFile]]:
        """What is offered as that version: by the auditor's own files first, then by the record."""
        beside = self._path.parent / CHARTERS / f"{version}.yaml"
        offered = [read_signed(beside)] if beside.exists() else []
        names = [f"{CHARTERS}/{version}.yaml", CHARTER]
        offered += [signed for name in names if (signed := self._from_record(name)) is not None]
        parsed = ((self._parse(signed), signed) for signed in offered)
        return [(charter, signed) for charter, signed in parsed if charter and charter.version == version]

    def _parse(self, signed: SignedFile) -> Charter | None:
        """A charter; None for what is none: an entry that rests on it will be a finding."""
        source = str(signed.path)
        if source not in self._parsed:
            self._parsed[source] = None
            with suppress(ArchipelError):
                self._parsed[source] = parse_yaml(signed.content, Charter, source)
        return self._parsed[source]

    def _from_record(self, name: str) -> SignedFile | None:
        beside = name.removesuffix(".yaml") + ".sig.json"
        if not (self._evidence.has(name) and self._evidence.has(beside)):
            return None
        return SignedFile(Path(name), self._evidence.read(name), self._evidence.read(beside))
