"""Policy files on disk: read with a limit, written whole, signatures beside them.

All I/O of this package is here; what the bytes mean is decided in :mod:`policies.validation` and
:mod:`policies.trust`. Nothing is ever half written: a file is replaced in one step or not at all.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel
from ruamel.yaml import YAML

from policies.charters.amendments import trust_amendment
from policies.charters.charter import Card, Charter
from policies.documents import MAX_FILE_BYTES, Document, OversizeError, PolicyFileError, Problem, check_size
from policies.signing import DetachedSignatures
from policies.silo_policy import SiloPolicy
from policies.trust import RollbackError, UnsignedError, parse_signatures, trust_charter, trust_policy
from policies.validation import parse_yaml, validate_document
from privacy.errors import DataError

__all__ = [
    "CHARTERS",
    "NEXT_CARD",
    "NEXT_TLS",
    "OversizeError",
    "PolicyFileError",
    "Problem",
    "SignedFile",
    "dump_yaml",
    "load_card",
    "load_charter",
    "load_charters",
    "load_policy",
    "load_signatures",
    "load_yaml",
    "read_limited",
    "read_signed",
    "replacing",
    "save_card",
    "save_signatures",
    "save_yaml",
    "signature_path",
    "write_atomically",
]

ModelT = TypeVar("ModelT", bound=BaseModel)
CHARTERS = "charters"
"""Directory of the charters that were amended, beside the one in force."""

NEXT_CARD = "card-next.json"
NEXT_TLS = "keys/tls-next.pem"
"""A party's next card and TLS key, until an amendment pins them."""

_NAMING = ("kind", "schema_version", "name", "silo")
_ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class SignedFile:
    """The bytes of a YAML file and of the signatures beside it.

    Attributes:
        path: the YAML file.
        content: its bytes.
        signatures: bytes of the signature file.
    """

    path: Path
    content: bytes
    signatures: bytes


