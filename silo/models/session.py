"""What a silo keeps between the rounds of a job: a hooked module, and the batches of the rows it sees."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor, ldexp
from typing import Literal

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from privacy.dpsgd import PerUserGradients
from privacy.randomness import WORD_BITS, WordSource
from silo.data.interactions import Interactions
from silo.models.architecture import Architecture, Batch, Weights
from silo.models.features import public_uniform

VALUES_AT_ONCE = 1 << 22
"""Users × what a network holds of each, scores of all items and inner values, held at a time."""
CACHED_BYTES = 1 << 28
_SELF_TEST_USERS = 3
_SELF_TEST_SEED = 3
_SELF_TEST_MOVE = 0.1
_LONGEST_MADE_UP = 256


class TrainingSession:
    """One module, tested once and hooked once, and its inputs.

    Args:
        architecture: of the network.
        max_grad_norm: see ``PerUserGradients``.
        clipping: likewise.
    """

    def __init__(
        self, architecture: Architecture, max_grad_norm: float, clipping: Literal["flat", "automatic"]
    ) -> None:
        self.architecture = architecture
        self._module = architecture.module()
        self._gradients = PerUserGradients(
            self._module, architecture.loss_per_user, max_grad_norm, clipping=clipping
        )
        self._is_tested = False
        self._rows: Interactions | None = None
        self._histories = sp.csr_matrix((0, 0))
        self._whole: Batch | None = None

    def set_weights(self, weights: Weights) -> None:
        """Put these values into the module."""
        self.architecture.set_weights(self._module, weights)

    def clipped_sum(
        self, interactions: Interactions, users: NDArray[np.int64], step: int
    ) -> NDArray[np.float64]:
        """Sum these users' clipped gradients; before the first row is read, the module has to pass its test.

        Args:
            interactions: a silo's rows.
            users: whose gradients.
            step: see :meth:`Architecture.draw`.

        Raises:
            PerUserGradientError: the self-test or a check of this step failed.
        """
        self.self_test()
        self.architecture.draw(step)
        total = np.zeros(self._gradients.num_values)
        for batch in self._batches(interactions, users, self.architecture.input_dropout):
            total += self._gradients.clipped_sum(*batch)
        return self.architecture.spread(total)

    def clipped_rows(self, interactions: Interactions, step: int) -> NDArray[np.float64]:
        """What each user adds to :meth:`clipped_sum`: users × values, without dropout.

        Raises:
            PerUserGradientError: the self-test failed.
        """
        self.self_test()
        self.architecture.draw(step)
        histories = interactions.histories()  # beside the batches that are kept for training
        rows = self._gradients.clipped_rows(*self.architecture.batch(histories, histories))
        return self.architecture.spread(rows)

    def mean_loss(self, interactions: Interactions) -> float | None:
        """Mean loss of the users with a history, without dropout; None if there are none."""
        histories = interactions.histories()  # beside the batches that are kept for training
        num_users = int(np.count_nonzero(np.diff(histories.indptr)))
        if not num_users:
            return None
        self.architecture.draw(None)
        at_once = self._users_at_once()
        starts = range(0, interactions.num_users, at_once)
        total = sum(float(self.losses(histories[start : start + at_once]).sum()) for start in starts)
        return total / num_users

    def losses(self, histories: sp.csr_matrix) -> NDArray[np.float64]:
        """Loss of each of a few users, without dropout: (users,)."""
        with torch.no_grad():
            batch = self.architecture.batch(histories, histories)
            found: NDArray[np.float64] = self.architecture.loss_per_user(self._module, *batch).numpy()
        return found

    def self_test(self) -> None:
        """Hold the module's gradients of made-up users against autograd's, once.

        Beside the weights in use: where all are zero, say, every user has the same loss.

        Raises:
            PerUserGradientError: this module cannot be trained.
        """
        if self._is_tested:
            return
        parameters = list(self._module.parameters())
        kept = [parameter.detach().clone() for parameter in parameters]
        moves = public_uniform(_SELF_TEST_SEED, self._gradients.num_values)
        self.architecture.draw(0)
        with torch.no_grad():
            for parameter in parameters:
                part, moves = np.split(moves, [parameter.numel()])
                parameter.add_(torch.from_numpy(part).view_as(parameter), alpha=_SELF_TEST_MOVE)
        try:
            self._gradients.start_up_self_test(*self._made_up_batch())
        finally:
            with torch.no_grad():
                for parameter, values in zip(parameters, kept, strict=True):
                    parameter.copy_(values)
        self._gradients.measure(*self._long_batch())
        self._is_tested = True

    def rounding(self) -> float:
        """See :meth:`PerUserGradients.rounding`: of made-up users with long histories, at these weights."""
        self.architecture.draw(None)
        return self._gradients.rounding(*self._long_batch())

    def _batches(
        self, interactions: Interactions, users: NDArray[np.int64], dropout: float
    ) -> Iterator[Batch]:
        if interactions is not self._rows:
            self._rows, self._histories, self._whole = interactions, interactions.histories(), None
        at_once = self._users_at_once()
        if not dropout and self._whole is None:
            self._whole = self._cached(at_once)
        for start in range(0, len(users), at_once):
            chosen = users[start : start + at_once]
            if self._whole is not None and not dropout:
                yield tuple(tensor[chosen] for tensor in self._whole)
            else:
                yield self.architecture.batch(*hidden_apart(self._histories[chosen], dropout))

    def _users_at_once(self) -> int:
        return max(1, VALUES_AT_ONCE // (self.architecture.num_scored + self.architecture.inner_values))

    def _cached(self, at_once: int) -> Batch | None:
        """Everybody's batch, if it is small enough to keep."""
        num_users = self._histories.shape[0]
        first = self.architecture.batch(self._histories[:1], self._histories[:1])
        if num_users * sum(tensor.nbytes for tensor in first) > CACHED_BYTES or not num_users:
            return None
        starts = range(0, num_users, at_once)
        parts = [self._histories[start : start + at_once] for start in starts]
        batches = [self.architecture.batch(part, part) for part in parts]
        return tuple(torch.cat(tensors) for tensors in zip(*batches, strict=True))

    def _made_up_batch(self) -> Batch:
        """Three users who have the first two items each and share out all others: nobody's rows.

        One item alone would leave a network that is asked for the next one without a question.
        """
        items = len(self.architecture.catalogue)
        table = np.arange(items)[None, :] % _SELF_TEST_USERS == np.arange(_SELF_TEST_USERS)[:, None]
        table[:, :2] = True
        histories = sp.csr_matrix(table.astype(np.float64))
        return self.architecture.batch(histories, histories)

    def _long_batch(self) -> Batch:
        """Three users with as long histories as there are, in different orders: nobody's rows."""
        items = len(self.architecture.catalogue)
        length = min(items, _LONGEST_MADE_UP)
        orders = public_uniform(_SELF_TEST_SEED, _SELF_TEST_USERS * items).reshape(-1, items).argsort(axis=1)
        chosen = orders[:, :length]
        starts = length * np.arange(_SELF_TEST_USERS + 1)
        parts = (np.ones(chosen.size), chosen.ravel(), starts)
        histories = sp.csr_matrix(parts, shape=(_SELF_TEST_USERS, items))
        return self.architecture.batch(histories, histories)


def hidden_apart(histories: sp.csr_matrix, dropout: float) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """What a network sees of each history, and what it is to score highly.

    Without dropout both are the history. With it, each item is hidden with probability ``dropout`` and the
    hidden ones are the target, as unseen items are what a recommender is asked for; with the visible ones
    among them, a network learns to repeat its input. Fresh coins of the operating system decide: they are as
    private as the rows, and a public seed would tell what a gradient was computed from.

    Returns:
        ``inputs``, ``targets``: users × items. Both hold all items of a history at the same places, in its
        order, as 1 where they are the network's input or its target, as 0 elsewhere.
    """
    if not dropout:
        return histories, histories
    hidden = WordSource.from_os().words(histories.nnz) < np.uint64(floor(ldexp(dropout, WORD_BITS)))

    def only(chosen: NDArray[np.bool_]) -> sp.csr_matrix:
        parts = (np.where(chosen, histories.data, 0.0), histories.indices, histories.indptr)
        return sp.csr_matrix(parts, shape=histories.shape)

    return only(~hidden), only(hidden)
