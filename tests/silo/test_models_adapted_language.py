"""The ``language`` family with a trained encoder, held to the contract of all architectures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch

pytest.importorskip("transformers", reason="needs the extra language")

from policies.documents import PolicyFileError
from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.errors import UsageError
from silo.data.catalogue import Catalogue
from silo.language.adapters.sizes import adapted_outputs
from silo.language.adapters.texts import AdaptableTexts
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles, TextEncoderError
from silo.language.places import item_text
from silo.language.space import PlacedCatalogue, Space
from silo.models.adapted.architecture import AdaptedLanguageArchitecture
from silo.models.adapted.checks import AdapterError, check_moved, check_read, check_shipped, made_up_histories
from silo.models.adapted.family import AdaptedLanguage
from silo.models.adapted.network import adapters_of
from silo.models.base import Family, get_family
from silo.models.trainer import CheckpointError, GradientFamily
from tests.contracts.architecture_contract import ArchitectureContract
from tests.contracts.family_contract import make_catalogue, make_interactions, random_histories
from tests.silo.test_models_language import DIMENSIONS, SPACE, language_plan
from tests.support.tiny_encoder import make_tiny_encoder

OUTPUTS = 32
FFA = {"kind": "ffa_lora", "rank": 2, "layers": 2, "outputs": OUTPUTS, "places": 12}
FED_SB = {"kind": "fed_sb", "rank": 3, "layers": 2, "places": 12}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    place = tmp_path_factory.mktemp("encoder")
    return TextEncoder(EncoderFiles.check(make_tiny_encoder(place, layers=3, spread=0.4)))


def adaptable(catalogue: Catalogue, encoder: TextEncoder) -> PlacedCatalogue:
    texts = [item_text(item) for item in catalogue.items]
    vectors = encoder.encode([item_text(item) for item in make_catalogue().items])
    space = Space.fit(vectors, DIMENSIONS)
    kept = AdaptableTexts(encoder, space, texts, 1 << 20)
    return PlacedCatalogue(catalogue.items, space.place(encoder.encode(texts)), SPACE, kept)


class AdaptedContract(ArchitectureContract):
    adapter: ClassVar[dict[str, Any]]

    @pytest.fixture
    def catalogue(self, encoder: TextEncoder) -> Catalogue:
        return adaptable(make_catalogue(), encoder)

    @pytest.fixture
    def plan(self, catalogue: Catalogue) -> Plan:
        model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5}
        return language_plan(catalogue, model | {"encoder_adapter": self.adapter})

    @pytest.fixture
    def family_over(self, plan: Plan, encoder: TextEncoder) -> Callable[[int], Family]:
        return lambda num_items: get_family(plan)(plan, adaptable(make_catalogue(num_items), encoder))

    def test_popular_items_stand_above_unpopular_ones(self, family: Family) -> None:
        """Nothing says so but the decoder, which four steps do not teach."""

    def test_rounds_move_adapters_and_adapters_move_items(self, family: Family) -> None:
        state = self.trained(family)
        assert all(np.abs(values).max() > 0 for values in adapters_of(state).values())
        architecture = self.architecture_of(family, state)
        assert isinstance(architecture, AdaptedLanguageArchitecture)
        read = architecture.read_features({name: state[name] for name in architecture.initial_weights()})
        assert np.abs(read - architecture.features).max() > 0.01

    def test_untrained_adapters_read_items_where_the_encoder_puts_them(self, family: Family) -> None:
        architecture = self.architecture_of(family, self.untrained(family))
        assert isinstance(architecture, AdaptedLanguageArchitecture)
        np.testing.assert_array_equal(
            architecture.read_features(architecture.initial_weights()), architecture.features
        )
        assert isinstance(family.catalogue, PlacedCatalogue)
        np.testing.assert_allclose(architecture.features, family.catalogue.places, atol=1e-4)

    def test_one_person_moves_a_sum_by_at_most_the_norm(self, family: Family, shape: RoundShape) -> None:
        """What the step applies, in grid units, at weights whose adapters are not zero."""
        state, histories = self.trained(family), random_histories(8, num_users=6)
        rows = family.contribute_each(
            make_interactions(histories, family.catalogue), state, 0, shape
        ).toarray()
        assert (np.linalg.norm(rows, axis=1) <= shape.grid * (1 + 1e-5)).all()
        num_adapters = sum(values.size for values in adapters_of(state).values())
        assert np.linalg.norm(rows[:, :num_adapters], axis=1).min() > 0.01 * shape.grid
        everybody = family.contribute(make_interactions(histories, family.catalogue), state, 0, shape)
        for user in range(len(histories)):
            others = histories[:user] + histories[user + 1 :]
            rest = family.contribute(make_interactions(others, family.catalogue), state, 0, shape)
            assert np.linalg.norm((everybody - rest).astype(float)) <= shape.sensitivity / 2

    def test_items_beyond_the_newest_are_read_where_they_stand(self, family: Family) -> None:
        """A step encodes few items of a person, whatever the history's length."""
        architecture = self.architecture_of(family, self.untrained(family))
        history = make_interactions([list(range(20))], family.catalogue).histories()
        read, newest, share, *_ = architecture.batch(history, history)
        assert newest.tolist() == [list(range(8, 20))]
        assert share.tolist() == [1 / np.sqrt(20)]
        assert isinstance(architecture, AdaptedLanguageArchitecture)
        np.testing.assert_allclose(read[0], architecture.features[:20].sum(axis=0) / np.sqrt(20), atol=1e-12)

    def test_what_a_step_hides_is_not_read(self, family: Family) -> None:
        architecture = self.architecture_of(family, self.untrained(family))
        history = make_interactions([[3, 4, 5, 6]], family.catalogue).histories()
        seen = sp.csr_matrix((np.array([1.0, 0, 1, 0]), history.indices, history.indptr), history.shape)
        _, newest, share, *_ = architecture.batch(seen, history)
        assert newest[0, :3].tolist() == [3, 5, -1]
        assert share.tolist() == [1 / np.sqrt(2)]

    def test_weights_of_other_adapters_are_refused(self, family: Family) -> None:
        """Another seed, or another alpha, and the same numbers mean something else."""
        checkpoint = family.checkpoint(self.trained(family))
        for model in ({"seed": 9}, {"encoder_adapter": self.adapter | {"alpha": 3.0}}):
            document = family.plan.model.model_dump(exclude_unset=True) | model
            other = language_plan(family.catalogue, document)
            with pytest.raises(CheckpointError, match="another catalogue, encoder"):
                get_family(other)(other, family.catalogue, start=checkpoint)

    # ── silent failures ──────────────────────────────────────────────────────────────────────────────────

    def test_a_model_written_without_its_adapters_is_noticed(
        self, family: Family, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = self.trained(family)
        monkeypatch.setattr(
            AdaptedLanguageArchitecture, "read_features", lambda architecture, weights: architecture.features
        )
        with pytest.raises(AdapterError, match="tables and the trained network differ"):
            family.finish(state)

    def test_adapters_that_are_never_called_are_noticed(
        self, family: Family, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        state = self.trained(family)
        assert isinstance(family, GradientFamily)
        monkeypatch.setattr("silo.language.adapters.encoder._AdaptedMap.forward", lambda own, x: own._base(x))
        with pytest.raises(AdapterError, match="leave every item where it was"):
            type(family)(family.plan, family.catalogue).finish(state)


class TestFfaLora(AdaptedContract):
    model: ClassVar = {}
    adapter: ClassVar = FFA

    def test_another_number_of_outputs_than_the_encoders_is_refused(self, plan: Plan, family: Family) -> None:
        wrong = plan.model.model_dump(exclude_unset=True) | {"encoder_adapter": FFA | {"outputs": 768}}
        with pytest.raises(TextEncoderError, match=r"32 outputs to adapt, the plan says 768"):
            AdaptedLanguage(language_plan(family.catalogue, wrong), family.catalogue)


class TestFedSb(AdaptedContract):
    model: ClassVar = {}
    adapter: ClassVar = FED_SB


@pytest.mark.parametrize(
    ("model_type", "kind", "largest"),
    [("bert", "ffa_lora", 16), ("bert", "fed_sb", 16), ("llama", "ffa_lora", 16), ("llama", "fed_sb", 8)],
)
def test_a_rank_beyond_a_map_is_refused_by_name(
    tmp_path: Path, model_type: str, kind: str, largest: int
) -> None:
    """The two query heads of this llama share one value head, so values have half the width."""
    catalogue = make_catalogue()
    files = EncoderFiles.check(make_tiny_encoder(tmp_path, model_type=model_type))
    adapter = {"kind": kind, "outputs": adapted_outputs(files.config) if kind == "ffa_lora" else None}
    placed = adaptable(catalogue, TextEncoder(files))

    def family(rank: int) -> AdaptedLanguage:
        model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5}
        model |= {"encoder_adapter": adapter | {"rank": rank}}
        return AdaptedLanguage(language_plan(placed, model), placed)

    trained = family(largest)
    trained.finish(trained.initial_state())
    with pytest.raises(TextEncoderError, match=f"rank {largest + 1} are wider than a map") as refused:
        family(largest + 1)
    assert refused.value.remedy == f"propose a rank of at most {largest} with {kind}"


def test_a_list_without_texts_is_refused(encoder: TextEncoder) -> None:
    catalogue = adaptable(make_catalogue(), encoder)
    model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5, "encoder_adapter": FFA}
    with pytest.raises(UsageError, match="no text encoder to adapt"):
        AdaptedLanguage(language_plan(catalogue, model), replace(catalogue, texts=None))


