"""What a gradient-trained network has to say for itself; everything else is the trainer's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from privacy.errors import UsageError

if TYPE_CHECKING:
    import scipy.sparse as sp
    from torch import Tensor, nn

    from policies.plans.plan import Plan
    from policies.sections import Section
    from silo.data.catalogue import Catalogue
    from silo.models.shipped import ShippedModel

Vector = NDArray[np.float64]
Weights: TypeAlias = dict[str, Vector]
Batch: TypeAlias = "tuple[Tensor, ...]"
Model = TypeVar("Model", bound="Section")


def section_of(plan: Plan, kind: type[Model]) -> Model:
    """Return the plan's model section, which has to be of one kind.

    Raises:
        UsageError: it is another family's.
    """
    if not isinstance(plan.model, kind):
        raise UsageError(f"a plan of family {plan.model.family!r} is no {kind.__name__}", where="plan: model")
    return plan.model


class Architecture(ABC):
    """One network, its inputs and its loss. Nothing here samples users, clips, adds noise or optimises.

    An architecture inherits the tests of ``tests/contracts/architecture_contract.py``.

    Args:
        plan: constants; the model section is the architecture's own.
        catalogue: the public items.
        popularity: (items,) > 0, read from the noised popularity round; None if the plan has none or it has
            not been summed yet.

    Attributes:
        input_dropout: probability that an item of a history is hidden from the network, to be its target.
        inner_values: values that the network holds of one user, besides a score of each item.
    """

    input_dropout: float = 0.0
    inner_values: int = 0

    def __init__(self, plan: Plan, catalogue: Catalogue, popularity: Vector | None) -> None:
        self.plan = plan
        self.catalogue = catalogue
        self.popularity = popularity

    @abstractmethod
    def initial_weights(self) -> Weights:
        """Public weights before any training, by the names and in the order of the module's parameters.

        Bit-equal on every processor, so without logarithms or sines: see ``features.public_uniform``.
        """

    @abstractmethod
    def module(self) -> nn.Module:
        """Return a float64 module without buffers; the trainer sets its weights."""

    def set_weights(self, module: nn.Module, weights: Weights) -> None:
        """Put values into a module's parameters.

        Args:
            module: made by :meth:`module`.
            weights: as of :meth:`initial_weights`.
        """
        import torch

        with torch.no_grad():
            for parameter, values in zip(module.parameters(), weights.values(), strict=True):
                parameter.copy_(torch.from_numpy(values))

    def spread(self, values: Vector) -> Vector:
        """Put gradients of the module's parameters at their places among all weights.

        Args:
            values: (..., parameters).

        Returns:
            (..., weights): 0 for weights that this silo leaves to others.
        """
        return values

    @property
    def num_scored(self) -> int:
        """Scores of one user that are held at a time."""
        return len(self.catalogue)

    def draw(self, step: int | None) -> None:  # noqa: B027 - most losses need nothing but rows
        """Draw by public coins what a step's loss needs besides rows, once for all its users.

        Args:
            step: its number in the plan's schedule; None outside of training: nothing is left to chance.
        """

    @abstractmethod
    def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
        """Tensors of some users, users first, each row a function of that user's two rows alone.

        Args:
            inputs: users × items: 1 what the network sees, in order of time; 0 may be stored for what is
                hidden from it (:func:`silo.models.session.hidden_apart`).
            targets: users × items, likewise: what it should score highly.
        """

    @abstractmethod
    def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
        """Loss of each user alone, shape (users,); constant for a user without a target."""

    @abstractmethod
    def recommender(self, weights: Weights) -> ShippedModel:
        """Tables that score as the module with these weights does."""
