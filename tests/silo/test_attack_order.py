"""Attacks that score people by the released model give it their histories in order, as it learnt them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from silo.audit.attack.canary import model_scores
from silo.data.interactions import SCHEMA, Interactions
from tests.contracts.family_contract import make_catalogue


class LastOnly:
    """A model that reads nothing but the newest item."""

    def scores(self, histories: sp.csr_matrix) -> np.ndarray:
        scores = np.zeros(histories.shape)
        for person, (start, end) in enumerate(zip(histories.indptr, histories.indptr[1:], strict=False)):
            scores[person, histories.indices[start:end][-1]] = scores[person, 5] = 1.0
        return scores


def test_a_model_that_reads_order_is_given_it() -> None:
    """Item 5 scores 1 for everybody: who had item 0 last ranks both of their items, who had 5 last one."""
    rows = {"user_index": [0, 0, 1, 1], "item_index": [0, 5, 0, 5], "timestamp": [9, 1, 1, 9]}
    people = Interactions(("ann", "ben"), pl.DataFrame(rows, schema=SCHEMA), make_catalogue(6))
    ann, ben = model_scores(cast(Any, SimpleNamespace(model=LastOnly())), people)
    assert ann == pytest.approx((1.0 - 2 / 6) / np.sqrt(2 / 6 * 4 / 6))
    assert ben == pytest.approx((0.5 - 1 / 6) / np.sqrt(1 / 6 * 5 / 6))
