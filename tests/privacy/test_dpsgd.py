from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.layers import DPGRU
from torch import Tensor, nn

from privacy.clipping import Clipping, ClippingError
from privacy.dpsgd import Mode, PerUserGradientError, PerUserGradients
from tests.support.user_models import (
    HISTORY,
    KINDS,
    MODES,
    NUM_ITEMS,
    WIDTH,
    Attention,
    TiedLayers,
    Tower,
    batch,
    by_hand,
    losses,
    made,
)

IN_BOTH_MODES = pytest.mark.parametrize("mode", MODES)
WITH_BOTH_KINDS = pytest.mark.parametrize("clipping", KINDS)
FLOAT_ERROR = 1e-5
"""What a plan pays for beside the clip norm (``policies.plans.price``)."""
NEAR = 1e-8
"""Clipping stays 2^-30 below the norm."""


def micro_batches(gradients: PerUserGradients, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that the model sees from now on."""
    sizes: list[int] = []
    engine, plain = gradients._engine, gradients._engine.gradients

    def watched(users: tuple[Tensor, ...], *, with_total: bool = False) -> object:
        sizes.append(len(users[0]))
        return plain(users, with_total=with_total)

    monkeypatch.setattr(engine, "gradients", watched)
    return sizes


@IN_BOTH_MODES
@WITH_BOTH_KINDS
@pytest.mark.parametrize("kind", [Tower, Attention])
@pytest.mark.parametrize("max_norm", [0.05, 1.0, 1e3])
def test_the_sum_is_that_of_gradients_clipped_one_user_at_a_time(
    max_norm: float, kind: type[Tower], clipping: Clipping, mode: Mode
) -> None:
    users = batch(17)
    found = PerUserGradients(made(kind), losses, max_norm, clipping=clipping, mode=mode).clipped_sum(*users)
    assert found.dtype == np.float64
    assert found == pytest.approx(
        by_hand(made(kind), users, max_norm, clipping), rel=1e-8, abs=1e-8 * max_norm
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000), st.floats(1e-3, 1e2), st.sampled_from(KINDS))
def test_both_modes_agree(num_users: int, seed: int, max_norm: float, clipping: Clipping) -> None:
    hooks, ghost = (
        PerUserGradients(made(Attention), losses, max_norm, clipping=clipping, mode=mode).clipped_sum(
            *batch(num_users, seed)
        )
        for mode in MODES
    )
    assert np.linalg.norm(hooks - ghost) <= 1e-11 * num_users * max_norm


@IN_BOTH_MODES
def test_micro_batches_bound_memory_and_change_nothing_else(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = PerUserGradients(made(), losses, 0.5, mode=mode).clipped_sum(*batch(300))
    roomy = PerUserGradients(made(), losses, 0.5, mode=mode, max_memory_bytes=1 << 18)
    tight = PerUserGradients(made(), losses, 0.5, mode=mode, max_memory_bytes=1)
    for gradients, most in ((roomy, 250), (tight, 1)):
        gradients.clipped_sum(*batch(1))
        sizes = micro_batches(gradients, monkeypatch)
        assert gradients.clipped_sum(*batch(300)) == pytest.approx(at_once, abs=1e-11)
        assert sum(sizes) == 300
        assert 1 <= max(sizes) <= most
        assert len(sizes) == -(-300 // max(sizes))


@IN_BOTH_MODES
def test_every_run_cuts_a_batch_alike(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the same users meet in the same micro-batches, so sums are the same to the last bit."""
    long_lived, restarted = (
        PerUserGradients(made(), losses, 0.5, mode=mode, max_memory_bytes=1 << 17) for _ in range(2)
    )
    for size in (1, 7, 200):
        long_lived.clipped_sum(*batch(size, seed=size))
    assert np.array_equal(long_lived.clipped_sum(*batch(200)), restarted.clipped_sum(*batch(200)))
    assert long_lived._users_at_once == restarted._users_at_once


WIDE = """
import resource, torch
from torch import nn
from privacy.dpsgd import PerUserGradients

torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(4000, 64), nn.Tanh(), nn.Linear(64, 4000)).double()
gradients = PerUserGradients(
    model, lambda m, x: -torch.log_softmax(m(x), 1)[:, 0], 1.0, max_memory_bytes=1 << 24
)
assert gradients.mode == "ghost"
row = torch.ones(1, 4000, dtype=torch.float64)
gradients.clipped_sum(row.expand(100, -1))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
gradients.clipped_sum(row.expand(4000, -1))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_a_full_batch_takes_no_more_memory_than_a_small_one() -> None:
    """4,000 users whose activations alone are half a gigabyte, in a process that is allowed 16 MB a batch."""
    done = subprocess.run([sys.executable, "-c", WIDE], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60


@IN_BOTH_MODES
def test_a_batch_without_users_is_zero(mode: Mode) -> None:
    found = PerUserGradients(made(), losses, 1.0, mode=mode).clipped_sum(*batch(0))
    assert found.shape == (NUM_ITEMS * WIDTH + WIDTH * NUM_ITEMS + NUM_ITEMS,)
    assert not found.any()


@IN_BOTH_MODES
@WITH_BOTH_KINDS
def test_no_user_random_or_adversarial_moves_the_sum_by_more_than_the_norm(
    clipping: Clipping, mode: Mode
) -> None:
    """Their leaving moves later users to other places and micro-batches, and that is covered as well."""
    max_norm = 0.3
    gradients = PerUserGradients(
        made(), losses, max_norm, clipping=clipping, mode=mode, max_memory_bytes=1 << 15
    )
    histories, targets = batch(40, seed=1)
    adversarial = torch.stack([torch.full((HISTORY,), item) for item in range(NUM_ITEMS)])
    histories = torch.cat([histories, adversarial])
    targets = torch.cat([targets, torch.arange(NUM_ITEMS).flip(0)])
    everybody = gradients.clipped_sum(histories, targets)
    for user in range(len(targets)):
        keep = torch.arange(len(targets)) != user
        moved = everybody - gradients.clipped_sum(histories[keep], targets[keep])
        assert np.linalg.norm(moved) <= max_norm * (1 + FLOAT_ERROR)


def weighted(model: nn.Module, histories: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    return losses(model, histories, targets) * weights


@IN_BOTH_MODES
@WITH_BOTH_KINDS
@pytest.mark.parametrize("memory", [1, 1 << 27])
def test_a_user_with_an_infinite_or_undefined_gradient_counts_as_nobody(
    memory: int, clipping: Clipping, mode: Mode
) -> None:
    users = batch(6)
    gradients = PerUserGradients(made(), weighted, 1.0, clipping=clipping, mode=mode, max_memory_bytes=memory)
    weights = torch.tensor([float("nan"), 1.0, 1.0, float("inf"), 1e300, -float("inf")], dtype=torch.float64)
    healthy = gradients.clipped_sum(*(t[1:3] for t in users), torch.ones(2, dtype=torch.float64))
    assert gradients.clipped_sum(*users, weights) == pytest.approx(healthy, abs=1e-11)


@IN_BOTH_MODES
def test_a_batch_of_nobody_but_broken_users_is_zero(mode: Mode) -> None:
    gradients = PerUserGradients(made(), weighted, 1.0, mode=mode)
    assert not gradients.clipped_sum(*batch(3), torch.full((3,), float("nan"), dtype=torch.float64)).any()


@IN_BOTH_MODES
def test_an_infinite_loss_with_a_finite_gradient_counts_as_nobody(mode: Mode) -> None:
    def shifted(model: nn.Module, histories: Tensor, targets: Tensor, shifts: Tensor) -> Tensor:
        return losses(model, histories, targets) + shifts

    users = batch(2)
    gradients = PerUserGradients(made(), shifted, 1.0, mode=mode)
    found = gradients.clipped_sum(*users, torch.tensor([0.0, float("inf")], dtype=torch.float64))
    assert found == pytest.approx(by_hand(made(), tuple(t[:1] for t in users), 1.0), abs=NEAR)


@IN_BOTH_MODES
@WITH_BOTH_KINDS
def test_gradients_of_zero_are_zero(clipping: Clipping, mode: Mode) -> None:
    gradients = PerUserGradients(made(), weighted, 1.0, clipping=clipping, mode=mode)
    assert not gradients.clipped_sum(*batch(4), torch.zeros(4, dtype=torch.float64)).any()


@IN_BOTH_MODES
@WITH_BOTH_KINDS
@pytest.mark.parametrize("kind", [Tower, Attention])
def test_an_honest_model_passes_the_self_test(kind: type[Tower], clipping: Clipping, mode: Mode) -> None:
    for max_norm in (0.0, 1e-3, 1e3):
        PerUserGradients(made(kind), losses, max_norm, clipping=clipping, mode=mode).start_up_self_test(
            *batch(3)
        )


@IN_BOTH_MODES
def test_what_a_failed_step_left_behind_does_not_reach_the_next(mode: Mode) -> None:
    fails = [True]

    def broken_at_first(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
        found = losses(model, histories, targets)
        return found.sum() if fails.pop() else found

    gradients = PerUserGradients(made(), broken_at_first, 1.0, mode=mode)
    with pytest.raises(PerUserGradientError, match="loss has shape"):
        gradients.clipped_sum(*batch(9))
    fails.extend([False] * 10)
    assert gradients.clipped_sum(*batch(4)) == pytest.approx(by_hand(made(), batch(4), 1.0), abs=NEAR)


def recurrent() -> nn.Module:
    class Recurrent(Tower):
        def __init__(self) -> None:
            super().__init__()
            self.cells = DPGRU(WIDTH, WIDTH, batch_first=True)

        def forward(self, histories: Tensor) -> Tensor:
            scores: Tensor = self.scores(self.cells(self.items(histories))[0][:, -1])
            return scores

    return Recurrent()


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        (lambda: nn.Linear(2, 300), "hooks"),
        (lambda: nn.Linear(40, 300), "ghost"),
        (lambda: nn.Sequential(nn.Linear(500, 8), nn.Tanh(), nn.Linear(8, 500)), "ghost"),
        (recurrent, "hooks"),
    ],
)
def test_the_shapes_of_the_layers_choose_the_mode(kind: Callable[[], nn.Module], mode: Mode) -> None:
    assert PerUserGradients(kind().double(), losses, 1.0).mode == mode


@pytest.mark.parametrize("kind", [TiedLayers, recurrent])
def test_layers_used_more_than_once_are_written_out(kind: Callable[[], nn.Module]) -> None:
    model = made(kind)
    gradients = PerUserGradients(model, losses, 0.5)
    assert gradients.mode == "hooks"
    gradients.start_up_self_test(*batch(3))
    assert gradients.clipped_sum(*batch(9)) == pytest.approx(by_hand(made(kind), batch(9), 0.5), abs=NEAR)


def test_shared_weights_of_a_wide_model_are_written_out() -> None:
    tied = nn.Sequential(nn.Linear(60, 60), nn.Linear(60, 60)).double()
    tied[1].weight = tied[0].weight  # type: ignore[assignment]
    assert PerUserGradients(tied, losses, 1.0).mode == "hooks"


@IN_BOTH_MODES
def test_a_loss_summed_over_users_is_refused(mode: Mode) -> None:
    def summed(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
        return losses(model, histories, targets).sum()

    with pytest.raises(PerUserGradientError, match="loss has shape"):
        PerUserGradients(made(), summed, 1.0, mode=mode).clipped_sum(*batch(3))


@IN_BOTH_MODES
def test_a_loss_without_the_model_is_refused(mode: Mode) -> None:
    gradients = PerUserGradients(made(), lambda _, histories, __: histories.double().sum(1), 1.0, mode=mode)
    with pytest.raises(PerUserGradientError, match="took no part"):
        gradients.clipped_sum(*batch(3))


@IN_BOTH_MODES
def test_models_that_opacus_cannot_take_apart_are_refused(mode: Mode) -> None:
    normalised = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
    with pytest.raises(PerUserGradientError, match="Opacus"):
        PerUserGradients(normalised, losses, 1.0, mode=mode)
    hooked_before = made()
    PerUserGradients(hooked_before, losses, 1.0, mode=mode)
    with pytest.raises(PerUserGradientError, match="Opacus"):
        PerUserGradients(hooked_before, losses, 1.0, mode=mode)
    frozen = made().requires_grad_(False)
    with pytest.raises(PerUserGradientError, match="no trainable"):
        PerUserGradients(frozen, losses, 1.0, mode=mode)


@IN_BOTH_MODES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_whose_rounding_no_price_covers_are_refused(dtype: torch.dtype, mode: Mode) -> None:
    with pytest.raises(PerUserGradientError, match="not in float64") as caught:
        PerUserGradients(made(dtype=dtype), losses, 1.0, mode=mode)
    assert caught.value.remedy


@IN_BOTH_MODES
def test_a_frozen_layer_takes_no_part(mode: Mode) -> None:
    def frozen() -> nn.Module:
        model = made()
        assert isinstance(model, Tower)
        model.items.requires_grad_(False)
        model.scores.weight.requires_grad_(False)
        return model

    gradients = PerUserGradients(frozen(), losses, 1.0, mode=mode)
    gradients.start_up_self_test(*batch(3))
    assert gradients.clipped_sum(*batch(5)) == pytest.approx(by_hand(frozen(), batch(5), 1.0), abs=NEAR)


@IN_BOTH_MODES
def test_impossible_arguments_are_refused(mode: Mode) -> None:
    with pytest.raises(ClippingError):
        PerUserGradients(made(), losses, float("nan"), mode=mode)
    gradients = PerUserGradients(made(), losses, 1.0, mode=mode)
    with pytest.raises(PerUserGradientError, match="three users"):
        gradients.start_up_self_test(*batch(2))
    with pytest.raises(PerUserGradientError, match="differ in their number"):
        gradients.clipped_sum(batch(3)[0], batch(4)[1])


@IN_BOTH_MODES
def test_a_self_test_on_users_without_gradients_proves_nothing(mode: Mode) -> None:
    gradients = PerUserGradients(made(), weighted, 1.0, mode=mode)
    for weight in (0.0, float("nan")):
        with pytest.raises(PerUserGradientError, match="no gradient"):
            gradients.start_up_self_test(*batch(3), torch.tensor([1.0, 1.0, weight], dtype=torch.float64))


@IN_BOTH_MODES
def test_parameters_stay_the_models_own_between_steps(mode: Mode) -> None:
    model = made()
    gradients = PerUserGradients(model, losses, 1.0, mode=mode)
    before = gradients.clipped_sum(*batch(6))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5)
    after = gradients.clipped_sum(*batch(6))
    assert not np.array_equal(before, after)
    assert all(parameter.grad is None for parameter in model.parameters())


@IN_BOTH_MODES
def test_between_steps_the_model_may_be_used_by_others(mode: Mode) -> None:
    """A forward pass, e.g. for a local loss, leaves nothing that the next step would count."""
    model = made()
    gradients = PerUserGradients(model, losses, 1.0, mode=mode)
    before = gradients.clipped_sum(*batch(6))
    losses(model, *batch(11))
    assert np.array_equal(gradients.clipped_sum(*batch(6)), before)
