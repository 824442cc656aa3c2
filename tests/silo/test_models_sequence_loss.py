"""The loss of a sequence model is torch's cross-entropy, computed a few places at a time, samples too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import silo.models.sequence.loss as loss_module
from silo.models.sequence.loss import next_item_losses

torch.set_num_threads(1)

PLACES, ITEMS, FEATURES = 23, 11, 5


def tensors(spread: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    wanted = torch.randint(ITEMS, (PLACES,), generator=generator)
    vectors = (spread * normal(PLACES, FEATURES)).requires_grad_()
    return vectors, wanted, normal(ITEMS, FEATURES), normal(ITEMS)


@pytest.mark.parametrize("at_once", [1, 3 * ITEMS, 1 << 16])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_losses_and_gradients_are_those_of_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, at_once: int, spread: float
) -> None:
    monkeypatch.setattr(loss_module, "SCORES_AT_ONCE", at_once)
    vectors, wanted, features, bias = tensors(spread)
    weights = torch.arange(1.0, PLACES + 1, dtype=torch.float64)  # backprops that differ from place to place
    expected = functional.cross_entropy(vectors @ features.T + bias, wanted, reduction="none")
    (direction,) = torch.autograd.grad((weights * expected).sum(), vectors)
    found = next_item_losses(vectors, wanted, features, bias)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12 * spread)
    (got,) = torch.autograd.grad((weights * found).sum(), vectors)
    torch.testing.assert_close(got, direction, rtol=1e-11, atol=1e-11)


def test_nobody_asked_is_no_loss() -> None:
    vectors, wanted, features, bias = tensors()
    found = next_item_losses(vectors[:0], wanted[:0], features, bias)
    assert found.shape == (0,)
    (direction,) = torch.autograd.grad(found.sum(), vectors)
    assert not direction.any()


def test_what_is_no_number_stays_with_its_place() -> None:
    vectors, wanted, features, bias = tensors()
    with torch.no_grad():
        vectors[4] = torch.inf
    found = next_item_losses(vectors, wanted, features, bias)
    assert (~found.isfinite()).nonzero().flatten().tolist() == [4]


SAMPLE = torch.tensor([0, 2, 3, 5, 8, 10])


@pytest.mark.parametrize("drawn", [None, SAMPLE])
def test_no_table_of_scores_is_kept_for_the_way_back(drawn: Tensor | None) -> None:
    vectors, wanted, features, bias = tensors()
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next_item_losses(vectors, wanted, features, bias, drawn)
    assert [tuple(tensor.shape) for tensor in kept] == [(PLACES, FEATURES)]


class Largest(TorchDispatchMode):
    """Values of the largest tensor that any operation makes."""

    values = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.values = max(self.values, made.numel())
        return made


@pytest.mark.parametrize("drawn", [None, SAMPLE])
def test_scores_of_all_places_are_never_held_together(
    monkeypatch: pytest.MonkeyPatch, drawn: Tensor | None
) -> None:
    count = ITEMS if drawn is None else len(drawn)
    monkeypatch.setattr(loss_module, "SCORES_AT_ONCE", 2 * count)
    vectors, wanted, features, bias = tensors()
    with Largest() as largest:
        next_item_losses(vectors, wanted, features, bias, drawn).sum().backward()
    assert largest.values == PLACES * FEATURES < PLACES * count
