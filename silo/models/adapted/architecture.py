"""Language with a trained encoder: adapters on the last layers of what reads the texts of a history.

The input side alone reads items as the adapted encoder places them; scores are products with the frozen
encoder's places (``F``), as in :mod:`silo.models.bottleneck`. So the cross-entropy runs over all items of a
silo's list without encoding them for each person, and people meet in nothing. A step reads the newest
``places`` items of a history with the adapted encoder, older ones as they stand in ``F``; the model that
ships reads all of them with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from policies.plans.models import LanguageModel
from privacy.errors import UsageError
from silo.language.space import PlacedCatalogue
from silo.models.adapted.checks import check_read
from silo.models.adapted.network import ADAPTERS, AdaptedNetwork, adapters_of
from silo.models.architecture import Batch, Vector, Weights, section_of
from silo.models.bottleneck import BottleneckArchitecture
from silo.models.features import Matrix
from silo.models.sequence.trunk import newest_items

if TYPE_CHECKING:
    import scipy.sparse as sp

    from policies.plans.plan import Plan
    from silo.data.catalogue import Catalogue


class AdaptedLanguageArchitecture(BottleneckArchitecture):
    """The bottleneck between a history read by the adapted encoder and frozen places."""

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        self.model, texts = section_of(plan, LanguageModel), PlacedCatalogue.of(catalogue).texts
        if self.model.adapter is None or texts is None:
            raise UsageError("there is no text encoder to adapt", where="plan: model.encoder_adapter")
        self.adapter, self._texts = self.model.adapter, texts
        super().__init__(
            plan,
            catalogue,
            popularity,
            features=texts.frozen_places(self.adapter),
            bias=np.zeros(len(catalogue)),
            hidden=self.model.hidden,
            seed=self.model.seed,
            input_dropout=self.model.input_dropout,
        )
        self._frozen_places = torch.from_numpy(self.features)
        self.inner_values = texts.values_of_person(self.adapter)

    @override
    def initial_weights(self) -> Weights:
        """Adapters that add nothing; then those of ``LanguageBottleneck``."""
        adapters = {
            name: np.zeros((len(parameter), self.adapter.rank))
            for name, parameter in self.module().named_parameters()
            if name.startswith(ADAPTERS)
        }
        weights = super().initial_weights()
        decoder = np.ascontiguousarray(weights["encoder.weight"].T)
        return adapters | weights | {"decoder.weight": decoder}

    @override
    def module(self) -> AdaptedNetwork:
        return self.network(columns=None)

    def network(self, columns: int | None) -> AdaptedNetwork:
        """The module, with so many columns of every adapter as parameters; all, where it is left out."""
        return AdaptedNetwork(self.model, self._texts, self._frozen_places, columns)

    @override
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        seen = inputs.copy()
        seen.eliminate_zeros()
        share = 1 / np.sqrt(np.maximum(np.diff(seen.indptr), 1))
        newest = newest_items(seen, self.adapter.places)
        history, *asked = super().batch(inputs, targets)
        return (history, torch.from_numpy(newest), torch.from_numpy(share), *asked)

    @override
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        history, newest, share, *asked = batch
        return self.loss_of(model(history, newest, share), *asked)

    @override
    def read_features(self, weights: Weights) -> Matrix:
        network = self.module()
        self.set_weights(network, weights)
        read = self._texts.all_places(network.adapted, self.adapter)
        check_read(adapters_of(weights), self.features, read)
        return read
