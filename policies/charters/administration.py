"""What members do with charters, as functions that return values and print nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from policies.canonical import digest
from policies.charters.amendments import AmendmentError, Lack, amendment_in_words, lacking
from policies.charters.charter import Card, Charter, check_certificate
from policies.files import (
    CHARTERS,
    NEXT_CARD,
    NEXT_TLS,
    load_card,
    load_charters,
    load_signatures,
    load_yaml,
    read_limited,
    read_signed,
    save_card,
    save_signatures,
    save_yaml,
    signature_path,
    write_atomically,
)
from policies.schema import editor_line
from policies.signing import DetachedSignatures, PrivateKey, SignatureError
from policies.trust import RollbackError, WrongSignerError, missing_signatures, require_unexpired
from policies.validation import validate_values
from privacy.errors import UsageError


@dataclass(frozen=True, slots=True)
class CharterState:
    """A charter and how far it is signed.

    Attributes:
        charter: the charter.
        missing: members that have not signed it.
        lack: what an amendment still needs; None for a first charter, and where it is agreed to.
        changes: what an amendment changes, in words.
    """

    charter: Charter
    missing: tuple[str, ...]
    lack: Lack | None = None
    changes: tuple[str, ...] = ()

    @property
    def is_agreed(self) -> bool:
        """Whether enough members signed: all of them, or those that an amendment needs."""
        return self.lack is None if self.charter.amends else not self.missing


def draft_charter(
    members: Sequence[Path],
    coordinator: Path,
    *,
    name: str,
    expires: date,
    amendments_threshold: int | None = None,
) -> Charter:
    """A charter of the parties whose cards these are.

    Args:
        members: card files of the silos.
        coordinator: card file of the coordinator.
        name: the federation's name.
        expires: last day in force.
        amendments_threshold: members who must agree to a change; all of them by default.

    Raises:
        DataError: a file that is no card, or parts that make no charter.
        SignatureError: a card that was altered.
    """
    entries = [load_card(path).as_member() for path in members]
    values = {
        "kind": "Charter",
        "schema_version": 1,
        "name": name,
        "coordinator": load_card(coordinator).as_coordinator().model_dump(mode="json"),
        "members": [entry.model_dump(mode="json") for entry in entries],
        "amendments": {"threshold": len(entries) if amendments_threshold is None else amendments_threshold},
        "expires": expires.isoformat(),
    }
    return validate_values(values, Charter, "charter")


def charter_state(path: Path) -> CharterState:
    """A charter file and who has not signed it. Trust is another matter: :func:`policies.files.load_charter`.

    Raises:
        ArchipelError: not a charter, or signatures of another one.
    """
    charter = load_yaml(path, Charter)
    signatures = load_signatures(path) or DetachedSignatures.over(charter.signed_bytes())
    return _state(path, charter, signatures)


def sign_charter(directory: Path, path: Path, now: datetime) -> CharterState:
    """Sign a charter as the silo whose directory this is.

    Refused when the charter says of this silo anything else than its own card does.

    Args:
        directory: holds ``card.json`` and ``keys/identity.pem``.
        path: the charter; signatures of the same content beside it are kept.
        now: reference time, aware.

    Raises:
        WrongSignerError: no member, or a member with another key, certificate or administrators.
        ArchipelError: files that cannot be used.
    """
    charter = load_yaml(path, Charter)
    require_unexpired("charter", charter.expires, now)
    for party in charter.parties():
        check_certificate(party.name, party)
    card = card_for(directory, charter)
    if card.role == "coordinator":
        raise WrongSignerError(
            "a coordinator does not sign the charter; the members do",
            where=str(path),
            remedy="sign as a silo",
        )
    if charter.member(card.name) != card.as_member():
        raise WrongSignerError(
            f"the charter does not have {card.name} as its card says",
            where=str(path),
            remedy="have the charter drafted with your current card.json, or card-next.json after a rekey",
        )
    payload = charter.signed_bytes()
    key = PrivateKey.load(directory / "keys" / "identity.pem")
    if key.public_key != card.identity_key:
        raise WrongSignerError(
            "the identity key is not the one of the card",
            where=str(directory),
            remedy="restore keys and card",
        )
    fresh = DetachedSignatures.over(payload)
    present = load_signatures(path)
    kept = present if present is not None and present.payload_sha256 == fresh.payload_sha256 else fresh
    signatures = kept.signed_by(key, payload)
    state = _state(path, charter, signatures)
    save_signatures(path, signatures)
    return state


def merge_charters(paths: Sequence[Path], out: Path) -> CharterState:
    """Unite the signatures of copies of one charter.

    Args:
        paths: charter files, each with its signatures beside it.
        out: where the united copy goes.

    Raises:
        SignatureError: the copies differ, or a copy's signatures are of another content.
        ArchipelError: files that cannot be used.
    """
    first = load_yaml(paths[0], Charter)
    united = DetachedSignatures.over(first.signed_bytes())
    for path in paths:
        if digest(load_yaml(path, Charter)) != digest(first):
            raise SignatureError(
                f"it is not the same charter as {paths[0]}",
                where=str(path),
                remedy="send the very same charter.yaml to all members and have it signed again",
            )
        signatures = load_signatures(path)
        if signatures is not None:
            united = united.united(signatures)
    state = _state(paths[0], first, united)
    content = read_limited(paths[0])
    _copy_chain(paths[0], out)
    save_signatures(out, united)
    write_atomically(out, content)
    return state


def amend_charter(
    directory: Path,
    out: Path,
    now: datetime,
    *,
    members: Sequence[Path] = (),
    remove: Sequence[str] = (),
    coordinator: Path | None = None,
    expires: date | None = None,
    threshold: int | None = None,
) -> CharterState:
    """Draft the next version of a party's charter; the charters before it go beside the draft.

    Args:
        directory: the party's.
        out: where the draft goes.
        now: reference time, aware.
        members: cards of silos: new ones, and those that change (administrators, certificate).
        remove: silos that leave.
        coordinator: card of the coordinator, if that changes.
        expires: another last day.
        threshold: how many members later amendments need.

    Raises:
        UsageError: nothing changes, or a silo that is no member is to leave.
        ArchipelError: files that cannot be used, or parts that make no charter.
    """
    source = directory / "charter.yaml"
    current = load_charters(source, now, is_last_day_over_allowed=True)[-1]
    strangers = [name for name in remove if current.member(name) is None]
    if strangers:
        raise UsageError(
            f"no member: {', '.join(strangers)}", where="--remove", remedy="charter show names them"
        )
    entries = {member.silo: member for member in current.members if member.silo not in remove}
    entries |= {entry.silo: entry for entry in (load_card(path).as_member() for path in members)}
    values = current.model_dump(mode="json", exclude_unset=True)
    values |= {
        "version": current.version + 1,
        "amends": digest(current),
        "members": [entry.model_dump(mode="json", exclude_unset=True) for entry in entries.values()],
    }
    if coordinator is not None:
        values["coordinator"] = load_card(coordinator).as_coordinator().model_dump(mode="json")
    if expires is not None:
        values["expires"] = expires.isoformat()
    if threshold is not None:
        values["amendments"] = {"threshold": threshold}
    amended = validate_values(values, Charter, "amendment")
    changes = tuple(amendment_in_words(current, amended))
    if not changes:
        raise UsageError("this amendment would change nothing", remedy="name cards, --remove, --expires, …")
    _copy_chain(source, out)
    former = read_signed(source)
    _write_pair(out.parent / CHARTERS / f"{current.version}.yaml", former.content, former.signatures)
    signature_path(out).unlink(missing_ok=True)
    save_yaml(out, amended, header=f"{editor_line('charter')}\nAmends version {current.version}.")
    return _state(out, amended, DetachedSignatures.over(amended.signed_bytes()))


def adopt_charter(directory: Path, path: Path, now: datetime) -> Charter:
    """Put a party under a charter that is in force: its first one, or an amendment of the one it is under.

    Args:
        directory: the party's.
        path: the charter, its signatures and, for an amendment, the charters before it beside it.
        now: reference time, aware.

    Raises:
        RollbackError: an older version than the party is under.
        AmendmentError: it does not descend from the charter that the party is under.
        ArchipelError: files that cannot be used, or a charter that is not to be trusted.
    """
    chain = load_charters(path, now)
    charter, target = chain[-1], directory / "charter.yaml"
    if target.exists():
        _require_descent(load_yaml(target, Charter), chain, str(path))
    signed, card = read_signed(path), _card_if_any(directory, charter)
    _copy_chain(path, target)
    _write_pair(target, signed.content, signed.signatures)
    if charter.amends is not None:
        _write_pair(directory / CHARTERS / f"{charter.version}.yaml", signed.content, signed.signatures)
    if card is not None:
        _take_next_key(directory, card)
    return charter


def card_for(directory: Path, charter: Charter) -> Card:
    """A party's card, or its next one where that is what the charter pins.

    Args:
        directory: the party's.
        charter: says which certificate it has.

    Raises:
        ArchipelError: files that cannot be used.
    """
    card, following = load_card(directory / "card.json"), directory / NEXT_CARD
    if following.exists():
        found = load_card(following)
        pinned = {party.name: party.certificate_sha256 for party in charter.parties()}
        if pinned.get(card.name) == found.certificate_sha256 and found.name == card.name:
            return found
    return card


def _card_if_any(directory: Path, charter: Charter) -> Card | None:
    return card_for(directory, charter) if (directory / "card.json").exists() else None


def _take_next_key(directory: Path, card: Card) -> None:
    """Put the TLS key that the charter pins into place, then its card; after a crash, what is left of it."""
    following = directory / NEXT_CARD
    if not following.exists() or load_card(following) != card:
        return
    if (directory / NEXT_TLS).exists():
        (directory / NEXT_TLS).replace(directory / "keys" / "tls.pem")
    save_card(directory / "card.json", card)
    following.unlink()


def _require_descent(current: Charter, chain: Sequence[Charter], source: str) -> None:
    """Two first charters are two federations: a party that was drafted anew may change between them."""
    charter = chain[-1]
    if digest(current) in map(digest, chain) or (current.amends is None and charter.amends is None):
        return
    if charter.version <= current.version:
        raise RollbackError(
            f"version {charter.version} of the charter; this party is under version {current.version}",
            where=source,
            remedy="install the newest amendment",
        )
    raise AmendmentError(
        "it does not descend from the charter that this party is under",
        where=source,
        remedy="ask for the amendment with the charters directory beside it",
    )


def _state(path: Path, charter: Charter, signatures: DetachedSignatures) -> CharterState:
    missing = missing_signatures(charter, signatures)
    if charter.amends is None:
        return CharterState(charter, missing)
    previous = load_yaml(path.parent / CHARTERS / f"{charter.version - 1}.yaml", Charter)
    if digest(previous) != charter.amends:
        raise AmendmentError(
            "the charter kept beside it is not the one it amends",
            where=str(path),
            remedy="copy the amendment with its charters directory",
        )
    changes = tuple(amendment_in_words(previous, charter))
    return CharterState(charter, missing, lacking(previous, charter, signatures), changes)


def _copy_chain(path: Path, out: Path) -> None:
    """Copy the charters before ``path``'s beside ``out``."""
    if path.parent.resolve() == out.parent.resolve():
        return
    version = load_yaml(path, Charter).version
    for number in range(1, version):
        former = read_signed(path.parent / CHARTERS / f"{number}.yaml")
        _write_pair(out.parent / CHARTERS / f"{number}.yaml", former.content, former.signatures)


def _write_pair(path: Path, content: bytes, signatures: bytes) -> None:
    write_atomically(signature_path(path), signatures)
    write_atomically(path, content)
