from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from privacy import sealing
from privacy.sealing import SealContext, SealError, open_file, seal_file, sealed_bytes

KEY = bytes(range(32))
CONTEXT = SealContext(job_id="ab" * 32, leg=3, sender="a", receiver="b", records=7)
CHUNK, TAG, SALT = 64, sealing.TAG_BYTES, sealing.SALT_BYTES


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "CHUNK_BYTES", CHUNK)


def sealed(directory: Path, plain: bytes, context: SealContext = CONTEXT) -> bytes:
    (directory / "plain").write_bytes(plain)
    seal_file(KEY, directory / "plain", directory / "sealed", context)
    return (directory / "sealed").read_bytes()


def opened(directory: Path, content: bytes, context: SealContext = CONTEXT, key: bytes = KEY) -> bytes:
    (directory / "received").write_bytes(content)
    open_file(key, directory / "received", directory / "opened", context)
    return (directory / "opened").read_bytes()


@pytest.mark.parametrize("num_bytes", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 200])
def test_what_was_sealed_opens_and_has_the_announced_size(tmp_path: Path, num_bytes: int) -> None:
    plain = os.urandom(num_bytes)
    content = sealed(tmp_path, plain)
    assert len(content) == sealed_bytes(num_bytes)
    assert opened(tmp_path, content) == plain


def test_two_seals_of_one_file_have_nothing_in_common(tmp_path: Path) -> None:
    first, second = (sealed(tmp_path, b"\0" * 200) for _ in range(2))
    assert all(first[i : i + 16] != second[i : i + 16] for i in range(0, len(first) - 16, 16))


def test_a_bit_changed_anywhere_is_noticed_and_nothing_is_left(tmp_path: Path) -> None:
    content = sealed(tmp_path, os.urandom(150))
    for place in range(len(content)):
        altered = bytearray(content)
        altered[place] ^= 1
        with pytest.raises(SealError):
            opened(tmp_path, bytes(altered))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("opened")]


def test_a_file_cut_off_at_any_byte_does_not_open(tmp_path: Path) -> None:
    content = sealed(tmp_path, os.urandom(3 * CHUNK))
    for end in range(len(content)):
        with pytest.raises(SealError):
            opened(tmp_path, content[:end])


def test_chunks_exchanged_repeated_left_out_or_added_do_not_open(tmp_path: Path) -> None:
    content, size = sealed(tmp_path, os.urandom(3 * CHUNK)), CHUNK + TAG
    salt, a, b, c = content[:SALT], *(content[SALT + i * size : SALT + (i + 1) * size] for i in range(3))
    assert opened(tmp_path, salt + a + b + c)
    for chunks in (b + a + c, a + a + c, a + c, a + b + c + c, a + b + c + b"x", b""):
        with pytest.raises(SealError):
            opened(tmp_path, salt + chunks)


@pytest.mark.parametrize(
    "changes",
    [{"job_id": "cd" * 32}, {"leg": 4}, {"sender": "c"}, {"receiver": "c"}, {"records": 8},
     {"sender": "b", "receiver": "a"}],
)  # fmt: skip
def test_a_file_for_somebody_or_something_else_does_not_open(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    content = sealed(tmp_path, b"list")
    with pytest.raises(SealError):
        opened(tmp_path, content, dataclasses.replace(CONTEXT, **changes))
    with pytest.raises(SealError):
        opened(tmp_path, content, key=bytes(32))
