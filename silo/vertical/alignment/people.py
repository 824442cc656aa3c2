"""Who takes part in one alignment: fixed when the list is blinded, and the same until the job ends.

Rows may change while a job runs; places in a blinded list may not. So the ids are kept, in their order, and
whoever has come since is not in this job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from policies.files import write_atomically
from privacy.alignment.identifiers import IdentifierError, IdentifierKind, normalise, pseudonyms
from silo.data.interactions import Interactions


@dataclass(frozen=True)
class People:
    """One silo's people in one alignment.

    Attributes:
        user_ids: as the tables write them.
        word_of: for each, which person of the list that is; ids that are written alike are one person.
        words: what is blinded for each person: keyed hashes.
    """

    user_ids: tuple[str, ...]
    word_of: tuple[int, ...]
    words: tuple[str, ...]

    @classmethod
    def of(
        cls,
        user_ids: Sequence[str],
        kind: IdentifierKind,
        pepper: bytes,
        default_region: str | None = None,
    ) -> People:
        """Fix who takes part. An id that is none of its kind is left out: others would see an error."""
        usable = tuple(user_id for user_id in user_ids if _is_usable(user_id, kind, default_region))
        found = pseudonyms(usable, kind, pepper, default_region)
        return cls(usable, tuple(found.places), tuple(found.words))

    def only(self, chosen: Sequence[int]) -> People:
        """The people at these places of ``words``, in that order."""
        place = {word: number for number, word in enumerate(chosen)}
        everybody = zip(self.user_ids, self.word_of, strict=True)
        kept = [(user, place[word]) for user, word in everybody if word in place]
        return People(
            tuple(user for user, _ in kept),
            tuple(word for _, word in kept),
            tuple(self.words[word] for word in chosen),
        )

    @classmethod
    def load(cls, path: Path) -> People:
        """Read what :meth:`save` wrote."""
        content = json.loads(path.read_bytes())
        return cls(*(tuple(content[name]) for name in ("user_ids", "word_of", "words")))

    def save(self, path: Path) -> None:
        """Write it durably; it names people, so it lies in the outbox and goes with the job."""
        content = {"user_ids": self.user_ids, "word_of": self.word_of, "words": self.words}
        write_atomically(path, json.dumps(content).encode())

    def rows_of(self, interactions: Interactions) -> sp.csr_matrix:
        """People × items of 0 and 1: the rows of all ids of each person; whoever has none stays empty."""
        index = {user_id: row for row, user_id in enumerate(interactions.user_ids)}
        known = [
            (word, index[user])
            for word, user in zip(self.word_of, self.user_ids, strict=True)
            if user in index
        ]
        gather = sp.csr_matrix(
            (np.ones(len(known)), ([word for word, _ in known], [row for _, row in known])),
            shape=(len(self.words), interactions.num_users),
        )
        rows = sp.csr_matrix(gather @ interactions.matrix())
        rows.data[:] = 1.0
        return rows


def on_spine(
    rows: npt.NDArray[np.float64], slots: npt.NDArray[np.int64], spine_slots: int
) -> npt.NDArray[np.float64]:
    """Put people's rows on their slots: people × columns in, spine slots × columns out, else zeros.

    Args:
        rows: one for each person.
        slots: of each person; -1 for none.
        spine_slots: of the whole spine.
    """
    spine = np.zeros((spine_slots, rows.shape[1]))
    has_slot = slots >= 0
    spine[slots[has_slot]] = rows[has_slot]
    return spine


def _is_usable(user_id: str, kind: IdentifierKind, default_region: str | None) -> bool:
    try:
        normalise(user_id, kind, default_region)
    except IdentifierError:
        return False
    return True