def read_limited(path: Path) -> bytes:
    """The bytes of a file of at most 1 MiB.

    Raises:
        DataError: there is no such file.
        OversizeError: it is larger.
    """
    try:
        with path.open("rb") as file:
            return check_size(file.read(MAX_FILE_BYTES + 1), str(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(
            "there is no such file", where=str(path), remedy="check the name, and --dir"
        ) from error


def write_atomically(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Replace ``path`` by ``content``: after a crash either the old or the new file is there, whole.

    Args:
        path: replaced when it exists.
        content: all of it.
        mode: who may read it, from its first byte on; left out: as the process makes files.

    Raises:
        OSError: the disk is full or not writable; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, mode=mode) as file:
        file.write(content)


@contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[BinaryIO]:
    """A file to write that takes the place of ``path`` when all is written; whole, or not at all.

    Raises:
        OSError: the disk is full or not writable; the old file is as it was, and the error names it.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with scratch.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException as error:
        with suppress(OSError):
            scratch.unlink(missing_ok=True)
        if isinstance(error, OSError) and str(error.filename) == str(scratch):
            error.filename = str(path)
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_yaml(path: Path, model: type[ModelT]) -> ModelT:
    """Read a YAML file as ``model``.

    Raises:
        DataError: there is no such file.
        OversizeError: more than 1 MiB.
        PolicyFileError: every problem with its line and a fix.
    """
    return parse_yaml(read_limited(path), model, str(path))


def dump_yaml(model: BaseModel, *, header: str = "") -> str:
    """YAML text of the fields that were set; reading it back gives the same canonical bytes.

    Args:
        model: what to write.
        header: comment lines for the top, without ``#``.
    """
    writer = YAML()
    writer.default_flow_style = False
    writer.width = 100_000
    writer.indent(mapping=2, sequence=4, offset=2)
    text = io.StringIO()
    writer.dump(_readable(model.model_dump(mode="json", exclude_unset=True)), text)
    return "".join(f"# {line}\n" for line in header.splitlines()) + text.getvalue()


def save_yaml(path: Path, model: BaseModel, *, header: str = "") -> None:
    """Write ``model`` as YAML, in one step.

    Args:
        path: the file.
        model: what to write.
        header: comment lines for the top, without ``#``.
    """
    write_atomically(path, dump_yaml(model, header=header).encode("utf-8"))


def signature_path(path: Path) -> Path:
    """Where the signatures of a file are: ``policy.sig.json`` beside ``policy.yaml``."""
    return path.with_name(path.name.removesuffix(path.suffix) + ".sig.json")


def load_signatures(path: Path) -> DetachedSignatures | None:
    """Signatures beside the YAML file ``path``; None when nobody signed yet.

    Raises:
        UnsignedError: the file beside it is no file of signatures.
    """
    beside = signature_path(path)
    if not beside.exists():
        return None
    return parse_signatures(read_limited(beside), str(beside))


def save_signatures(path: Path, signatures: DetachedSignatures) -> None:
    """Write signatures beside the YAML file ``path``."""
    text = json.dumps(signatures.model_dump(mode="json"), indent=2) + "\n"
    write_atomically(signature_path(path), text.encode("ascii"))


def read_signed(path: Path) -> SignedFile:
    """The bytes of a YAML file and of its signatures, unchecked.

    Raises:
        DataError: there is no such file.
        UnsignedError: nobody signed it.
    """
    content = read_limited(path)
    beside = signature_path(path)
    if not beside.exists():
        raise UnsignedError(
            "nobody has signed this file", where=str(path), remedy=f"sign it: archipel {_signer(path)} sign"
        )
    return SignedFile(path=path, content=content, signatures=read_limited(beside))


def load_charter(directory: Path, now: datetime) -> Charter:
    """The trusted charter of a party's directory.

    Args:
        directory: holds ``charter.yaml``, ``charter.sig.json`` and, once amended, ``charters/``.
        now: reference time, aware.

    Raises:
        ArchipelError: missing, malformed or not to be trusted; see :func:`load_charters`.
    """
    return load_charters(directory / "charter.yaml", now)[-1]


def load_charters(
    path: Path, now: datetime, *, is_last_day_over_allowed: bool = False
) -> tuple[Charter, ...]:
    """A trusted charter and all those it amends, the first one first.

    Args:
        path: the charter; the earlier ones are in ``charters/`` beside it, each with its signatures.
        now: reference time, aware.
        is_last_day_over_allowed: trust one that was in force, to amend or audit it.

    Raises:
        RollbackError: a newer version was kept beside it.
        ArchipelError: missing, malformed or not to be trusted; see :mod:`policies.charters.amendments`.
    """
    signed = read_signed(path)
    charter = parse_yaml(signed.content, Charter, str(path))
    kept = [item.stem for item in (path.parent / CHARTERS).glob("*.yaml")]
    newest = max((int(stem) for stem in kept if stem.isdecimal()), default=0)
    if newest > charter.version:
        raise RollbackError(
            f"version {charter.version} of the charter; version {newest} was in force here",
            where=str(path),
            remedy=f"restore it from {path.parent / CHARTERS}, or install the newest amendment",
        )
    former = [read_signed(path.parent / CHARTERS / f"{number}.yaml") for number in range(1, charter.version)]
    chain: list[Charter] = []
    for item in (*former, signed):
        is_over = is_last_day_over_allowed or item is not signed
        at = _in_force_at(item, now) if is_over else now
        source = str(item.path)
        chain.append(
            trust_amendment(chain[-1], item.content, item.signatures, at, source=source)
            if chain
            else trust_charter(item.content, item.signatures, at, source=source)
        )
    return tuple(chain)


def _in_force_at(signed: SignedFile, now: datetime) -> datetime:
    """The latest moment up to ``now`` at which a charter was in force."""
    expires = parse_yaml(signed.content, Charter, str(signed.path)).expires
    return min(now, datetime.combine(expires, time.max, UTC))


def load_policy(
    directory: Path,
    *,
    charter: Charter,
    silo: str,
    previous_version: int | None,
    now: datetime,
    previous_sha256: str | None = None,
) -> SiloPolicy:
    """The trusted policy of a silo's directory.

    Args:
        directory: holds ``policy.yaml`` and ``policy.sig.json``.
        charter: the trusted charter.
        silo: whose policy it must be.
        previous_version: version trusted before; None at the first time.
        now: reference time, aware.
        previous_sha256: digest of the policy trusted before, if known.

    Raises:
        ArchipelError: missing, malformed or not to be trusted; see :func:`policies.trust.trust_policy`.
    """
    signed = read_signed(directory / "policy.yaml")
    return trust_policy(
        signed.content,
        signed.signatures,
        charter=charter,
        silo=silo,
        previous_version=previous_version,
        now=now,
        previous_sha256=previous_sha256,
        source=str(signed.path),
    )


def load_card(path: Path) -> Card:
    """A party's verified card.

    Raises:
        DataError: no such file, or no card.
        SignatureError: altered after it was signed, or with a certificate TLS would not accept.
    """
    try:
        values = json.loads(read_limited(path))
    except ValueError as error:
        raise DataError(
            "this is not JSON", where=str(path), remedy="ask the party for its card.json"
        ) from error
    return validate_document(Document(source=str(path), value=values, lines={}), Card).verify()


def save_card(path: Path, card: Card) -> None:
    """Write a party's card."""
    text = json.dumps(card.model_dump(mode="json", exclude_unset=True), indent=2) + "\n"
    write_atomically(path, text.encode("utf-8"))


def _signer(path: Path) -> str:
    return "charter" if "charter" in path.name else "policy"


def _readable(value: Any) -> Any:
    """What a thing is and is called comes first; dates stand without quotes and are read back as text."""
    if isinstance(value, dict):
        ordered = sorted(value, key=lambda name: name not in _NAMING)
        return {name: _readable(value[name]) for name in ordered}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if isinstance(value, str) and _ISO_DATE.fullmatch(value):
        return date.fromisoformat(value)
    return value
