"""Passphrases of administrators' keys: from a file or asked for at a terminal, never an argument."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

from policies.files import read_limited
from policies.signing import KeyFileError, PassphraseError, PrivateKey, is_encrypted
from privacy.errors import HostError

MIN_LENGTH = 12


def passphrase_of(key_file: Path, passphrase_file: Path | None) -> bytes | None:
    """Return the passphrase of a key; None where the key has none or nobody can be asked.

    Args:
        key_file: the private key.
        passphrase_file: holds it on its first line.

    Raises:
        DataError: there is no such passphrase file.
        HostError: the passphrase file can be read by others.
    """
    if not key_file.exists() or not is_encrypted(key_file):
        return None  # whoever loads a key that is not there says so
    if passphrase_file is not None:
        return _from_file(passphrase_file)
    if not sys.stdin.isatty():
        return None
    return getpass.getpass(f"passphrase of {key_file}: ").encode()


def new_passphrase(passphrase_file: Path | None) -> bytes:
    """Return a passphrase for a new key: from a file, or typed twice.

    Raises:
        PassphraseError: too short, not typed alike, or nobody can be asked.
        DataError: there is no such passphrase file.
        HostError: the passphrase file can be read by others.
    """
    if passphrase_file is not None:
        return _long_enough(_from_file(passphrase_file))
    if not sys.stdin.isatty():
        raise PassphraseError(
            "nobody can be asked for a passphrase", remedy="name a file with --passphrase-file"
        )
    typed = _long_enough(getpass.getpass("new passphrase: ").encode())
    if getpass.getpass("once more: ").encode() != typed:
        raise PassphraseError("the two are not alike", remedy="type them again; nothing was written")
    return typed


def protect(path: Path, passphrase: bytes) -> PrivateKey:
    """Encrypt a private key file in place.

    Raises:
        KeyFileError: no such key, or it has a passphrase already.
        OSError: the disk is full or not writable; the file is as it was.
    """
    if is_encrypted(path):
        raise KeyFileError("this key has a passphrase already", where=str(path), remedy="nothing to do")
    key = PrivateKey.load(path)
    scratch = path.with_name(f".{path.name}.new")
    scratch.unlink(missing_ok=True)
    key.save(scratch, passphrase)
    scratch.replace(path)
    return key


def _from_file(path: Path) -> bytes:
    content = read_limited(path)
    if os.stat(path).st_mode & 0o077:
        raise HostError("this passphrase can be read by others", where=str(path), remedy=f"chmod 600 {path}")
    return content.split(b"\n", 1)[0].rstrip(b"\r")


def _long_enough(passphrase: bytes) -> bytes:
    if len(passphrase) < MIN_LENGTH:
        raise PassphraseError(
            f"a passphrase has at least {MIN_LENGTH} characters",
            remedy="take several words; nothing was written",
        )
    return passphrase
