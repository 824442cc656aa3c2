from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy import dpsgd as dpsgd_module
from privacy.accounting import epsilon_of
from privacy.budget import RenyiFilter
from privacy.calibration import release_event
from privacy.clipping import ClippingError
from privacy.dpsgd import PerUserGradientError, PerUserGradients, opacus_rdp_epsilon
from privacy.events import EventCount

NUM_ITEMS, WIDTH, HISTORY = 12, 4, 5


class Tower(nn.Module):
    """Mean of item embeddings, then one layer of scores."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS, WIDTH)
        self.scores = nn.Linear(WIDTH, NUM_ITEMS)

    def forward(self, histories: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.items(histories).mean(1))
        return scores


class DirectlyUsedWeights(Tower):
    """Scores by the embedding's own weights, which no hook sees."""

    def __init__(self) -> None:
        super().__init__()
        del self.scores

    def forward(self, histories: Tensor) -> Tensor:
        return self.items(histories).mean(1) @ self.items.weight.T


class ItemsFoldedIntoTheBatch(Tower):
    """A layer whose first dimension counts interactions instead of users: item-level clipping."""

    def forward(self, histories: Tensor) -> Tensor:
        flat = self.scores(self.items(histories).reshape(-1, WIDTH))
        scores: Tensor = flat.reshape(*histories.shape, NUM_ITEMS).mean(1)
        return scores


class MixedUsers(Tower):
    """Scores relative to the batch's mean: one user moves everybody's gradient."""

    def forward(self, histories: Tensor) -> Tensor:
        scores = super().forward(histories)
        return scores - scores.mean(0) if len(scores) > 1 else scores


class DropsOut(Tower):
    """A layer that tosses coins."""

    def forward(self, histories: Tensor) -> Tensor:
        return functional.dropout(super().forward(histories), 0.5)


class UnusedLayer(Tower):
    """A trainable parameter that the loss ignores."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)


def losses(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(model(histories), targets, reduction="none")


def made(kind: type[Tower] = Tower, dtype: torch.dtype = torch.float32) -> Tower:
    generator = torch.Generator().manual_seed(3)
    model = kind().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def batch(num_users: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    histories = torch.randint(0, NUM_ITEMS, (num_users, HISTORY), generator=generator)
    return histories, torch.randint(0, NUM_ITEMS, (num_users,), generator=generator)


def by_hand(model: nn.Module, users: tuple[Tensor, Tensor], max_norm: float) -> list[float]:
    total = np.zeros(sum(p.numel() for p in model.parameters()))
    for user in range(len(users[0])):
        loss = losses(model, users[0][user : user + 1], users[1][user : user + 1]).sum()
        gradient = torch.cat([g.ravel() for g in torch.autograd.grad(loss, list(model.parameters()))])
        row = gradient.double().numpy()
        total += row * min(1.0, max_norm / np.linalg.norm(row))
    return list(total)


@pytest.mark.parametrize("max_norm", [0.05, 1.0, 1e3])
def test_the_sum_is_that_of_gradients_clipped_one_user_at_a_time(max_norm: float) -> None:
    users = batch(17)
    found = PerUserGradients(made(), losses, max_norm).clipped_sum(*users)
    assert found.dtype == np.float64
    assert list(found) == pytest.approx(by_hand(made(), users, max_norm), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("memory", [1, 40_000, 1 << 28])
def test_memory_is_bounded_without_changing_the_sum(memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = PerUserGradients(made(dtype=torch.float64), losses, 0.5).clipped_sum(*batch(30))
    gradients = PerUserGradients(made(dtype=torch.float64), losses, 0.5, max_memory_bytes=memory)
    largest = 0
    clip = dpsgd_module.clip_rows

    def watched(rows: np.ndarray, max_norm: float) -> np.ndarray:
        nonlocal largest
        largest = max(largest, rows.shape[0])
        return clip(rows, max_norm)

    monkeypatch.setattr(dpsgd_module, "clip_rows", watched)
    assert gradients.clipped_sum(*batch(30)) == pytest.approx(at_once, abs=1e-8)
    assert largest == max(1, min(30, memory // (48 * gradients.num_values)))


def test_a_batch_without_users_is_zero() -> None:
    found = PerUserGradients(made(), losses, 1.0).clipped_sum(*batch(0))
    assert found.shape == (NUM_ITEMS * WIDTH + WIDTH * NUM_ITEMS + NUM_ITEMS,)
    assert not found.any()


def test_no_user_random_or_adversarial_moves_the_sum_by_more_than_the_norm() -> None:
    max_norm = 0.3
    gradients = PerUserGradients(made(dtype=torch.float64), losses, max_norm)
    histories, targets = batch(40, seed=1)
    adversarial = torch.stack([torch.full((HISTORY,), item) for item in range(NUM_ITEMS)])
    histories = torch.cat([histories, adversarial])
    targets = torch.cat([targets, torch.arange(NUM_ITEMS).flip(0)])
    everybody = gradients.clipped_sum(histories, targets)
    for user in range(len(targets)):
        keep = torch.arange(len(targets)) != user
        moved = everybody - gradients.clipped_sum(histories[keep], targets[keep])
        assert np.linalg.norm(moved) <= max_norm * (1 + 1e-7)


def test_a_user_with_an_infinite_or_undefined_gradient_counts_as_nobody() -> None:
    def weighted(model: nn.Module, histories: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return losses(model, histories, targets) * weights

    users = batch(4)
    gradients = PerUserGradients(made(), weighted, 1.0)
    healthy = gradients.clipped_sum(*(t[1:3] for t in users), torch.ones(2))
    weights = torch.tensor([float("nan"), 1.0, 1.0, float("inf")])
    assert gradients.clipped_sum(*users, weights) == pytest.approx(healthy, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_honest_model_passes_the_self_test(dtype: torch.dtype) -> None:
    PerUserGradients(made(dtype=dtype), losses, 1.0).start_up_self_test(*batch(3))


@pytest.mark.parametrize(
    "kind", [DirectlyUsedWeights, ItemsFoldedIntoTheBatch, MixedUsers, DropsOut, UnusedLayer]
)
def test_a_model_that_breaks_the_unit_of_privacy_fails_the_self_test(kind: type[Tower]) -> None:
    with pytest.raises(PerUserGradientError):
        PerUserGradients(made(kind), losses, 1.0).start_up_self_test(*batch(3))


@pytest.mark.parametrize(
    ("kind", "finding"),
    [(DirectlyUsedWeights, "do not add up"), (ItemsFoldedIntoTheBatch, "not one per user")],
)
def test_misuse_is_caught_at_every_step_and_not_only_at_the_start(kind: type[Tower], finding: str) -> None:
    with pytest.raises(PerUserGradientError, match=finding):
        PerUserGradients(made(kind), losses, 1.0).clipped_sum(*batch(8))


def test_item_level_clipping_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip that bounds each interaction lets one long history move the sum many times the norm."""
    clip = dpsgd_module.clip_rows
    monkeypatch.setattr(dpsgd_module, "clip_rows", lambda rows, norm: clip(rows, HISTORY * norm))
    with pytest.raises(PerUserGradientError, match="more than the clip norm"):
        PerUserGradients(made(), losses, 1.0).start_up_self_test(*batch(3))


