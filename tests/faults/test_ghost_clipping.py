"""Attacks on clipping without gradients: what Opacus' ghost mode lets through, ours does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from privacy.clipping import Clipping
from privacy.dpsgd import Mode, PerUserGradientError, PerUserGradients
from privacy.dpsgd.base import BatchGradients, known_warnings
from privacy.dpsgd.layers import OuterProducts
from tests.support.user_models import (
    KINDS,
    NUM_ITEMS,
    TiedLayers,
    Tower,
    batch,
    by_hand,
    gradient_of,
    losses,
    made,
)

WITH_BOTH_KINDS = pytest.mark.parametrize("clipping", KINDS)
MAX_NORM = 0.1


class BehindTheHooksBack(nn.Module):
    """Scores by the embedding's own weights: half of its gradient passes no hook."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS, 4)

    def forward(self, histories: Tensor) -> Tensor:
        return 5 * self.items(histories).mean(1) @ self.items.weight.T


def opacus_clipped_sum(model: nn.Module, users: tuple[Tensor, ...], max_norm: float) -> np.ndarray:
    """The second backward pass of Opacus' own ghost clipping."""
    hooked = GradSampleModuleFastGradientClipping(model, loss_reduction="sum", max_grad_norm=max_norm)
    with known_warnings():
        found = losses(hooked, *users)
        found.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        factors = hooked.get_clipping_coef()
        hooked.zero_grad(set_to_none=True)
        hooked.disable_hooks()
        (factors * found).sum().backward()
    return torch.cat([p.grad.ravel() for p in hooked.parameters() if p.grad is not None]).numpy()


def test_weights_behind_the_hooks_back_exceed_the_clip_norm_in_opacus_and_are_refused_here() -> None:
    user = tuple(tensor[:1] for tensor in batch(1))
    assert np.linalg.norm(opacus_clipped_sum(made(BehindTheHooksBack), user, MAX_NORM)) > 1.2 * MAX_NORM
    gradients = PerUserGradients(made(BehindTheHooksBack), losses, MAX_NORM, mode="ghost")
    with pytest.raises(PerUserGradientError, match="do not add up"):
        gradients.clipped_sum(*user)


@WITH_BOTH_KINDS
def test_even_with_every_check_cut_out_no_user_exceeds_the_clip_norm(
    clipping: Clipping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The contribution is the vector whose norm was taken, so misuse spoils the model and not the privacy."""
    gradients = PerUserGradients(made(BehindTheHooksBack), losses, MAX_NORM, clipping=clipping, mode="ghost")
    for check in ("_check_alone", "_check_unusable_alone"):
        monkeypatch.setattr(gradients, check, lambda *_: None)
    monkeypatch.setattr(BatchGradients, "_check_difference", lambda *_: None)
    users = batch(30)
    everybody = gradients.clipped_sum(*users)
    assert np.linalg.norm(everybody - by_hand(made(BehindTheHooksBack), users, MAX_NORM, clipping)) > MAX_NORM
    for user in range(30):
        keep = torch.arange(30) != user
        moved = everybody - gradients.clipped_sum(*(tensor[keep] for tensor in users))
        assert np.linalg.norm(moved) <= MAX_NORM


class Cancelling(nn.Module):
    """A layer whose positions nearly cancel in the gradient, so a norm by inner products is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 40)

    def forward(self, places: Tensor) -> Tensor:
        found: Tensor = self.layer(places)
        return found


def opposed(num_users: int, cancellation: float) -> tuple[Tensor, Tensor]:
    """Two positions a user with opposite gradients that many times longer than what is left of both."""
    generator = torch.Generator().manual_seed(5)
    place = torch.randn(num_users, 1, 3, generator=generator, dtype=torch.float64)
    difference = torch.randn(num_users, 1, 3, generator=generator, dtype=torch.float64) / cancellation
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64).expand(num_users, 2)
    return torch.cat([place, place + difference], dim=1), cancellation * signs


def signed_sum(model: nn.Module, places: Tensor, signs: Tensor) -> Tensor:
    return (model(places) * signs[:, :, None]).sum(dim=(1, 2))


def test_positions_that_cancel_hide_a_norm_from_inner_products_and_are_refused_here() -> None:
    users = opposed(8, 1e10)
    hooked = GradSampleModuleFastGradientClipping(made(Cancelling), loss_reduction="sum", max_grad_norm=1.0)
    with known_warnings():
        signed_sum(hooked, *users).sum().backward()  # type: ignore[no-untyped-call]
    real = np.array([np.linalg.norm(gradient_of(made(Cancelling), users, n, signed_sum)) for n in range(8)])
    assert real.min() > 1
    assert hooked.get_norm_sample().numpy().min() < 0.1 * real.min()

    gradients = PerUserGradients(made(Cancelling), signed_sum, 1.0, mode="ghost")
    with pytest.raises(PerUserGradientError):
        gradients.clipped_sum(*users)


