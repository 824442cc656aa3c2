"""Models and losses that silently protect something smaller than a person; each is caught before a release.

At start-up, on made-up users, and once more at a later step, because what a model does may depend on rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.dpsgd import Mode, PerUserGradientError, PerUserGradients
from tests.support.user_models import HISTORY, MODES, NUM_ITEMS, WIDTH, Tower, batch, losses, made

IN_BOTH_MODES = pytest.mark.parametrize("mode", MODES)


class ItemsFoldedIntoTheBatch(Tower):
    """A layer whose first dimension counts interactions: each interaction is clipped, not each person."""

    def forward(self, histories: Tensor) -> Tensor:
        flat = self.scores(self.items(histories).reshape(-1, WIDTH))
        scores: Tensor = flat.reshape(*histories.shape, NUM_ITEMS).mean(1)
        return scores


class PlacesSharedByAllUsers(Tower):
    """Position ids with a batch dimension of one: everybody's gradient in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(HISTORY, WIDTH)

    def forward(self, histories: Tensor) -> Tensor:
        places = self.places(torch.arange(HISTORY)[None, :])
        scores: Tensor = self.scores((self.items(histories) + places).mean(1))
        return scores


class WeightsBehindTheHooksBack(Tower):
    """Scores by the embedding's own weights, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        del self.scores

    def forward(self, histories: Tensor) -> Tensor:
        return self.items(histories).mean(1) @ self.items.weight.T


class WeightsBehindTheHooksBackByFunction(WeightsBehindTheHooksBack):
    """The same by a functional call."""

    def forward(self, histories: Tensor) -> Tensor:
        return functional.linear(self.items(histories).mean(1), self.items.weight)


class ScoresRelativeToTheBatch(Tower):
    """One user moves everybody's gradient, each of them clipped."""

    def forward(self, histories: Tensor) -> Tensor:
        scores = super().forward(histories)
        return scores - scores.mean(0)


class BatchStatisticsWithoutWeights(Tower):
    """Batch normalisation that has nothing to train passes Opacus' own validation."""

    def __init__(self) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm1d(NUM_ITEMS, affine=False, track_running_stats=False)

    def forward(self, histories: Tensor) -> Tensor:
        scores: Tensor = super().forward(histories)
        return self.normalise(scores) if len(scores) > 1 else scores


class TossesCoins(Tower):
    """Dropout inside the model: nobody's gradient can be checked against their own rows."""

    def forward(self, histories: Tensor) -> Tensor:
        return functional.dropout(super().forward(histories), 0.5)


class IgnoresALayer(Tower):
    """A trainable parameter that takes no part: its gradient would be somebody else's leftover."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


def in_batch_negatives(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
    """Everybody else's next item as what this user should not like."""
    scores = model(histories)[:, targets]
    return -torch.log_softmax(scores, dim=1).diagonal()


MODELS = [
    ItemsFoldedIntoTheBatch,
    PlacesSharedByAllUsers,
    WeightsBehindTheHooksBack,
    WeightsBehindTheHooksBackByFunction,
    ScoresRelativeToTheBatch,
    BatchStatisticsWithoutWeights,
    TossesCoins,
    IgnoresALayer,
]


@IN_BOTH_MODES
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_breaks_the_unit_of_privacy_does_not_start(kind: type[Tower], mode: Mode) -> None:
    with pytest.raises(PerUserGradientError):
        PerUserGradients(made(kind), losses, 1.0, mode=mode).start_up_self_test(*batch(3))


@IN_BOTH_MODES
@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (ItemsFoldedIntoTheBatch, "not one per user"),
        (PlacesSharedByAllUsers, "not one per user"),
        (WeightsBehindTheHooksBack, "do not add up"),
        (WeightsBehindTheHooksBackByFunction, "do not add up"),
        (ScoresRelativeToTheBatch, "not the one of that user alone"),
        (BatchStatisticsWithoutWeights, "not the one of that user alone"),
        (TossesCoins, "not the one of that user alone"),
        (IgnoresALayer, "took no part"),
    ],
)
def test_misuse_is_caught_at_every_step_and_not_only_at_the_start(
    kind: type[Tower], finding: str, mode: Mode
) -> None:
    with pytest.raises(PerUserGradientError, match=finding):
        PerUserGradients(made(kind), losses, 1.0, mode=mode).clipped_sum(*batch(8))


@IN_BOTH_MODES
def test_in_batch_negatives_are_caught(mode: Mode) -> None:
    with pytest.raises(PerUserGradientError):
        PerUserGradients(made(), in_batch_negatives, 1.0, mode=mode).start_up_self_test(*batch(3))
    with pytest.raises(PerUserGradientError, match="not the one of that user alone"):
        PerUserGradients(made(), in_batch_negatives, 1.0, mode=mode).clipped_sum(*batch(8))


def asleep(misbehaving: type[Tower]) -> type[Tower]:
    """The same model, but for three users or fewer it is an honest one."""

    class Asleep(misbehaving):  # type: ignore[misc, valid-type]
        def forward(self, histories: Tensor) -> Tensor:
            kind = Tower if len(histories) <= 3 else misbehaving
            return kind.forward(self, histories)

    return Asleep


@IN_BOTH_MODES
@pytest.mark.parametrize("misbehaving", [ItemsFoldedIntoTheBatch, ScoresRelativeToTheBatch, TossesCoins])
def test_a_model_that_behaves_until_real_users_come_is_caught_then(
    misbehaving: type[Tower], mode: Mode
) -> None:
    gradients = PerUserGradients(made(asleep(misbehaving)), losses, 1.0, mode=mode)
    gradients.start_up_self_test(*batch(3))
    with pytest.raises(PerUserGradientError):
        gradients.clipped_sum(*batch(8))


@IN_BOTH_MODES
def test_one_person_cannot_silence_everybody_with_a_nan(mode: Mode) -> None:
    """If one user's NaN makes all gradients NaN, the sum is not that of the others: an error, not zero."""

    def poisoned(model: nn.Module, histories: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return losses(model, histories, targets) * weights.mean()

    weights = torch.ones(400, dtype=torch.float64)
    weights[0] = float("nan")
    gradients = PerUserGradients(made(), poisoned, 1.0, mode=mode)
    with pytest.raises(PerUserGradientError, match="who else is in the batch"):
        _repeatedly(lambda: gradients.clipped_sum(*batch(400), weights))


def _repeatedly(step: Callable[[], object]) -> None:
    """The user drawn for the check is the one with the NaN in one case of four hundred, not three times."""
    for _ in range(3):
        step()


@IN_BOTH_MODES
def test_a_clip_that_bounds_each_interaction_is_caught(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long history would move the sum many times the norm."""
    room = "privacy.dpsgd." + mode
    monkeypatch.setattr(f"{room}.clip_factors", lambda norms, norm, kind: np.ones(len(norms)))
    gradients = PerUserGradients(made(), losses, 1e-3, mode=mode)
    with pytest.raises(PerUserGradientError, match="more than the clip norm"):
        gradients.start_up_self_test(*batch(3))
