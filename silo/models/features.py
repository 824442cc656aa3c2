"""Public item features: what a model may know about an item before any row is read.

Every processor computes its own copy, and processors differ in the last bits of a product. So the basis is a
*continuous* function of its input (positive triangular factors, a fixed start block, a fixed number of steps,
no signs or rotations left open as in a singular value decomposition): copies agree to about 1e-8. They enter
models and scores, never the state that silos compare bit by bit.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

if TYPE_CHECKING:
    from silo.data.catalogue import Catalogue

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

MAX_WORDS = 16_384
MIN_ITEMS_OF_A_WORD = 2
POWER_STEPS = 6
DEPENDENT = 1e-8
"""Squared sine of the angle below which a column counts as a combination of those before it."""

_WORD = re.compile(r"\w+")
_START_SEED = 0x61726368


def attribute_table(catalogue: Catalogue, width: int) -> Matrix:
    """Items × ``width``: one-hots of the first attributes in sorted order, padded with zeros."""
    table = catalogue.features()[:, :width]
    return np.pad(table, ((0, 0), (0, width - table.shape[1])))


def public_basis(catalogue: Catalogue, width: int, row_scale: Vector | None = None) -> Matrix:
    """Orthonormal columns that span what is publicly known about the items.

    All attributes, then as many directions of the titles' TF-IDF as there is room for, the strongest first
    and orthogonal to the attributes. A catalogue with more attributes than columns has both projected.

    Args:
        catalogue: the public items.
        width: columns, at least 1.
        row_scale: (items,) > 0, weight of each item before the columns are made orthonormal; all 1 if left
            out. Public, or noised and charged.

    Returns:
        Items × ``width`` float64, read-only. Columns that the catalogue cannot fill are zero, at the end.
    """
    scale = np.ones(len(catalogue)) if row_scale is None else np.asarray(row_scale, dtype=np.float64)
    return _public_basis(catalogue, width, scale.tobytes())


@lru_cache(maxsize=4)
def _public_basis(catalogue: Catalogue, width: int, scale_bytes: bytes) -> Matrix:
    """The same, remembered: whoever plays several silos asks for each one's and gets the same."""
    scale = np.frombuffer(scale_bytes, dtype=np.float64)
    attributes = catalogue.features() * scale[:, None]
    words = sp.csr_matrix(sp.diags_array(scale) @ word_table(catalogue))
    if attributes.shape[1] > width:
        norms = np.sqrt(np.maximum(catalogue.features().sum(1), 1.0))
        words = sp.csr_matrix(sp.hstack([attributes / norms[:, None], words]))
        attributes = attributes[:, :0]
    known = orthonormal(attributes[:, _independent(attributes)])
    found = _leading_directions(words, min(width, len(catalogue)) - known.shape[1], known)
    basis = np.hstack([known, found])
    padded = np.pad(basis, ((0, 0), (0, width - basis.shape[1])))
    padded.setflags(write=False)
    return padded


def word_table(catalogue: Catalogue) -> sp.csr_matrix:
    """TF-IDF of the titles: items × words, rows of norm 1 (or 0), words in sorted order.

    Words of fewer than ``MIN_ITEMS_OF_A_WORD`` items say nothing about another item and are left out; of the
    rest at most ``MAX_WORDS`` are kept, the most frequent first.
    """
    counted = [Counter(_words(item.title)) for item in catalogue.items]
    spread = Counter(word for counts in counted for word in counts)
    ranked = sorted((-number, word) for word, number in spread.items() if number >= MIN_ITEMS_OF_A_WORD)
    kept = sorted(word for _, word in ranked[:MAX_WORDS])
    column = {word: index for index, word in enumerate(kept)}
    rarity = {word: np.log((1 + len(counted)) / (1 + spread[word])) + 1 for word in kept}
    rows = [row for row, counts in enumerate(counted) for word in counts if word in column]
    words = [word for counts in counted for word in counts if word in column]
    weights = [counts[word] * rarity[word] for counts in counted for word in counts if word in column]
    table = sp.csr_matrix(
        (weights, (rows, [column[word] for word in words])), shape=(len(counted), len(kept)), dtype=np.float64
    )
    norms = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags_array(1.0 / np.where(norms > 0, norms, 1.0)) @ table)


def public_uniform(seed: int, count: int) -> Vector:
    """``count`` public numbers in [-1, 1), bit-equal on every machine: raw words and one division."""
    words = np.random.PCG64(seed).random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) / 2.0**52 - 1.0


def _words(title: str) -> Iterator[str]:
    return (match[0] for match in _WORD.finditer(unicodedata.normalize("NFKC", title).casefold()))


def _independent(table: Matrix) -> list[int]:
    """Columns that are no combination of those before them, by elimination in their Gram matrix."""
    gram = table.T @ table
    lengths = np.diagonal(gram).copy()
    kept = []
    for column, length in enumerate(lengths):
        pivot = gram[column, column]
        if pivot > DEPENDENT * length:
            kept.append(column)
            gram -= np.outer(gram[:, column], gram[column]) / pivot
    return kept


def orthonormal(table: Matrix) -> Matrix:
    """Gram-Schmidt of independent columns: the one orthonormal basis with a positive triangular factor."""
    q, r = np.linalg.qr(table)
    return q * np.where(np.diagonal(r) < 0, -1.0, 1.0)


def _leading_directions(table: sp.csr_matrix, count: int, known: Matrix) -> Matrix:
    """Block power iteration on ``table table^T`` away from ``known``; fewer columns where its rank ends."""
    count = min(count, *table.shape)
    if count <= 0:
        return np.zeros((table.shape[0], 0))
    block = public_uniform(_START_SEED, table.shape[1] * count).reshape(-1, count)
    strengths = np.zeros(count)
    for _ in range(1 + POWER_STEPS):
        image = table @ block
        # Twice, or rounding leaves a trace of what is known already.
        for _ in range(2):
            image -= known @ (known.T @ image)
        q, r = np.linalg.qr(image)
        strengths = np.abs(np.diagonal(r))
        directions = q * np.where(np.diagonal(r) < 0, -1.0, 1.0)
        block = table.T @ directions
    # A column past the rank is a rounding error stretched to length one, and such columns come last.
    return directions[:, strengths > DEPENDENT * strengths.max()]
