"""Each form of a per-user gradient is autograd's gradient of that user alone, in norm, sum and row."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privacy.clipping import clip_factors
from privacy.dpsgd import ROUNDING, PerUserGradientError, PerUserGradients, ghost
from privacy.dpsgd.base import BatchGradients, Probe
from privacy.dpsgd.ghost import GhostEngine
from privacy.dpsgd.hooks import HookedEngine
from privacy.dpsgd.layers import EmbeddingRows, OuterProducts, ParameterGradients, SumsOfProducts, WrittenOut

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
    return made.gradients((inputs,), with_total=True), torch.stack(expected).numpy()


@ENGINES
@pytest.mark.parametrize("name", LAYERS)
def test_a_layers_gradients_are_autograds(name: str, engine: type[GhostEngine] | type[HookedEngine]) -> None:
    found, expected = found_and_expected(name, engine)
    np.testing.assert_allclose(np.stack([found.row(user) for user in range(USERS)]), expected, atol=1e-13)
    norms = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(found.norms, norms, rtol=1e-13)
    found.check_total(1.0)
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
    found.check_total(1.0)


def test_opacus_own_sampler_trains_the_padding_row_and_is_not_used() -> None:
    model, _ = layer("padded embedding")
    with pytest.raises(PerUserGradientError, match="padding row"):
        PerUserGradients(model, loss_per_user, 1.0, mode="hooks")
    frozen = nn.Sequential(model, nn.Linear(OUT, 3)).double()
    frozen[0].requires_grad_(False)
    assert PerUserGradients(frozen, loss_per_user, 1.0, mode="hooks").clipped_sum(histories(PLACES)).any()


def test_an_embedding_that_scales_its_rows_by_who_is_there_is_refused() -> None:
    model = nn.Embedding(ITEMS, OUT, max_norm=1.0).double()
    with pytest.raises(PerUserGradientError, match="max_norm"):
        PerUserGradients(model, loss_per_user, 1.0)


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


@pytest.mark.parametrize(
    "gradients",
    [
        OuterProducts(rows(IN), rows(OUT)),
        WrittenOut(rows(OUT, IN)),
        WrittenOut(rows(OUT)),
        SumsOfProducts(rows(PLACES, IN), rows(PLACES, OUT)),
        EmbeddingRows(histories(PLACES), rows(PLACES, OUT), ITEMS, None),
    ],
    ids=["outer", "matrix", "vector", "places", "embedding"],
)
def test_a_probe_sees_a_single_wrong_coordinate(gradients: ParameterGradients | SumsOfProducts) -> None:
    shapes = {OUT * IN: (OUT, IN), OUT: (OUT,), ITEMS * OUT: (ITEMS, OUT)}
    whole = gradients.of(0, USERS)[0] if isinstance(gradients, SumsOfProducts) else gradients
    shape = torch.Size(shapes[whole.row(0).numel()])
    total = torch.stack([whole.row(user) for user in range(USERS)]).sum(0).reshape(shape)
    for seed in range(20):
        probe = Probe(shape, torch.Generator().manual_seed(seed))
        assert float(probe.left.norm() * probe.right.norm()) == pytest.approx(1)
        assert gradients.along(probe) == pytest.approx(probe.of(total), abs=1e-12)
        wrong = total.clone()
        wrong.view(-1)[seed % total.numel()] += 1e-3
        assert abs(gradients.along(probe) - probe.of(wrong)) > 1e-9


class OnPlaces(nn.Module):
    """Odd sizes: every second user's rows start off 16 bytes, where kernels sum in another order."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(33, 17, dtype=torch.float64)

    def forward(self, places: Tensor) -> Tensor:
        found: Tensor = self.layer(places)
        return found


def opposed(users: int, cancellation: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    place, change = torch.randn(2, users, 25, 33, generator=generator, dtype=torch.float64)
    signs = torch.randn(users, 25, 17, generator=generator, dtype=torch.float64)
    return torch.cat([place, place + change / cancellation], 1), cancellation * torch.cat([signs, -signs], 1)


def signed_sum(model: nn.Module, places: Tensor, signs: Tensor) -> Tensor:
    return (model(places) * signs).sum(dim=(1, 2))


def written_out(model: nn.Module, users: tuple[Tensor, ...]) -> Tensor:
    found = GhostEngine(model, list(model.parameters()), signed_sum).gradients(users)
    rows = torch.cat([written[0].samples for _, written in found._written_out()])
    for user in range(len(users[0])):
        assert np.array_equal(found.row(user)[: rows.shape[1]], rows[user].numpy())
    return rows


def test_the_row_that_is_checked_is_the_row_that_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ghost, "CACHED_BYTES", 3 * 33 * 17 * 8)
    written_out(OnPlaces(), opposed(8, 1e4))


def test_rounding_that_moves_with_the_place_among_those_written_out_is_measured() -> None:
    users = opposed(64, 1e8)
    others = tuple(tensor[1:] for tensor in users)
    moved = (written_out(OnPlaces(), users)[1:] - written_out(OnPlaces(), others)).norm(dim=1)
    gradients = PerUserGradients(OnPlaces(), signed_sum, 1.0, mode="ghost")
    clipped = moved.numpy() * np.minimum(1, 1 / gradients._engine.gradients(others).norms)
    assert clipped.max() <= ROUNDING or gradients.rounding(*users) > ROUNDING
