"""Tokens as a person brings them to the label silo: in files, or as words."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from privacy.errors import DataError, UsageError

_MAX_FILE_BYTES = 4096


def read_tokens(files: Sequence[str], words: Sequence[str], partners: Sequence[str]) -> dict[str, str]:
    """Tokens by the feature silo that issued them.

    Args:
        files: what ``consent issue --json`` wrote, or files that hold a token alone; ``-`` is standard input.
        words: ``TOKEN``, or ``SILO=TOKEN`` where there are several feature silos.
        partners: the job's feature silos.

    Raises:
        UsageError: a token of no feature silo of the job, two of one, or it is not said whose.
        DataError: a file cannot be read.
    """
    tokens: dict[str, str] = {}
    for silo, token in [*map(_in_file, files), *map(_in_word, words)]:
        issuer = silo or (partners[0] if len(partners) == 1 else "")
        if issuer not in partners:
            raise UsageError(
                f"{issuer or 'who is not named'} is no feature silo of this job",
                where="--consent, --token",
                remedy=f"name whose it is, as SILO=TOKEN; feature silos are {', '.join(partners)}",
            )
        if issuer in tokens:
            raise UsageError(
                f"two tokens of {issuer}",
                where="--consent, --token",
                remedy="bring one; each is worth one answer",
            )
        tokens[issuer] = token
    return tokens


def _in_file(name: str) -> tuple[str, str]:
    """(issuer or nothing, token) in a file, or on standard input."""
    try:
        if name == "-":
            text = sys.stdin.read(_MAX_FILE_BYTES)
        else:
            with open(name, encoding="utf-8") as file:
                text = file.read(_MAX_FILE_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("no token can be read there", where=name, remedy="name the token's file") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return "", text.strip()
    if not isinstance(content, dict) or not isinstance(content.get("token"), str):
        raise DataError("this file holds no token", where=name, remedy="pass on what the person brought")
    return str(content.get("issuer", "")), content["token"]


def _in_word(word: str) -> tuple[str, str]:
    silo, separator, token = word.partition("=")
    return (silo, token) if separator else ("", word)
