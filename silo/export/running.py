"""Run an exported ONNX file, as whoever receives it would: to hold it against the model it was made of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from silo.export.graph import INPUT, PADDING
from silo.export.onnx_graph import OUTPUT
from silo.models.recommender import Floats

THREADS: Final = 1


@dataclass(frozen=True, eq=False)
class OnnxScorer:
    """An exported model on ONNX Runtime, on one thread.

    Attributes:
        session: of the file.
    """

    session: Any

    @classmethod
    def of(cls, content: bytes) -> OnnxScorer:
        """Load a file's bytes."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = THREADS
        options.log_severity_level = 3
        return cls(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))

    def scores(self, histories: sp.csr_matrix) -> Floats:
        """Score all items for each history: users × items in, users × items float32 out.

        One user a call: a call takes users × longest history × dimensions of memory, and a model of items ×
        items has as many dimensions as items.
        """
        found = np.zeros(histories.shape, dtype=np.float32)
        for user in range(histories.shape[0]):
            (found[user],) = self.session.run([OUTPUT], {INPUT: padded(histories[user : user + 1])})[0]
        return found


def padded(histories: sp.csr_matrix) -> NDArray[np.int64]:
    """Item indices of each history as the graph takes them: users × longest, padded with ``PADDING``."""
    lengths = np.diff(histories.indptr)
    table = np.full((len(lengths), max(1, int(lengths.max(initial=0)))), PADDING, dtype=np.int64)
    table[np.arange(table.shape[1]) < lengths[:, None]] = histories.indices
    return table


def milliseconds_a_user(scorer: OnnxScorer, histories: sp.csr_matrix) -> float:
    """Median time of one call for one user, in milliseconds."""
    calls = [padded(histories[user : user + 1]) for user in range(histories.shape[0])]
    taken = []
    for call in calls:
        started = time.perf_counter()
        scorer.session.run([OUTPUT], {INPUT: call})
        taken.append(time.perf_counter() - started)
    return 1000.0 * float(np.median(taken))