def test_positions_that_cancel_as_far_as_float64_can_tell_are_clipped_rightly() -> None:
    users = opposed(8, 1e4)
    gradients = PerUserGradients(made(Cancelling), signed_sum, 1.0, mode="ghost")
    assert gradients.clipped_sum(*users) == pytest.approx(
        by_hand(made(Cancelling), users, 1.0, loss=signed_sum), abs=1e-8
    )


def test_a_nan_times_zero_does_not_poison_the_sum() -> None:
    """Opacus gives the user factor NaN, and with a factor of zero the product would still be NaN."""
    model = made()
    histories, targets = batch(5)

    def weighted(model: nn.Module, histories: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return losses(model, histories, targets) * weights

    weights = torch.tensor([1.0, 1.0, float("nan"), 1.0, 1.0], dtype=torch.float64)
    keep = torch.tensor([0, 1, 3, 4])
    found = PerUserGradients(model, weighted, MAX_NORM, mode="ghost").clipped_sum(histories, targets, weights)
    assert found == pytest.approx(by_hand(made(), (histories[keep], targets[keep]), MAX_NORM), abs=1e-8)


def test_lengths_that_underflow_do_not_hide_a_gradient() -> None:
    """|a| computes to zero and |b| to 1e151, yet their product is longer than the norm."""
    inputs = torch.full((1, 2), 1e-170, dtype=torch.float64)

    def steep(model: nn.Module, inputs: Tensor) -> Tensor:
        return 1e150 * model(inputs).sum(dim=1)

    layer = nn.Linear(2, 600, bias=False).double()
    assert np.linalg.norm(gradient_of(layer, (inputs,), 0, steep)) > 1e-20
    gradients = PerUserGradients(nn.Linear(2, 600, bias=False).double(), steep, 1e-21, mode="ghost")
    assert np.linalg.norm(gradients.clipped_sum(inputs)) <= 1e-21


def test_a_norm_that_is_measured_too_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = OuterProducts.norms.func
    monkeypatch.setattr(OuterProducts, "norms", property(lambda self: measured(self) / 2))
    with pytest.raises(PerUserGradientError, match="longer than the clip norm"):
        PerUserGradients(made(), losses, 1e-3, mode="ghost").clipped_sum(*batch(10))


@pytest.mark.parametrize("clipping", KINDS)
def test_a_gradient_too_large_for_its_square_counts_as_nobody(clipping: Clipping) -> None:
    def steep(model: nn.Module, histories: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return losses(model, histories, targets) * weights

    gradients = PerUserGradients(made(), steep, 1.0, clipping=clipping, mode="ghost")
    weights = torch.tensor([1.0, 1e200], dtype=torch.float64)
    found = gradients.clipped_sum(*batch(2), weights)
    alone = tuple(tensor[:1] for tensor in batch(2))
    assert found == pytest.approx(by_hand(made(), alone, 1.0, clipping), abs=1e-8)


def twice() -> nn.Module:
    class Twice(Tower):
        def forward(self, histories: Tensor) -> Tensor:
            scores: Tensor = self.scores(self.items(histories).mean(1) + self.items(histories.flip(1))[:, 0])
            return scores

    return Twice()


@pytest.mark.parametrize("kind", [TiedLayers, twice])
def test_a_weight_used_twice_is_refused_and_not_clipped_by_half(kind: type[nn.Module]) -> None:
    gradients = PerUserGradients(made(kind), losses, 1.0, mode="ghost")
    for _ in range(2):
        with pytest.raises(PerUserGradientError, match=r"[Tt]ying|two layers") as caught:
            gradients.clipped_sum(*batch(4))
        assert "mode='hooks'" in str(caught.value.remedy)
    hooks = PerUserGradients(made(kind), losses, 1.0, mode="hooks")
    assert hooks.clipped_sum(*batch(4)) == pytest.approx(by_hand(made(kind), batch(4), 1.0), abs=1e-8)


def test_the_samplers_of_others_in_the_process_stay_as_they_are() -> None:
    before = dict(GradSampleModuleFastGradientClipping.NORM_SAMPLERS)
    PerUserGradients(made(), losses, 1.0, mode="ghost").clipped_sum(*batch(3))
    assert before == GradSampleModuleFastGradientClipping.NORM_SAMPLERS


class ChangedAfterUse(nn.Module):
    """Autograd is right, for it copied the transposed input; the hooks' alias shows the last user's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 6)

    def forward(self, places: Tensor) -> Tensor:
        turned = (places * 1.0).mT
        found = self.first(turned)
        turned.data[0] = turned.data[-1]
        loss: Tensor = self.second(torch.tanh(found)).square().sum((1, 2))
        return loss


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
def test_an_input_overwritten_with_another_users_is_refused_at_every_step(mode: Mode) -> None:
    gradients = PerUserGradients(made(ChangedAfterUse), lambda model, x: model(x), 0.5, mode=mode)
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        with pytest.raises(PerUserGradientError, match="do not add up"):
            gradients.clipped_sum(3 * torch.randn(64, 3, 6, generator=generator, dtype=torch.float64))
