"""Each form of a per-user gradient is autograd's gradient of that user alone, in norm, sum and row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.clipping import clip_factors
from privacy.dpsgd import PerUserGradientError, PerUserGradients, ghost
from privacy.dpsgd.base import BatchGradients
from privacy.dpsgd.ghost import GhostEngine
from privacy.dpsgd.hooks import HookedEngine
from privacy.dpsgd.layers import EmbeddingRows

USERS, PLACES, IN, OUT, ITEMS = 6, 7, 5, 4, 9
ENGINES = pytest.mark.parametrize("engine", [GhostEngine, HookedEngine], ids=["ghost", "hooks"])


class OwnLayer(nn.Module):
    """A layer that only functorch can take apart."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(IN))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(inputs) * self.scale


class Padded(nn.Module):
    """An embedding with a row that stands for nothing and is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, OUT, padding_idx=0)

    def forward(self, histories: Tensor) -> Tensor:
        found: Tensor = self.items(histories)
        return found


def rows(*shape: int) -> Tensor:
    return torch.randn(USERS, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def histories(*shape: int) -> Tensor:
    return torch.randint(0, ITEMS, (USERS, *shape), generator=torch.Generator().manual_seed(2))


LAYERS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "linear": (lambda: nn.Linear(IN, OUT), rows(IN)),
    "linear that widens": (lambda: nn.Linear(IN, 30), rows(IN)),
    "linear without bias": (lambda: nn.Linear(IN, OUT, bias=False), rows(IN)),
    "linear on positions": (lambda: nn.Linear(IN, OUT), rows(PLACES, IN)),
    "linear on a plane": (lambda: nn.Linear(IN, OUT), rows(3, PLACES, IN)),
    "embedding": (lambda: nn.Embedding(ITEMS, OUT), histories(PLACES)),
    "embedding of one item": (lambda: nn.Embedding(ITEMS, OUT), histories()),
    "embedding of a plane": (lambda: nn.Embedding(ITEMS, OUT), histories(3, PLACES)),
    "normalisation": (lambda: nn.LayerNorm(IN), rows(PLACES, IN)),
    "convolution": (lambda: nn.Conv1d(IN, OUT, 3), rows(IN, PLACES)),
    "own layer": (OwnLayer, rows(PLACES, IN)),
    "deep": (lambda: nn.Sequential(nn.Linear(IN, 3), nn.Tanh(), nn.Linear(3, OUT)), rows(PLACES, IN)),
}
PADDED = {"padded embedding": (Padded, histories(PLACES))}


def loss_per_user(model: nn.Module, inputs: Tensor) -> Tensor:
    found = model(inputs).flatten(1)
    places = torch.linspace(0.1, 2.0, found.shape[1], dtype=torch.float64)
    return torch.sin(found * places).sum(dim=1)


def layer(name: str) -> tuple[nn.Module, Tensor]:
    torch_layer, inputs = (LAYERS | PADDED)[name]
    generator = torch.Generator().manual_seed(4)
    model = torch_layer().double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model, inputs


def found_and_expected(
    name: str, engine: type[GhostEngine] | type[HookedEngine]
) -> tuple[BatchGradients, np.ndarray]:
    model, inputs = layer(name)
    parameters = list(model.parameters())
    expected = [
        torch.cat([g.ravel() for g in torch.autograd.grad(loss_per_user(model, one).sum(), parameters)])
        for one in inputs.split(1)
    ]
    made = engine(model, parameters, loss_per_user)
    return made.gradients((inputs,)), torch.stack(expected).numpy()


@ENGINES
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_gradients_are_autograds(name: str, engine: type[GhostEngine] | type[HookedEngine]) -> None:
    found, expected = found_and_expected(name, engine)
    np.testing.assert_allclose(np.stack([found.row(user) for user in range(USERS)]), expected, atol=1e-13)
    norms = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-13)
    total = found.clipped_sum(0.5, "flat")
    np.testing.assert_allclose(total, clip_factors(norms, 0.5) @ expected, atol=1e-13)


@ENGINES
@pytest.mark.parametrize("name", LAYERS)
def test_the_distance_to_another_gradient_is_the_norm_of_the_difference(
    name: str, engine: type[GhostEngine] | type[HookedEngine]
) -> None:
    model, inputs = layer(name)
    made = engine(model, list(model.parameters()), loss_per_user)
    together = made.gradients((inputs,))
    for user in range(USERS):
        assert together.distance(user, made.alone((inputs,), user)) <= 1e-12
        other = made.alone((inputs,), user - 1)
        flat = torch.cat([part.flatten() for part in other]).numpy()
        apart = np.linalg.norm(together.row(user) - flat)
        assert together.distance(user, other) == pytest.approx(apart, rel=1e-9, abs=1e-12)


def test_a_padding_row_is_not_trained_and_not_counted() -> None:
    found, expected = found_and_expected("padded embedding", GhostEngine)
    np.testing.assert_allclose(np.stack([found.row(user) for user in range(USERS)]), expected, atol=1e-13)
    np.testing.assert_allclose(found.norms, np.linalg.norm(expected, axis=1), rtol=1e-13)


def test_opacus_own_sampler_counts_the_padding_row_and_a_user_alone_shows_it() -> None:
    model, inputs = layer("padded embedding")
    inputs[:, 0] = 0
    with pytest.raises(PerUserGradientError, match="not the one of that user alone"):
        PerUserGradients(model, loss_per_user, 1.0, mode="hooks").clipped_sum(inputs)


@pytest.mark.parametrize("at_once", [1, 2, 4, USERS])
@pytest.mark.parametrize("name", ["linear on positions", "deep"])
def test_nothing_depends_on_how_many_users_are_written_out_at_a_time(
    name: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, expected = found_and_expected(name, GhostEngine)
    values = sum(p.numel() for key, p in layer(name)[0].named_parameters() if key.endswith("weight"))
    monkeypatch.setattr(ghost, "CACHED_BYTES", at_once * values * 8)
    found, _ = found_and_expected(name, GhostEngine)
    in_parts = found.clipped_sum(0.5, "flat")
    np.testing.assert_allclose(found.norms, np.linalg.norm(expected, axis=1), rtol=1e-13)
    np.testing.assert_allclose(in_parts, whole.clipped_sum(0.5, "flat"), atol=1e-14)
    assert sum(len(norms) for norms, _ in found._written_out()) == USERS
    assert max(len(norms) for norms, _ in found._written_out()) == at_once


@pytest.mark.parametrize("name", ["linear", "linear on positions", "deep"])
def test_autograd_sums_no_weights_of_linear_layers(name: str) -> None:
    """Each user's own are enough, and as dear as the sum."""
    model, inputs = layer(name)
    products: list[torch.Size] = []
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: products.append(gradient.shape))
    GhostEngine(model, list(model.parameters()), loss_per_user).gradients((inputs,))
    assert products
    assert all(len(shape) == 1 for shape in products)


def test_a_history_that_names_one_item_only_has_one_row() -> None:
    items = torch.full((2, PLACES), 3)
    found = EmbeddingRows(items, rows(PLACES, OUT)[:2], ITEMS, None)
    np.testing.assert_allclose(found.norms, rows(PLACES, OUT)[:2].sum(1).norm(dim=1))
