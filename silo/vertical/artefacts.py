"""What a vertical job leaves: at a feature silo its basis, at the label silo the joint model. Neither leaves.

The basis is what turns a person's row into the few numbers that moments were made of, for whoever that silo
serves later. The model holds sums over the label silo's people and its partners' noised moments, no rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from policies.plans.plan import Plan
from policies.silo_policy import Dataset
from privacy.clipping import clip_rows
from privacy.errors import DataError
from silo.data.catalogue import Catalogue
from silo.data.interactions import Interactions
from silo.finished import job_terms, left_by_job
from silo.rows import plan_catalogue
from silo.tensor_files import Tables, TensorFileError, load_tables, save_tables
from silo.vertical.columns import column_map, feature_interactions, unit_rows
from silo.vertical.encoder.encoding import encoded
from silo.vertical.joint.model import (
    FeatureMoments,
    FeatureSide,
    ItemSide,
    JointModel,
    Matrix,
    Vector,
    Weights,
)
from silo.vertical.joint.weights import chosen_weights

BASIS_FILE = "feature-basis.safetensors"
MODEL_FILE = "joint-model.safetensors"
_BASIS_KIND = "archipel-feature-basis/v1"
_MODEL_KIND = "archipel-joint-model/v1"
OWNER_ONLY = 0o600
"""Sums over people without noise, and what is computed with them, are for this silo's agent alone."""

DEFAULT_FEATURE_RIDGE = 10.0
DEFAULT_MIXING = 0.25
"""Until the label silo has chosen them on people in session (:mod:`silo.vertical.joint.tuning`)."""


class BasisColumnsError(DataError):
    """A silo's item list is no longer the one that its basis was made for."""

    code = "basis_columns"


@dataclass(frozen=True)
class FeatureBasis:
    """How one feature silo turns its people's rows into the numbers that a job's moments were made of.

    Attributes:
        directory: the silo's.
        plan: the job's.
        dataset: whose rows, as the job's policy had it.
        basis: columns × k float64; of a private encoder its frozen weights.
    """

    directory: Path
    plan: Plan
    dataset: Dataset
    basis: Matrix

    def project(self, user_id: str) -> Vector:
        """A person's numbers, shape (k,), from the rows that are here now; zeros for whoever has none."""
        numbers: Vector = self.features([user_id])[0]
        return numbers

    def features(self, user_ids: list[str]) -> Matrix:
        """Numbers of several people, shape (people, k).

        Raises:
            BasisColumnsError: the silo's item list has changed since the job.
        """
        interactions = self.interactions
        rows = sp.lil_matrix((len(user_ids), interactions.num_items))
        for row, user_id in enumerate(user_ids):
            rows[row, interactions.of(user_id)] = 1.0
        columns = feature_columns(sp.csr_matrix(rows), interactions, self.dataset)
        if columns.shape[1] != len(self.basis):
            raise BasisColumnsError(
                f"{columns.shape[1]} columns where the job had {len(self.basis)}",
                where=self.dataset.item_list,
                remedy="put the list back as it was, or run the job anew",
            )
        if self.plan.model.family == "private-encoder":
            return encoded(columns, self.basis)
        return clip_rows(columns, 1.0) @ self.basis

    @cached_property
    def interactions(self) -> Interactions:
        """The silo's rows, read once."""
        return feature_interactions(self.directory, self.plan, self.dataset)


