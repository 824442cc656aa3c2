"""How a silo trains a network over its own ordered histories: ordinary training, nothing of it leaves.

Each step asks for every next item of some people's histories, with the exact softmax over the catalogue.
Training ends when the newest training item of validation people is no longer ranked better; that item is not
trained on, and what a plan holds out is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any, Final, Literal, get_args

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from policies.plans.models import ArchitectureName
from privacy.errors import UsageError
from silo.evaluation import per_user_metrics, rank_scores
from silo.local.errors import LocalPartsError
from silo.local.fusion import METRIC
from silo.local.sequence import IdNetwork, SequenceModel
from silo.models.recommender import Floats
from silo.models.sequence.trunk import NO_ITEM, TrunkSize

Augmentation = Literal["crop", "mask", "reorder"]
Random = np.random.Generator
Sequence = NDArray[np.int64]

MAX_ITEMS: Final = 50_000
"""A step scores every item of the catalogue at every place; above this no network is trained."""
MAX_VALIDATION_USERS: Final = 1_000
SCORES_AT_ONCE: Final = 1 << 26
"""Places × items of one step."""
SHARE_MASKED: Final = 0.2
SHARE_REORDERED: Final = 0.25
LARGEST_GRADIENT: Final = 1.0
_STREAM: Final = 0x5E9


@dataclass(frozen=True, kw_only=True)
class SequenceOptions:
    """What can be decided about a local network; the rest was found on validation people of public sets.

    Attributes:
        architecture: of the trunk.
        augmentations: what a history goes through in each step: ``crop``: any stretch of it instead of the
            newest; ``mask``: a share of its items is hidden from the network; ``reorder``: a stretch of it is
            shuffled.
        width: of item vectors.
        layers: of the trunk.
        places: most items of a history that are read at once.
        dropout: while training.
        learning_rate: of AdamW.
        weight_decay: likewise.
        batch_users: people in a step.
        check_steps: steps between two looks at the validation people, at least; never less than an epoch.
        patience: looks without a better one, after which training ends.
        max_epochs: at most.
        seed: of first values, order and dropout.
    """

    architecture: ArchitectureName = "transformer"
    augmentations: frozenset[Augmentation] = frozenset({"crop"})
    width: int = 64
    layers: int = 2
    places: int = 30
    dropout: float = 0.3
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    batch_users: int = 64
    check_steps: int = 60
    patience: int = 5
    max_epochs: int = 1_000
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self) | {"augmentations": sorted(self.augmentations)}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> SequenceOptions:
        """From a card."""
        return cls(**{**values, "augmentations": frozenset(values["augmentations"])})

    @property
    def size(self) -> TrunkSize:
        """Of the trunk."""
        return TrunkSize(width=self.width, layers=self.layers, places=self.places, dropout=self.dropout)


def read_augmentations(text: str) -> frozenset[Augmentation]:
    """Read names with commas between.

    Raises:
        UsageError: a name that is none.
    """
    names = {name.strip() for name in text.split(",")}
    known: tuple[Augmentation, ...] = get_args(Augmentation)
    if unknown := sorted(names - set(known)):
        raise UsageError(
            f"no augmentation is called {', '.join(map(repr, unknown))}",
            where="--augment",
            remedy=f"choose from {', '.join(known)}",
        )
    return frozenset(name for name in known if name in names)


@dataclass(frozen=True)
class Look:
    """What validation people's newest items say after some training.

    Attributes:
        epoch: epochs so far.
        quality: mean ``METRIC``.
        best: the best so far.
    """

    epoch: int
    quality: float
    best: float


def fit_sequence(
    histories: sp.csr_matrix,
    popularity: Floats,
    options: SequenceOptions,
    notice: Callable[[Look], None] = lambda _: None,
) -> SequenceModel:
    """Train a network; the same input gives the same model on the same machine.

    Args:
        histories: users × items in order of time.
        popularity: (items,) what people without a history get.
        options: what was decided.
        notice: called after every look at the validation people.

    Raises:
        LocalPartsError: the catalogue is too large, or nobody has three items.
    """
    num_items = histories.shape[1]
    if num_items > MAX_ITEMS:
        raise LocalPartsError(
            f"a network over ordered histories is for catalogues of at most {MAX_ITEMS:,} items",
            remedy="leave --architecture out",
        )
    rng = np.random.default_rng([options.seed, _STREAM])
    known, relevant, learnt = _validation_apart(histories, rng)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = IdNetwork(num_items, options.architecture, options.size)
        model = SequenceModel(network, options.architecture, popularity)
        best, best_values, looks_since = -1.0, network.values(), 0
        for epoch in _epochs(network, learnt, options, rng):
            scores = model.scores(known)
            quality = float(per_user_metrics(rank_scores(scores, known, relevant))[METRIC].mean())
            looks_since += 1
            if quality > best:
                best, best_values, looks_since = quality, network.values(), 0
            notice(Look(epoch, quality, best))
            if looks_since >= options.patience:
                break
    network.set_values(best_values)
    return model


def _validation_apart(
    histories: sp.csr_matrix, rng: Random
) -> tuple[sp.csr_matrix, sp.csr_matrix, list[Sequence]]:
    """Half of the people, at most ``MAX_VALIDATION_USERS``, without their newest item; that item; the rest.

    Raises:
        LocalPartsError: nobody has three items.
    """
    lengths = np.diff(histories.indptr)
    long_enough = rng.permutation(np.flatnonzero(lengths >= 3))
    chosen = np.sort(long_enough[: min(MAX_VALIDATION_USERS, ceil(long_enough.size / 2))])
    if not chosen.size:
        raise LocalPartsError(
            "nobody has three items in order, so there is nothing to learn what comes next from",
            remedy="leave --architecture out",
        )
    rows = np.split(histories.indices, histories.indptr[1:-1])
    starts = np.concatenate(([0], np.cumsum(lengths[chosen] - 1)))
    before = np.concatenate([rows[user][:-1] for user in chosen])
    shape = (chosen.size, histories.shape[1])
    known = sp.csr_matrix((np.ones(before.size), before, starts), shape=shape)
    newest = np.array([rows[user][-1] for user in chosen])
    relevant = sp.csr_matrix((np.ones(chosen.size), newest, np.arange(chosen.size + 1)), shape=shape)
    for user in chosen:
        rows[user] = rows[user][:-1]
    return known, relevant, [row.astype(np.int64) for row in rows if row.size >= 2]


def _epochs(
    network: IdNetwork, learnt: list[Sequence], options: SequenceOptions, rng: Random
) -> Iterator[int]:
    """Train; yields the number of epochs whenever it is time to look."""
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    fitting = SCORES_AT_ONCE // (options.places * network.num_items)
    at_once = max(1, min(options.batch_users, fitting))
    steps = 0
    for epoch in range(1, options.max_epochs + 1):
        network.train()
        order = rng.permutation(len(learnt))
        for start in range(0, len(order), at_once):
            rows = [learnt[user] for user in order[start : start + at_once]]
            loss = _loss(network, rows, options.augmentations, rng)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimiser.step()
            steps += 1
        if steps >= options.check_steps or epoch == options.max_epochs:
            steps = 0
            yield epoch


def _loss(
    network: IdNetwork, rows: list[Sequence], augmentations: frozenset[Augmentation], rng: Random
) -> Tensor:
    """Mean cross-entropy of everything that is asked for in these histories."""
    is_causal = network.trunk.is_causal
    places = network.places + is_causal
    stretches = [_stretch(row, places, augmentations, rng) for row in rows]
    lengths = np.array([len(stretch) for stretch in stretches])
    table = np.full((len(rows), lengths.max()), NO_ITEM)
    for row, stretch in zip(table, stretches, strict=True):
        row[: len(stretch)] = stretch
    if is_causal:
        share = SHARE_MASKED if "mask" in augmentations else 0.0
        hidden = np.asarray(rng.random(table.shape)) < share
        seen, wanted = np.where(hidden, network.hidden, table)[:, :-1], table[:, 1:]
        seen[wanted == NO_ITEM] = NO_ITEM
    else:
        hidden = _hidden_places(lengths, rng)
        seen, wanted = np.where(hidden, network.hidden, table), np.where(hidden, table, NO_ITEM)
    asked = torch.from_numpy(wanted != NO_ITEM)
    logits = network.logits(network(torch.from_numpy(seen))[asked])
    return functional.cross_entropy(logits, torch.from_numpy(wanted)[asked])


def _hidden_places(lengths: Sequence, rng: Random) -> NDArray[np.bool_]:
    """What a network that looks both ways is asked for: any places, or the newest alone as when it serves."""
    places = np.arange(lengths.max())
    is_newest = places == lengths[:, None] - 1
    hidden = (rng.random(is_newest.shape) < SHARE_MASKED) & (places < lengths[:, None])
    only_newest = (rng.random(len(lengths)) < 0.5) | ~hidden.any(axis=1)
    chosen: NDArray[np.bool_] = np.where(only_newest[:, None], is_newest, hidden)
    return chosen


def _stretch(row: Sequence, places: int, augmentations: frozenset[Augmentation], rng: Random) -> Sequence:
    """At most ``places`` items of a history, in order unless shuffled."""
    first = max(0, len(row) - places)
    if "crop" in augmentations:
        first = int(rng.integers(0, first + 1))
    stretch = row[first : first + places]
    if "reorder" in augmentations:
        length = ceil(SHARE_REORDERED * len(stretch))
        start = int(rng.integers(0, len(stretch) - length + 1))
        stretch = stretch.copy()
        rng.shuffle(stretch[start : start + length])
    return stretch
