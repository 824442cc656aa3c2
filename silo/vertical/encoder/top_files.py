"""The file of a label silo's top model: the network, and the noised numbers of the people it knows.

It names people, as the label silo's own tables do, and stays beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from silo.finished import left_by_job
from silo.tensor_files import load_tables, save_tables
from silo.vertical.artefacts import OWNER_ONLY, LabelModel, load_label_model, other_tables
from silo.vertical.joint.model import ItemSide, JointModel, Matrix, Vector

if TYPE_CHECKING:
    import numpy.typing as npt

    from silo.vertical.alignment.people import People
    from silo.vertical.encoder.top_model import TopModel

TOP_FILE = "top-model.safetensors"
_KIND = "archipel-top-model/v1"
_WEIGHTS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


@dataclass(frozen=True, eq=False)
class KeptTopModel:
    """A top model as the job left it.

    Attributes:
        label: the job's closed-form model: items, their Gram, the weights.
        network: the trained one.
        numbers: people × numbers of all feature silos, as released.
        user_ids: by position in ``numbers``; one person may have several ids.
    """

    label: LabelModel
    network: TopModel
    numbers: Matrix
    user_ids: tuple[tuple[str, int], ...]

    @cached_property
    def _rows(self) -> dict[str, int]:
        return dict(self.user_ids)

    def scores(self, user_id: str, own_items: npt.NDArray[np.integer]) -> Vector:
        """Scores of the ranked items for one person, (items,); no numbers for whoever was not in the job.

        Args:
            user_id: as the label silo's tables write it.
            own_items: catalogue indices of what the person has.
        """
        known = np.flatnonzero(np.isin(self.label.items, own_items))
        rows = sp.csr_matrix(
            (np.ones(known.size), (np.zeros(known.size, dtype=np.int64), known)),
            shape=(1, self.label.items.size),
        )
        row = self._rows.get(user_id)
        numbers = np.zeros((1, self.numbers.shape[1])) if row is None else self.numbers[row : row + 1]
        scores: Vector = self.network.scores(rows, numbers)[0]
        return scores


def save_top_model(path: Path, model: TopModel, people: People, numbers: Matrix) -> None:
    """Write it durably."""
    ids = [user_id.encode() for user_id in people.user_ids]
    tables = {
        "mixing": np.array([model.mixing]),
        "numbers": numbers.astype(np.float32),
        "ids": np.frombuffer(b"".join(ids), dtype=np.uint8),
        "ends": np.cumsum([len(one) for one in ids], dtype=np.int64),
        "people": np.array(people.word_of, dtype=np.int64),
    }
    save_tables(path, _KIND, tables | dict(model.tables), {}, mode=OWNER_ONLY)


def load_top_model(directory: Path, job: str) -> KeptTopModel:
    """Read what a job with a private encoder left at the label silo.

    Raises:
        NoModelError: there is none.
        TensorFileError: the file is damaged, or holds other tables than a top model's.
    """
    from silo.vertical.encoder.top_model import TopModel

    label = load_label_model(directory, job)
    path = left_by_job(directory, job, TOP_FILE)
    tables, _ = load_tables(path, _KIND)
    alone = JointModel(ItemSide.of_gram(label.item_gram, label.weights.item_ridge), (), label.weights)
    try:
        network = TopModel(alone, {name: tables[name] for name in _WEIGHTS}, float(tables["mixing"][0]))
        joined, starts = tables["ids"].tobytes(), [0, *tables["ends"].tolist()]
        ids = [joined[start:end].decode() for start, end in pairwise(starts)]
        pairs = tuple(zip(ids, tables["people"].tolist(), strict=True))
        numbers = tables["numbers"].astype(np.float64)
        if numbers.ndim != 2 or any(not 0 <= row < len(numbers) for _, row in pairs):
            raise ValueError("somebody has no row of numbers")
    except (LookupError, TypeError, ValueError) as error:
        raise other_tables(path, "a label silo's top model") from error
    return KeptTopModel(label, network, numbers, pairs)