def test_a_loss_summed_over_users_is_refused() -> None:
    def summed(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
        return losses(model, histories, targets).sum()

    with pytest.raises(PerUserGradientError, match="loss has shape"):
        PerUserGradients(made(), summed, 1.0).clipped_sum(*batch(3))


def test_models_that_opacus_cannot_take_apart_are_refused() -> None:
    with pytest.raises(PerUserGradientError, match="Opacus"):
        PerUserGradients(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), losses, 1.0)
    hooked_before = made()
    PerUserGradients(hooked_before, losses, 1.0)
    with pytest.raises(PerUserGradientError, match="Opacus"):
        PerUserGradients(hooked_before, losses, 1.0)
    frozen = made().requires_grad_(False)
    with pytest.raises(PerUserGradientError, match="no trainable"):
        PerUserGradients(frozen, losses, 1.0)


def test_a_frozen_layer_takes_no_part() -> None:
    model = made()
    model.items.requires_grad_(False)
    gradients = PerUserGradients(model, losses, 1.0)
    gradients.start_up_self_test(*batch(3))
    assert gradients.clipped_sum(*batch(5)).shape == (WIDTH * NUM_ITEMS + NUM_ITEMS,)


def test_impossible_arguments_are_refused() -> None:
    with pytest.raises(ClippingError):
        PerUserGradients(made(), losses, float("nan"))
    gradients = PerUserGradients(made(), losses, 1.0)
    with pytest.raises(PerUserGradientError, match="three users"):
        gradients.start_up_self_test(*batch(2))
    with pytest.raises(PerUserGradientError, match="differ in their number"):
        gradients.clipped_sum(batch(3)[0], batch(4)[1])


def test_parameters_stay_the_models_own_between_steps() -> None:
    model = made()
    gradients = PerUserGradients(model, losses, 1.0)
    before = gradients.clipped_sum(*batch(6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    after = gradients.clipped_sum(*batch(6))
    assert not np.array_equal(before, after)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.02, 500), (0.8, 0.1, 30), (2.0, 1.0, 5)])
def test_the_filter_is_never_below_opacus_own_accountant(noise: float, rate: float, steps: int) -> None:
    spec = RenyiFilter(orders=(2, 3, 4, 6, 8, 16, 32, 64))
    ours = epsilon_of([EventCount(release_event(noise, sample_rate=rate), steps)], 1e-5, spec)
    theirs = opacus_rdp_epsilon(noise, rate, steps, 1e-5)
    assert theirs <= ours * (1 + 1e-3)
    assert ours <= 1.35 * theirs