@dataclass(frozen=True, eq=False)
class LabelModel:
    """The label silo's joint model.

    Attributes:
        plan: the job's.
        items: catalogue indices of the items that are ranked, ascending.
        item_gram: items × items, of the label silo's bounded rows.
        counts: (items,) how many people have each.
        partners: what each feature silo brought.
        weights: of the items, and of the partners once chosen.
    """

    plan: Plan
    items: npt.NDArray[np.int64]
    item_gram: Matrix
    counts: Vector
    partners: Mapping[str, FeatureMoments]
    weights: Weights
    catalogue: Catalogue | None = field(default=None, repr=False)

    @cached_property
    def joint(self) -> JointModel:
        """The solved model, with every partner's term."""
        items = ItemSide.of_gram(self.item_gram, self.weights.item_ridge)
        weights = self.weights
        if len(weights.feature_ridges) != len(self.partners):
            ridges = (DEFAULT_FEATURE_RIDGE,) * len(self.partners)
            weights = replace(weights, feature_ridges=ridges, mixing=DEFAULT_MIXING)
        pairs = zip(self.partners.values(), weights.feature_ridges, strict=True)
        return JointModel(items, [FeatureSide(items, moments, ridge) for moments, ridge in pairs], weights)

    def scores(
        self, own_items: npt.NDArray[np.integer], features: Mapping[str, Vector] | None = None
    ) -> Vector:
        """Scores of all items of the catalogue for one person.

        Args:
            own_items: catalogue indices of what the person has at the label silo.
            features: what each partner's token brought, (k,); a partner that brought none is left out, and
                without any this is the label silo's own model.

        Returns:
            (catalogue items,) float64; ``-inf`` for items that the model does not rank.
        """
        given = features or {}
        bounded = self._row_of(own_items)
        scores = np.full(self.plan.catalogue.items, -np.inf)
        if bounded.nnz == 0 and not given:
            scores[self.items] = self.counts
            return scores
        vectors = [given.get(name) for name in self.partners]
        of_partners = [None if vector is None else vector[None, :] for vector in vectors]
        scores[self.items] = self.joint.scores(bounded, of_partners)[0]
        return scores

    def terms(self, own_items: npt.NDArray[np.integer]) -> tuple[Vector, dict[str, tuple[Matrix, Vector]]]:
        """One person's scores taken apart: the label silo's own, and what each partner's numbers add.

        Args:
            own_items: catalogue indices of what the person has at the label silo.

        Returns:
            (items,) float64, and by partner (items, k) and (items,): with that partner's numbers z the scores
            are ``own + loadings @ z + offset``, as :meth:`scores` has them.
        """
        row = self._row_of(own_items)
        terms = {name: self.joint.term(place, row) for place, name in enumerate(self.partners)}
        own: Vector = self.joint.scores(row)[0]
        return own, terms

    def _row_of(self, own_items: npt.NDArray[np.integer]) -> sp.csr_matrix:
        """A person's bounded row, 1 × items."""
        known = np.flatnonzero(np.isin(self.items, own_items))
        row = sp.csr_matrix(
            (np.ones(known.size), (np.zeros(known.size, dtype=np.int64), known)), shape=(1, self.items.size)
        )
        return bounded_rows(row, self.label_norm)

    def recommend(
        self,
        own_items: npt.NDArray[np.integer],
        features: Mapping[str, Vector] | None = None,
        *,
        top: int,
        seen: npt.NDArray[np.integer] | None = None,
    ) -> list[tuple[int, float]]:
        """The best new items, as (catalogue index, score), the best first.

        Args:
            own_items: as :meth:`scores`.
            features: as :meth:`scores`.
            top: length of the list.
            seen: what is not shown again, disliked items too; None: ``own_items``.
        """
        scores = self.scores(own_items, features)
        scores[own_items if seen is None else seen] = -np.inf
        best = np.argsort(-scores, kind="stable")[:top]
        return [(int(item), float(scores[item])) for item in best if np.isfinite(scores[item])]

    @property
    def label_norm(self) -> float:
        """What rows are bounded by; infinite where they never leave."""
        return float(getattr(self.plan.model, "label_norm", math.inf))

    def save(self, path: Path) -> None:
        """Write it durably."""
        tables = {"items": self.items, "item_gram": self.item_gram, "counts": self.counts}
        for name, moments in self.partners.items():
            tables |= {f"cross.{name}": moments.cross, f"gram.{name}": moments.gram}
        tables["feature_ridges"] = np.array(self.weights.feature_ridges, dtype=np.float64)
        scalars = [self.weights.item_ridge, self.weights.normalisation, self.weights.mixing]
        save_tables(path, _MODEL_KIND, tables | {"weights": np.array(scalars)}, {}, mode=OWNER_ONLY)


def feature_columns(rows: sp.csr_matrix, interactions: Interactions, dataset: Dataset) -> Matrix:
    """People × items to people × columns, each row of norm 1 or zero."""
    item_ids = interactions.catalogue.item_ids
    return unit_rows(rows, column_map(item_ids, is_public_list=dataset.item_list is not None))


def bounded_rows(rows: sp.csr_matrix, norm: float) -> sp.csr_matrix:
    """Shorten rows that are longer than ``norm``; others stay as they are."""
    lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64).ravel())
    scale = np.minimum(1.0, norm / np.maximum(lengths, 1e-300))
    return sp.csr_matrix(sp.diags_array(scale) @ rows)


def save_basis(path: Path, basis: Matrix) -> None:
    """Write a basis, columns × k, durably."""
    save_tables(path, _BASIS_KIND, {"basis": basis}, {}, mode=OWNER_ONLY)


def load_feature_basis(directory: Path, job: str) -> FeatureBasis:
    """Read what a job left at a feature silo.

    Args:
        directory: the silo's.
        job: its handle, or a unique beginning of it.

    Raises:
        NoModelError: there is none, or the beginning fits several.
        TensorFileError: the file is damaged, or holds no basis.
    """
    path = left_by_job(directory, job, BASIS_FILE)
    plan, _, dataset = job_terms(path.parent)
    tables, _ = load_tables(path, _BASIS_KIND)
    basis = tables.get("basis")
    if basis is None or basis.ndim != 2:
        raise other_tables(path, "a feature silo's basis")
    return FeatureBasis(directory, plan, dataset, basis)


def load_label_model(directory: Path, job: str | None = None) -> LabelModel:
    """Read what a job left at the label silo; the newest where none is named.

    Raises:
        NoModelError: there is none, or the beginning fits several.
        TensorFileError: the file is damaged, or holds other tables than the job's plan says.
    """
    path = left_by_job(directory, job, MODEL_FILE)
    plan, _, _ = job_terms(path.parent)
    tables, _ = load_tables(path, _MODEL_KIND)
    catalogue, chosen = plan_catalogue(directory, plan), chosen_weights(path.parent)
    try:
        return LabelModel(
            plan=plan,
            items=tables["items"],
            item_gram=tables["item_gram"],
            counts=tables["counts"],
            partners={
                name: FeatureMoments(tables[f"cross.{name}"], tables[f"gram.{name}"])
                for name in plan.silos[1:]
            },
            weights=chosen or _weights_in(tables),
            catalogue=catalogue,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise other_tables(path, "a label silo's model of this plan") from error


def other_tables(path: Path, wanted: str) -> TensorFileError:
    """What is raised for a readable file that lacks something."""
    return TensorFileError(
        f"the tables are not those of {wanted}", where=str(path), remedy="take the file as the job wrote it"
    )


def _weights_in(tables: Tables) -> Weights:
    ridge, normalisation, mixing = tables["weights"].tolist()
    return Weights(ridge, normalisation, tuple(tables["feature_ridges"].tolist()), mixing)
