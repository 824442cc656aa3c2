"""From item texts to places: what the encoder reads, and the space that silos share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import UsageError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.encoder import TextEncoder
from silo.language.files import EncoderFiles
from silo.language.places import KEPT, item_text, vectors_of
from silo.language.space import PlacedCatalogue, Space
from tests.support.tiny_encoder import make_tiny_encoder


def reference(texts: int = 200, width: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(texts, width)) @ np.diag(np.linspace(3, 0.2, width)) + 1.0


def test_an_item_is_read_by_title_attributes_and_text() -> None:
    item = CatalogueItem(item_id="1", title=" Alien ", text="A crew wakes.", attributes=("Horror", "Sci-Fi"))
    assert item_text(item) == "Alien (Horror, Sci-Fi) A crew wakes."
    assert item_text(CatalogueItem(item_id="2")) == ""


class TestSpace:
    def test_the_reference_has_variance_one_in_every_direction_before_rows_are_scaled(self) -> None:
        vectors = reference()
        space = Space.fit(vectors, 4)
        whitened = (vectors - space.centre) @ space.axes
        np.testing.assert_allclose(whitened.T @ whitened / len(whitened), np.eye(4), atol=1e-8)

    def test_places_have_length_one_and_nothing_written_stands_at_the_centre(self) -> None:
        vectors = reference()
        places = Space.fit(vectors, 4).place(np.vstack([vectors, np.zeros((1, 12))]))
        np.testing.assert_allclose(np.linalg.norm(places[:-1], axis=1), 1.0)
        assert not places[-1].any()

    def test_copies_of_other_processors_agree(self) -> None:
        """The last bits of the vectors differ from machine to machine; the space must not turn over that."""
        vectors = reference()
        moved = vectors + 1e-7 * np.random.default_rng(1).normal(size=vectors.shape)
        one, other = (Space.fit(each, 6).place(vectors) for each in (vectors, moved))
        np.testing.assert_allclose(one, other, atol=1e-4)

    def test_it_is_made_of_the_reference_alone(self) -> None:
        vectors = reference()
        space = Space.fit(vectors, 4)
        alone = space.place(vectors[:1])
        np.testing.assert_allclose(space.place(vectors)[:1], alone, atol=1e-12)

    @pytest.mark.parametrize(
        ("vectors", "dimensions", "match"),
        [
            (np.zeros((50, 8)), 2, "0 texts"),
            (reference(3), 4, "3 texts"),
            (reference(4), 4, "4 texts"),
            (reference(50, 3), 4, "3 values"),
            (np.ones((50, 8)), 2, "say the same"),
        ],
    )
    def test_a_reference_that_spans_nothing_is_refused(
        self, vectors: np.ndarray, dimensions: int, match: str
    ) -> None:
        with pytest.raises(UsageError, match=match):
            Space.fit(vectors, dimensions)

    def test_more_texts_than_dimensions_of_which_too_few_differ_are_refused(self) -> None:
        """Around their mean, 31 texts span 30 directions; two more would be noise of one processor."""
        rng = np.random.default_rng(2)
        distinct = reference(31, 48)
        many = np.vstack([distinct, distinct[rng.integers(31, size=1_969)]])
        rounded = many + 1e-8 * rng.normal(size=many.shape)  # batches of other lengths, other last bits
        for vectors in (many, rounded):
            with pytest.raises(UsageError, match=r"2000 texts .* differ in 30 directions, of 32 dim"):
                Space.fit(vectors, 32)
            assert Space.fit(vectors, 30).axes.shape == (48, 30)
        assert Space.fit(reference(2_000, 48), 32).axes.shape == (48, 32)

    def test_every_item_has_a_place(self) -> None:
        with pytest.raises(UsageError, match="1 places for 2 items"):
            PlacedCatalogue(
                (CatalogueItem(item_id="a"), CatalogueItem(item_id="b")), np.zeros((1, 2)), "ab" * 32
            )


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    pytest.importorskip("transformers", reason="needs the extra language")
    return TextEncoder(EncoderFiles.check(make_tiny_encoder(tmp_path_factory.mktemp("encoder"))))


class TestEncoding:
    @settings(max_examples=20, deadline=None)
    @given(texts=st.lists(st.text(max_size=60), max_size=6))
    def test_any_text_has_a_vector_of_length_one(self, encoder: TextEncoder, texts: list[str]) -> None:
        vectors = encoder.encode(texts)
        lengths = np.linalg.norm(vectors, axis=1)
        written = np.array([bool(text.strip()) for text in texts], dtype=bool)
        np.testing.assert_allclose(lengths, written, atol=1e-5)

    def test_titles_of_other_scripts_empty_ones_and_very_long_ones(self, encoder: TextEncoder) -> None:
        texts = ["玩具总动员", "🚀🎬", "", "red shoe " * 1_112, "red shoe"]
        done: list[tuple[int, int]] = []
        vectors = encoder.encode(texts, lambda now, of: done.append((now, of)))
        assert vectors.shape == (5, 16)
        assert not vectors[2].any()
        assert done == [(4, 4)]

    def test_a_text_has_one_vector_whatever_stands_beside_it(self, encoder: TextEncoder) -> None:
        alone = encoder.encode(["love song"])
        among = encoder.encode(["war", "love song", "red blue green shoe shirt " * 5])
        np.testing.assert_allclose(among[1], alone[0], atol=1e-6)

    def test_vectors_are_kept_and_made_again_where_they_were_damaged(
        self, encoder: TextEncoder, tmp_path: Path
    ) -> None:
        items = Catalogue((CatalogueItem(item_id="a", title="red"), CatalogueItem(item_id="b", title="war")))
        made = vectors_of(tmp_path, "ab" * 32, items, lambda: encoder)

        def fail() -> TextEncoder:
            raise AssertionError("they are kept")

        again = vectors_of(tmp_path, "ab" * 32, items, fail)
        np.testing.assert_array_equal(made, again)
        (kept,) = (tmp_path / KEPT).iterdir()
        kept.write_bytes(kept.read_bytes()[:-4])
        mended = vectors_of(tmp_path, "ab" * 32, items, lambda: encoder)
        np.testing.assert_array_equal(made, mended)
