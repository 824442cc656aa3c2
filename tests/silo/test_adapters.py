"""Adapters on a text encoder: gradients per person, the cache, and what is frozen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers", reason="needs the extra language")

from privacy.dpsgd import Mode, PerUserGradientError, PerUserGradients
from silo.language.adapters.encoder import AdaptedEncoder, AdapterKind, AdapterTerms
from silo.language.adapters.frozen import BLOCK_TEXTS, FrozenActivations
from silo.language.adapters.sizes import adapted_outputs
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles, TextEncoderError
from tests.support.tiny_encoder import VOCABULARY, make_tiny_encoder

NUM_TEXTS = 3 * BLOCK_TEXTS - 5
TEXTS = [
    " ".join(VOCABULARY[(number * step) % len(VOCABULARY)] for step in range(1, 2 + number % 6))
    for number in range(NUM_TEXTS)
]
TEXTS[7] = ""
TERMS = AdapterTerms(kind="ffa_lora", rank=3, scale=2.0, seed=5)
LAYERS = 2
KINDS: tuple[AdapterKind, ...] = ("ffa_lora", "fed_sb")


@pytest.fixture(scope="module", params=["bert", "llama"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    place = tmp_path_factory.mktemp(request.param)
    return TextEncoder(
        EncoderFiles.check(make_tiny_encoder(place, layers=3, model_type=request.param, spread=0.4))
    )


@pytest.fixture
def frozen(encoder: TextEncoder) -> FrozenActivations:
    return FrozenActivations(encoder, TEXTS, LAYERS, 32)


def adapted(encoder: TextEncoder, kind: AdapterKind = "ffa_lora", spread: float = 0.0) -> AdaptedEncoder:
    terms = AdapterTerms(kind=kind, rank=TERMS.rank, scale=TERMS.scale, seed=TERMS.seed)
    made = AdaptedEncoder(encoder.upper_layers(LAYERS), terms)
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        nn.init.normal_(weight, std=spread, generator=generator)
    return made


def vectors(made: AdaptedEncoder, frozen: FrozenActivations) -> np.ndarray:
    everything = torch.arange(len(frozen))[None]
    with torch.no_grad():
        return made(frozen.of(everything), frozen.is_token[everything])[0].numpy()


class TestFrozenActivations:
    def test_untrained_adapters_on_kept_activations_are_the_whole_encoder(
        self, encoder: TextEncoder, frozen: FrozenActivations
    ) -> None:
        np.testing.assert_allclose(vectors(adapted(encoder), frozen), encoder.encode(TEXTS), atol=2e-6)

    def test_a_text_without_a_word_has_no_vector(
        self, encoder: TextEncoder, frozen: FrozenActivations
    ) -> None:
        found = vectors(adapted(encoder, spread=0.3), frozen)
        assert not found[7].any()
        lengths = np.linalg.norm(np.delete(found, 7, axis=0), axis=1)
        np.testing.assert_allclose(lengths, 1.0, atol=1e-12)

    def test_what_was_dropped_is_made_again_bit_by_bit_in_any_order(self, encoder: TextEncoder) -> None:
        whole = FrozenActivations(encoder, TEXTS, LAYERS, 32)
        expected = whole.of(torch.arange(NUM_TEXTS))
        assert whole.num_computed == 3
        small = FrozenActivations(encoder, TEXTS, LAYERS, 32, max_bytes=1)
        for items in (torch.tensor([[90, 3], [40, 3]]), torch.tensor([3]), torch.arange(NUM_TEXTS).flip(0)):
            assert torch.equal(small.of(items), expected[items])
        assert small.num_computed > 3
        whole.of(torch.arange(NUM_TEXTS))
        assert whole.num_computed == 3

    def test_memory_is_bounded(self, encoder: TextEncoder) -> None:
        block = BLOCK_TEXTS * 6 * encoder.width * 4
        for blocks in (1, 2):
            found = FrozenActivations(encoder, TEXTS, LAYERS, 32, max_bytes=blocks * block)
            found.of(torch.arange(NUM_TEXTS))
            assert sum(part.nbytes for part in found._kept.values()) <= blocks * block

    def test_long_texts_are_cut(self, encoder: TextEncoder) -> None:
        found = FrozenActivations(encoder, TEXTS, LAYERS, 2)
        assert found.num_tokens == 2
        short = FrozenActivations(encoder, [" ".join(text.split()[:2]) for text in TEXTS], LAYERS, 32)
        assert torch.equal(found.of(torch.tensor(5)), short.of(torch.tensor(5)))


class TestAdaptedEncoder:
    def test_a_trained_adapter_is_its_matrix_added_to_the_frozen_one(
        self, encoder: TextEncoder, frozen: FrozenActivations
    ) -> None:
        """``W + s B A``, put into a second copy of the layers as plain weights."""
        made = adapted(encoder, spread=0.3)
        plain, merged = encoder.upper_layers(LAYERS), adapted(encoder)
        for (parent, name), (own, _), trained in zip(
            plain.maps(), made._upper[0].maps(), made.adapters, strict=True
        ):
            down = getattr(own, name)._down
            getattr(parent, name).weight += TERMS.scale * trained.weight.detach() @ down
        merged._upper = (plain,)
        np.testing.assert_allclose(vectors(merged, frozen), vectors(made, frozen), atol=1e-12)
        assert np.abs(vectors(made, frozen) - vectors(adapted(encoder), frozen)).max() > 0.01

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_one_matrix_of_each_map_is_trained(self, encoder: TextEncoder, kind: AdapterKind) -> None:
        made = adapted(encoder, kind)
        shapes = [tuple(weight.shape) for weight in made.parameters()]
        value = 16 if encoder._network.config.model_type == "bert" else 8
        first = (3, 3, 3, 3) if kind == "fed_sb" else (16, value, 16, value)
        assert shapes == [(rows, 3) for rows in first]
        assert {weight.dtype for weight in made.parameters()} == {torch.float64}
        assert list(dict(made.named_buffers())) == []

    def test_a_plan_can_know_how_many_values_are_trained(self, encoder: TextEncoder) -> None:
        outputs = adapted_outputs(encoder._network.config.to_dict())
        assert sum(weight.numel() for weight in adapted(encoder).parameters()) == LAYERS * 3 * outputs

    def test_frozen_matrices_come_from_the_public_seed(self, encoder: TextEncoder) -> None:
        def downs(seed: int) -> Iterator[np.ndarray]:
            terms = AdapterTerms(kind="ffa_lora", rank=3, scale=1.0, seed=seed)
            made = AdaptedEncoder(encoder.upper_layers(LAYERS), terms)
            return (getattr(parent, name)._down.numpy() for parent, name in made._upper[0].maps())

        one, again, other = (np.stack(list(downs(seed))) for seed in (1, 1, 2))
        np.testing.assert_array_equal(one, again)
        assert np.abs(one - other).max() > 0.01
        np.testing.assert_allclose(one[0] @ one[0].T, np.eye(3), atol=1e-12)
        assert np.abs(one[0] - one[1]).max() > 0.01

    def test_more_layers_than_there_are_are_refused(self, encoder: TextEncoder) -> None:
        with pytest.raises(TextEncoderError, match=r"4 layers .* has 3"):
            encoder.upper_layers(4)


def test_a_network_of_another_type_is_refused(tmp_path: Path) -> None:
    made = TextEncoder(EncoderFiles.check(make_tiny_encoder(tmp_path, model_type="mpnet")))
    with pytest.raises(TextEncoderError, match="mpnet"):
        made.upper_layers(1)
    assert adapted_outputs({"model_type": "mpnet", "hidden_size": 16}) is None


# ── gradients per person ─────────────────────────────────────────────────────────────────────────────────

PEOPLE, PLACES = 4, 3


class Tower(nn.Module):
    """People's texts through the adapted encoder, and a trained map behind it."""

    def __init__(self, made: AdaptedEncoder, width: int) -> None:
        super().__init__()
        self.encoder = made
        self.leave = nn.Linear(width, 2, dtype=torch.float64)

    def forward(self, hidden: Tensor, is_token: Tensor) -> Tensor:
        return self.leave(self.encoder(hidden, is_token).sum(1))


