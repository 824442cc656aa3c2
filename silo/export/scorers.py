"""What every exportable model is: a few tables and one formula.

With ``u`` the sum of ``left[item]`` over the ``n`` items of a history::

    scores = bias + (u / n) @ right.T                   a job's model, local popularity and item graph
    scores = bias + tanh(hidden + u / √n) @ right.T     one with hidden units
    scores = u                                          local item neighbours, ``left`` being items × items

Somebody without a history, and everybody where the model fell back, gets ``popularity``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from privacy.errors import UsageError
from silo.local.models import MAX_GRAPH_ITEMS, ItemNeighbours, RankingModel
from silo.models.recommender import Floats, Recommender
from silo.tensor_files import Tables


class NotExportableError(UsageError):
    """A model that is no set of tables, or one too large for the format."""

    code = "not_exportable"


@dataclass(frozen=True, eq=False)
class TableScorer:
    """The tables, and which of the formulas they belong to.

    Attributes:
        recommender: the tables.
        is_summed: the third formula: the user's vector is not divided by the length of the history.
    """

    recommender: Recommender
    is_summed: bool = False

    @property
    def num_items(self) -> int:
        """Items of the catalogue."""
        return self.recommender.num_items

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items for each history: users × items in, users × items float32 out."""
        scores = self.recommender.scores(histories)
        if self.is_summed:
            scores *= np.diff(histories.indptr).astype(np.float32)[:, None]
        return scores

    def tables(self) -> Tables:
        """Every table by its name; ``right`` and ``hidden`` only where there are any."""
        model = self.recommender
        tables = {"left": model.left, "bias": model.bias, "popularity": model.popularity}
        tables |= {} if model.right is None else {"right": model.right}
        return tables | ({} if model.hidden is None else {"hidden": model.hidden})


def table_scorer(name: str, model: RankingModel) -> TableScorer:
    """The tables of a served model.

    Args:
        name: as ``recommend --model`` knows it, for errors.
        model: the model.

    Raises:
        NotExportableError: a blend, or neighbours among more than ``MAX_GRAPH_ITEMS`` items.
    """
    if isinstance(model, Recommender):
        return TableScorer(model)
    if isinstance(model, ItemNeighbours):
        if model.num_items > MAX_GRAPH_ITEMS:
            raise NotExportableError(
                f"neighbours among {model.num_items:,} items make too large a table",
                where=f"--model {name}",
                remedy="export the job's model, or local:item-graph of a smaller catalogue",
            )
        zeros = np.zeros(model.num_items, np.float32)
        weights = np.asarray(model.weights.toarray(), dtype=np.float32)
        return TableScorer(Recommender(weights, None, zeros, zeros), is_summed=True)
    raise NotExportableError(
        "this is no single set of tables (a blend is several models)",
        where=f"--model {name}",
        remedy="export its parts: --model federated, or --model local:NAME",
    )
