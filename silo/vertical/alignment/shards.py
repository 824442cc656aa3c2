"""Long lists are multiplied in several processes: a point takes a tenth of a millisecond."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial

from privacy.alignment.points import Mapping
from silo.worker import end_with_parent

SHARDED_FROM = 30_000
"""Points from which starting processes, about a second, pays."""


@contextmanager
def sharded(count: int) -> Iterator[Mapping]:
    """How to work through the batches of a list of ``count`` points."""
    processes = os.cpu_count() or 1
    if count < SHARDED_FROM or processes == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=end_with_parent) as pool:
        yield partial(pool.map, chunksize=4)
