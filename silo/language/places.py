"""From a silo's item list to places in a plan's space; what takes long is kept, by digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from policies.plans.models import LanguageModel
from policies.plans.plan import PerSiloCatalogue, Plan
from privacy.errors import UsageError
from silo.config import load_config
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.space import PlacedCatalogue, Space
from silo.language.store import find_encoder
from silo.rows import ItemListError
from silo.tensor_files import TensorFileError, load_tables, save_tables

if TYPE_CHECKING:
    from silo.language.encoder import Notice, TextEncoder, Vectors

FORMAT: Final = "archipel-text-vectors/v1"
KEPT: Final = "vectors"


def item_text(item: CatalogueItem) -> str:
    """What the encoder reads of an item: title, description, attributes; empty if it has none of them."""
    labels = f"({', '.join(item.attributes)})" if item.attributes else ""
    return " ".join(part for part in (item.title.strip(), labels, item.text.strip()) if part)


def place_items(directory: Path, plan: Plan, own: Catalogue, notice: Notice | None = None) -> PlacedCatalogue:
    """A silo's own items where the plan's encoder and reference texts put them.

    Args:
        directory: the silo's; vectors are read from and kept in ``vectors/``.
        plan: of family ``language``; its reference list is in ``catalogues/``.
        own: what this silo ranks.
        notice: told (texts done, texts in all) while texts are encoded, and where adapters read them all.

    Raises:
        ItemListError: no two items of the silo's own list have different texts: every ranking is a tie.
        TextEncoderMissingError: the plan's encoder is not here.
        UsageError: another family, or a reference too small for the plan's dimensions.
    """
    terms, model = plan.catalogue, plan.model
    if not isinstance(terms, PerSiloCatalogue) or not isinstance(model, LanguageModel):
        raise UsageError(f"a plan of family {model.family!r} places no items by their texts", where="plan")
    if len({item_text(item) for item in own.items}) < 2:
        raise ItemListError(
            "no two items of this silo's list have different texts",
            where="item_list",
            remedy="archipel data catalogue FILE with titles, then item_list: catalogues/<sha256>.jsonl",
        )
    reference = Catalogue.load(directory / "catalogues" / f"{terms.sha256}.jsonl", terms.sha256)
    load = _once(directory, terms.encoder_sha256)
    space = Space.fit(vectors_of(directory, terms.encoder_sha256, reference, load, notice), model.dimensions)
    vectors = vectors_of(directory, terms.encoder_sha256, own, load, notice)
    texts = None
    if model.adapter is not None:
        from silo.language.adapters.texts import AdaptableTexts

        most_bytes = load_config(directory).activation_cache_megabytes << 20
        words = tuple(item_text(item) for item in own.items)
        texts = AdaptableTexts(load(), space, words, most_bytes, notice)
    made_of = f"{FORMAT}\0{terms.encoder_sha256}\0{terms.sha256}\0{model.dimensions}"
    made_of_sha256 = hashlib.sha256(made_of.encode()).hexdigest()
    return PlacedCatalogue(own.items, space.place(vectors), made_of_sha256, texts)


def vectors_of(
    directory: Path,
    encoder_sha256: str,
    catalogue: Catalogue,
    load: Callable[[], TextEncoder],
    notice: Notice | None = None,
) -> Vectors:
    """Vectors of a catalogue's texts, from ``vectors/`` where they were made before.

    Args:
        directory: the silo's.
        encoder_sha256: which encoder.
        catalogue: whose texts.
        load: builds the encoder; called only if something has to be encoded.
        notice: as for :meth:`TextEncoder.encode`.

    Returns:
        items × width float32.
    """
    about = {"encoder_sha256": encoder_sha256, "catalogue_sha256": catalogue.sha256}
    name = hashlib.sha256("\0".join((FORMAT, *about.values())).encode()).hexdigest()
    path = directory / KEPT / f"{name}.safetensors"
    kept = _kept(path, about, len(catalogue))
    if kept is not None:
        return kept
    vectors = load().encode([item_text(item) for item in catalogue.items], notice)
    path.parent.mkdir(exist_ok=True)
    save_tables(path, FORMAT, {"vectors": vectors}, about)
    return vectors


def _kept(path: Path, about: dict[str, str], num_items: int) -> Vectors | None:
    """What was made before; None where it is not there, or not whole: then it is made again."""
    if not path.exists():
        return None
    try:
        tables, said = load_tables(path, FORMAT)
    except TensorFileError:
        return None
    vectors = tables.get("vectors")
    if said != about or vectors is None or vectors.ndim != 2 or len(vectors) != num_items:
        return None
    return vectors if vectors.dtype == np.float32 and np.isfinite(vectors).all() else None


def _once(directory: Path, sha256: str) -> Callable[[], TextEncoder]:
    """Build the encoder when it is first needed, and keep it for the second list."""

    @cache
    def load() -> TextEncoder:
        from silo.language.encoder import TextEncoder

        return TextEncoder(find_encoder(directory, sha256))

    return load
