"""The label silo's model on its own items and the numbers that feature silos released.

A denoising autoencoder (Liang et al. 2018) whose input is a person's items and their noised numbers:
``[x/|x|, z] → Linear → tanh → Linear → scores of items``, asked for items that it was not shown. Its scores
are mixed with those of the label silo alone (ridge or EASE); how much is chosen on held-out items of half of
the people, so with numbers that say nothing little changes.

Gradients are per person and clipped by the code that DP-SGD uses, without noise: the model reads the label
silo's own rows, serves its own people and leaves nowhere (``releases.model: label``). The numbers carry their
noise already; training on them costs their owners nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from privacy.dpsgd import PerUserGradients
from silo.evaluation import Rankings, per_user_metrics, rank_scores
from silo.models.session import hidden_apart
from silo.vertical.joint.model import JointModel, Matrix, Vector
from silo.vertical.joint.selection import METRIC, LabelUsers

MIXINGS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True)
class TopSettings:
    """Constants of the training.

    Attributes:
        hidden: units between input and scores.
        epochs: passes over the people.
        batch_size: people of a step.
        learning_rate: of Adam, falling linearly to 0.
        input_dropout: share of a person's items that is hidden and asked for.
        max_grad_norm: of one person.
        seed: of first weights and batches; the rows are the label silo's own.
    """

    hidden: int = 64
    epochs: int = 20
    batch_size: int = 512
    learning_rate: float = 0.005
    input_dropout: float = 0.4
    max_grad_norm: float = 1.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TopModel:
    """Scores from a person's items and numbers.

    Attributes:
        alone: the label silo's model of its own rows.
        tables: the network's weights by name, float64.
        mixing: share of the network in the scores, 0 to 1.
    """

    alone: JointModel
    tables: Mapping[str, Matrix]
    mixing: float = 0.0

    def scores(self, rows: sp.csr_matrix, numbers: Matrix) -> Matrix:
        """Scores of all items; those of items that a person has already mean nothing.

        Args:
            rows: people × items of 0 and 1.
            numbers: people × numbers of all feature silos, noised; zeros where there are none.

        Returns:
            people × items float64, larger is better.
        """
        own = standardised(self.alone.scores(rows))
        if not self.mixing:
            return own
        return (1 - self.mixing) * own + self.mixing * standardised(self._network_scores(rows, numbers))

    def _network_scores(self, rows: sp.csr_matrix, numbers: Matrix) -> Matrix:
        tables = self.tables
        inputs = _inputs(rows, numbers).numpy()
        hidden = np.tanh(inputs @ tables["encoder.weight"].T + tables["encoder.bias"])
        scores: Matrix = hidden @ tables["decoder.weight"].T + tables["decoder.bias"]
        return scores


def train_top_model(
    users: LabelUsers, alone: JointModel, numbers: Matrix, settings: TopSettings | None = None
) -> TopModel:
    """Train the network on everybody's training rows, then choose the mixing on the validation users.

    Args:
        users: the label silo's.
        alone: its own model.
        numbers: people × numbers, as released.
        settings: constants.

    Raises:
        PerUserGradientError: a check of the gradients failed.
    """
    tables = trained_tables(users.rows, numbers, settings)
    tried = (TopModel(alone, tables, mixing) for mixing in MIXINGS)
    return max(tried, key=lambda model: _metric(users, model, numbers))


def top_rankings(
    users: LabelUsers, chosen: npt.NDArray[np.int64], model: TopModel, numbers: Matrix
) -> Rankings:
    """Rank the unseen items of some users."""
    rows = users.rows[chosen]
    return rank_scores(model.scores(rows, numbers[chosen]), rows, users.held_out[chosen])


def _metric(users: LabelUsers, model: TopModel, numbers: Matrix) -> float:
    ranked = top_rankings(users, users.validation, model, numbers)
    return float(np.mean(per_user_metrics(ranked)[METRIC]))


def standardised(scores: Matrix) -> Matrix:
    """Each person's scores with mean 0 and deviation 1, so that models can be mixed."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    scaled: Matrix = centred / np.where(spread > 0, spread, 1.0)
    return scaled


def trained_tables(
    rows: sp.csr_matrix, numbers: Matrix, settings: TopSettings | None = None
) -> dict[str, Matrix]:
    """Train the network on everybody who has a row; weights by name. Arguments as :func:`train_top_model`."""
    settings = settings or TopSettings()
    rng = np.random.default_rng(settings.seed)
    module = _module(rows, numbers.shape[1], settings, rng)
    gradients = PerUserGradients(module, _loss_per_user, settings.max_grad_norm, clipping="automatic")
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    people = np.flatnonzero(np.diff(rows.indptr) > 0)
    steps = settings.epochs * -(-people.size // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-3, total_iters=max(steps, 1))
    for _ in range(settings.epochs):
        order = rng.permutation(people)
        for start in range(0, order.size, settings.batch_size):
            chosen = order[start : start + settings.batch_size]
            seen, wanted = hidden_apart(rows[chosen], settings.input_dropout)
            total = gradients.clipped_sum(_inputs(seen, numbers[chosen]), _targets(wanted))
            _set_gradients(parameters, total / chosen.size)
            optimizer.step()
            schedule.step()
    return {name: value.detach().numpy().copy() for name, value in module.named_parameters()}


def _module(
    rows: sp.csr_matrix, num_numbers: int, settings: TopSettings, rng: np.random.Generator
) -> nn.Module:
    """Scores start from how many people have each item."""
    items, hidden = rows.shape[1], settings.hidden
    encoder = nn.Linear(items + num_numbers, hidden, dtype=torch.float64)
    decoder = nn.Linear(hidden, items, dtype=torch.float64)
    counts = np.asarray(rows.sum(axis=0), dtype=np.float64).ravel() + 1.0
    with torch.no_grad():
        encoder.weight.copy_(torch.from_numpy(rng.normal(0, hidden**-0.5, encoder.weight.shape)))
        encoder.bias.zero_()
        decoder.weight.copy_(torch.from_numpy(rng.normal(0, 0.1 * hidden**-0.5, decoder.weight.shape)))
        decoder.bias.copy_(torch.from_numpy(np.log(counts / counts.sum())))
    return nn.Sequential(OrderedDict(encoder=encoder, activation=nn.Tanh(), decoder=decoder))


def _inputs(rows: sp.csr_matrix, numbers: Matrix) -> Tensor:
    items = normalize(torch.from_numpy(rows.toarray().astype(np.float64)), dim=1)
    return torch.cat([items, torch.from_numpy(numbers)], dim=1)


def _targets(rows: sp.csr_matrix) -> Tensor:
    return torch.from_numpy(rows.toarray() / np.maximum(np.diff(rows.indptr), 1)[:, None])


def _loss_per_user(model: nn.Module, *batch: Tensor) -> Tensor:
    inputs, targets = batch
    return -(targets * torch.log_softmax(model(inputs), dim=1)).sum(dim=1)


def _set_gradients(parameters: Sequence[nn.Parameter], gradient: Vector) -> None:
    start = 0
    for parameter in parameters:
        part = gradient[start : start + parameter.numel()]
        parameter.grad = torch.from_numpy(part.copy()).view_as(parameter)
        start += parameter.numel()
