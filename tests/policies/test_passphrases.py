"""Administrators' keys behind passphrases: wrong, missing and readable ones are told apart."""

from __future__ import annotations

import io
import stat
from pathlib import Path

import pytest

from policies.passphrases import new_passphrase, passphrase_of, protect
from policies.signing import KeyFileError, PassphraseError, PrivateKey, is_encrypted
from privacy.errors import DataError, ExitCode, HostError

SECRET = b"correct horse battery"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "administrator.pem"
    PrivateKey.generate().save(path, SECRET)
    return path


def written(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_comes_back_with_its_passphrase_only(key_file):
    key = PrivateKey.load(key_file, SECRET)
    assert key.sign(b"x") == PrivateKey.load(key_file, SECRET).sign(b"x")
    for wrong, said in (
        (None, "has a passphrase"),
        (b"", "not the key's"),
        (b"another one!", "not the key's"),
    ):
        with pytest.raises(PassphraseError, match=said) as caught:
            PrivateKey.load(key_file, wrong)
        assert caught.value.exit_code is ExitCode.TRUST
        assert caught.value.remedy


def test_the_file_says_nothing_of_the_key(key_file, tmp_path):
    plain = tmp_path / "plain.pem"
    PrivateKey.load(key_file, SECRET).save(plain)
    assert b"ENCRYPTED" in key_file.read_bytes()
    assert plain.read_bytes().splitlines()[1] not in key_file.read_bytes()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600


def test_a_key_without_a_passphrase_needs_none_and_ignores_one(tmp_path):
    key = PrivateKey.generate()
    key.save(tmp_path / "k.pem")
    assert PrivateKey.load(tmp_path / "k.pem", b"whatever").key_id == key.key_id


def test_from_a_file_of_one_line(key_file, tmp_path):
    for content in (SECRET, SECRET + b"\n", SECRET + b"\r\nsecond line\n"):
        assert passphrase_of(key_file, written(tmp_path / "phrase", content)) == SECRET
    with pytest.raises(DataError):
        passphrase_of(key_file, tmp_path / "none")


def test_a_passphrase_that_others_can_read_is_none(key_file, tmp_path):
    with pytest.raises(HostError, match="chmod 600"):
        passphrase_of(key_file, written(tmp_path / "phrase", SECRET, 0o644))


def test_nobody_is_asked_where_there_is_no_terminal(key_file, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert passphrase_of(key_file, None) is None
    with pytest.raises(PassphraseError, match="nobody"):
        new_passphrase(None)


def test_a_missing_key_is_told_as_such(tmp_path):
    for call in (
        lambda: is_encrypted(tmp_path / "x.pem"),
        lambda: PrivateKey.load(tmp_path / "x.pem"),
    ):
        with pytest.raises(KeyFileError, match="no such key") as caught:
            call()
        assert caught.value.exit_code is ExitCode.DATA


def test_short_ones_are_refused(tmp_path):
    with pytest.raises(PassphraseError, match="12"):
        new_passphrase(written(tmp_path / "phrase", b"hunter2"))


def test_protecting_a_key_in_place_once(tmp_path):
    path = tmp_path / "k.pem"
    key = PrivateKey.generate()
    key.save(path)
    assert not is_encrypted(path)
    assert protect(path, SECRET).key_id == key.key_id
    assert is_encrypted(path)
    assert PrivateKey.load(path, SECRET).key_id == key.key_id
    assert [item.name for item in tmp_path.iterdir()] == ["k.pem"]
    with pytest.raises(KeyFileError, match="already"):
        protect(path, SECRET)