def batch_of(frozen: FrozenActivations) -> tuple[Tensor, Tensor]:
    """Two people have an item in common, and one of them has it twice."""
    items = torch.tensor([[0, 1, 2], [2, 2, 9], [40, 41, 7], [70, 3, 50]])
    return frozen.of(items), frozen.is_token[items]


def loss_per_user(model: nn.Module, hidden: Tensor, is_token: Tensor) -> Tensor:
    losses: Tensor = model(hidden, is_token).square().sum(1)
    return losses


def tower(encoder: TextEncoder, kind: AdapterKind) -> Tower:
    torch.manual_seed(0)
    return Tower(adapted(encoder, kind, spread=0.1), encoder.width)


def one_at_a_time(model: nn.Module, hidden: Tensor, is_token: Tensor) -> np.ndarray:
    weights = list(model.parameters())
    rows = []
    for person in range(len(hidden)):
        alone = slice(person, person + 1)
        found = torch.autograd.grad(loss_per_user(model, hidden[alone], is_token[alone]).sum(), weights)
        rows.append(torch.cat([part.flatten() for part in found]).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_people_are_those_of_each_alone(
    encoder: TextEncoder, frozen: FrozenActivations, kind: AdapterKind, mode: Mode
) -> None:
    model, batch = tower(encoder, kind), batch_of(frozen)
    expected = one_at_a_time(model, *batch)
    lengths = np.linalg.norm(expected, axis=1)
    assert 1e-3 < lengths.min() < lengths.max() < 100
    gradients = PerUserGradients(model, loss_per_user, 100.0, mode=mode)
    gradients.start_up_self_test(*batch)
    np.testing.assert_allclose(gradients.clipped_rows(*batch), expected, atol=1e-7)
    np.testing.assert_allclose(gradients.clipped_sum(*batch), expected.sum(0), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_one_person_moves_the_sum_by_at_most_the_norm(
    encoder: TextEncoder, frozen: FrozenActivations, kind: AdapterKind
) -> None:
    batch, norm = batch_of(frozen), 0.01
    gradients = PerUserGradients(tower(encoder, kind), loss_per_user, norm)
    everybody = gradients.clipped_sum(*batch)
    for person in range(PEOPLE):
        rest = [other for other in range(PEOPLE) if other != person]
        moved = np.linalg.norm(everybody - gradients.clipped_sum(*(part[rest] for part in batch)))
        assert 0.5 * norm < moved <= norm * (1 + 1e-5)


def test_texts_that_are_not_folded_by_person_are_caught(
    encoder: TextEncoder, frozen: FrozenActivations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The common mistake: rows of texts are given to the hooks, which then clip texts, not people."""
    model, batch = tower(encoder, "ffa_lora"), batch_of(frozen)
    fold = model.encoder._fold
    texts = property(lambda it: it.known * PLACES, lambda it, people: setattr(it, "known", people))
    monkeypatch.setattr(type(fold), "people", texts)
    gradients = PerUserGradients(model, loss_per_user, 1.0)
    with pytest.raises(PerUserGradientError):
        gradients.start_up_self_test(*batch)


def test_people_folded_crosswise_are_caught(
    encoder: TextEncoder, frozen: FrozenActivations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many rows as people, of the wrong texts: only a comparison with each alone shows it."""
    model, batch = tower(encoder, "ffa_lora"), batch_of(frozen)
    adapters = [getattr(parent, name) for parent, name in model.encoder._upper[0].maps()]
    for one in adapters:
        layer = one.trained[0]

        def crosswise(inputs: Tensor, layer: nn.Module = layer) -> Tensor:
            mixed = inputs.reshape(-1, len(inputs), inputs.shape[-1]).transpose(0, 1)
            return layer(mixed).transpose(0, 1).reshape(*inputs.shape[:2], -1)

        one.trained = (crosswise,)
    gradients = PerUserGradients(model, loss_per_user, 1.0)
    with pytest.raises(PerUserGradientError):
        gradients.start_up_self_test(*batch)