@pytest.mark.parametrize("adapter", [FFA | {"outputs": None}, FED_SB | {"outputs": OUTPUTS}])
def test_outputs_are_said_where_they_count_and_nowhere_else(adapter: dict[str, Any]) -> None:
    model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5, "encoder_adapter": adapter}
    with pytest.raises(PolicyFileError, match=r"model\.encoder_adapter\.outputs"):
        language_plan(make_catalogue(), model)


def test_the_sum_is_as_long_as_the_adapters_and_the_rest() -> None:
    model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5}
    rest = 2 * DIMENSIONS * 5 + 5
    sizes = [
        schedule(language_plan(make_catalogue(), model | {"encoder_adapter": adapter}))[0].values
        for adapter in ("none", FFA, FED_SB)
    ]
    assert sizes == [rest, rest + 2 * 2 * OUTPUTS, rest + 2 * 2 * 3 * 3]


class TestChecks:
    def test_adapters_that_stay_are_noticed_where_the_sum_moves_them(self) -> None:
        before = {"adapted.a": np.zeros(3), "adapted.b": np.ones(2)}
        moved = before | {"adapted.b": np.array([1.0, 2.0])}
        check_moved(before, moved, np.array([0, 0, 0, 0, 5, 9]))
        check_moved(before, dict(before), np.array([0, 0, 0, 0, 0, 9]))
        with pytest.raises(AdapterError, match="left all adapters"):
            check_moved(before, dict(before), np.array([0, 0, 0, 0, 5, 9]))

    def test_adapters_that_are_zero_may_move_nothing(self) -> None:
        places = np.eye(2)
        check_read({"adapted.a": np.zeros(2)}, places, places)
        with pytest.raises(AdapterError, match="where it was"):
            check_read({"adapted.a": np.ones(2)}, places, places)

    def test_made_up_people_are_no_longer_than_a_step_reads(self) -> None:
        for items, length in ((24, 12), (5, 12), (40, 3)):
            histories = made_up_histories(items, length)
            assert np.diff(histories.indptr).tolist() == [min(items, length)] * 3

    def test_losses_that_differ_are_noticed(self, encoder: TextEncoder) -> None:
        catalogue = adaptable(make_catalogue(), encoder)
        model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5, "encoder_adapter": FFA}
        family = AdaptedLanguage(language_plan(catalogue, model), catalogue)
        state = family.initial_state()
        histories = made_up_histories(len(catalogue), 12)
        losses = family._session_of(state).losses(histories)
        check_shipped(losses, family.finish(state), histories)
        with pytest.raises(AdapterError):
            check_shipped(losses + 0.1, family.finish(state), histories)


def test_files_of_a_cut_cache_give_the_same_gradients(encoder: TextEncoder, tmp_path: Path) -> None:
    """Memory is a silo's own affair: it changes no bit of what it contributes."""
    model = {"family": "language", "dimensions": DIMENSIONS, "hidden": 5, "encoder_adapter": FFA}
    found = []
    for cache_bytes in (1, 1 << 20):
        whole = adaptable(make_catalogue(90), encoder)
        assert whole.texts is not None
        texts = [item_text(item) for item in whole.items]
        space = Space.fit(encoder.encode(texts), DIMENSIONS)
        catalogue = replace(whole, texts=AdaptableTexts(encoder, space, texts, cache_bytes))
        family = AdaptedLanguage(language_plan(catalogue, model), catalogue)
        rows = make_interactions(random_histories(3, num_items=90), catalogue)
        found.append(family.contribute(rows, family.initial_state(), 0, schedule(family.plan)[0]))
    assert torch.equal(torch.from_numpy(found[0]), torch.from_numpy(found[1]))
