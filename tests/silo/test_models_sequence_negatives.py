from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import silo.models.sequence.loss as loss_module
from silo.models.sequence.loss import next_item_losses
from silo.models.sequence.negatives import sampled_items

ITEMS, WIDTH, PLACES = 7, 3, 5


@pytest.fixture
def scene() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    read = torch.randn(PLACES, WIDTH, generator=generator, dtype=torch.float64)
    features = torch.randn(ITEMS, WIDTH, generator=generator, dtype=torch.float64)
    bias = torch.randn(ITEMS, generator=generator, dtype=torch.float64)
    return read, torch.tensor([0, 3, 6, 3, 1]), features, bias


def written_out(read: Tensor, wanted: Tensor, features: Tensor, bias: Tensor, drawn: Tensor) -> Tensor:
    """The corrected loss as its formula has it, with a table of scores and autograd's own gradients."""
    scores = read @ features.T + bias
    losses = []
    for place, item in enumerate(wanted.tolist()):
        others = [other for other in drawn.tolist() if other != item]
        stands_for = np.log((len(features) - 1) / len(others))
        competing = torch.cat([scores[place, [item]], scores[place, others] + stands_for])
        losses.append(torch.logsumexp(competing, dim=0) - scores[place, item])
    return torch.stack(losses)


@pytest.mark.parametrize("at_once", [1, 9, 1 << 16])
@pytest.mark.parametrize("drawn", [(0, 3), (2, 4, 5), (1, 2, 3, 6), tuple(range(ITEMS))])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_losses_and_gradients_of_a_sample_are_those_of_autograd(
    scene: tuple[Tensor, ...],
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    drawn: tuple[int, ...],
    spread: float,
) -> None:
    monkeypatch.setattr(loss_module, "SCORES_AT_ONCE", at_once)
    read, *rest = scene
    read = (spread * read).requires_grad_()
    weights = torch.arange(1.0, PLACES + 1, dtype=torch.float64)
    expected = written_out(read, *rest, torch.tensor(drawn))
    (direction,) = torch.autograd.grad((weights * expected).sum(), read)
    found = next_item_losses(read, *rest, torch.tensor(drawn))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * spread)
    (got,) = torch.autograd.grad((weights * found).sum(), read)
    torch.testing.assert_close(got, direction, rtol=1e-11, atol=1e-11)


def test_all_items_drawn_are_the_exact_softmax(scene: tuple[Tensor, ...]) -> None:
    read, wanted, features, bias = scene
    exact = functional.cross_entropy(read @ features.T + bias, wanted, reduction="none")
    found = next_item_losses(read, wanted, features, bias, torch.arange(ITEMS))
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [2, 4])
def test_the_expected_denominator_is_that_of_the_whole_list(scene: tuple[Tensor, ...], count: int) -> None:
    """Over every sample that can be drawn; without the correction it would be a part of it."""
    read, wanted, features, bias = scene
    exact = functional.cross_entropy(read @ features.T + bias, wanted, reduction="none").exp()
    samples = [torch.tensor(drawn) for drawn in combinations(range(ITEMS), count)]
    found = [next_item_losses(read, wanted, features, bias, drawn).exp() for drawn in samples]
    torch.testing.assert_close(torch.stack(found).mean(dim=0), exact, rtol=1e-12, atol=1e-12)


def test_a_target_among_the_drawn_is_no_negative_of_itself(scene: tuple[Tensor, ...]) -> None:
    read, wanted, features, bias = scene
    scores = read @ features.T + bias
    found = next_item_losses(read[1:2], wanted[1:2], features, bias, torch.tensor([3, 5]))
    expected = torch.log1p((ITEMS - 1) * torch.exp(scores[1, 5] - scores[1, 3]))
    torch.testing.assert_close(found[0], expected, rtol=1e-12, atol=1e-12)


def test_samples_are_of_the_step_and_of_the_seed_and_hold_every_item_alike() -> None:
    assert sampled_items(50, 8, 3, 4).tolist() == sampled_items(50, 8, 3, 4).tolist()
    drawn = [sampled_items(50, 8, seed, step) for seed in range(40) for step in range(50)]
    assert len({one.tobytes() for one in drawn}) == len(drawn)
    assert all(len(set(one.tolist())) == 8 for one in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=50)
    expected = len(drawn) * 8 / 50
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 8 / 50))
