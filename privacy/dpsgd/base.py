"""What both ways to tell users apart share: loss, error, a batch and its gradients, a random probe."""

from __future__ import annotations

import secrets
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.clipping import Clipping
from privacy.errors import UsageError

LossPerUser = Callable[..., Tensor]
"""``loss_per_user(model, *batch) -> losses`` of shape (users,); the batch's tensors have users first."""

Batch: TypeAlias = tuple[Tensor, ...]
Gradient: TypeAlias = tuple[Tensor, ...]
Vector = npt.NDArray[np.float64]
Mode = Literal["hooks", "ghost"]

_CONSISTENCY_TOLERANCE = 1e-11


class PerUserGradientError(UsageError):
    """A model or loss whose gradients cannot be told apart by user; nothing was released."""

    code = "per_user_gradients"


class BatchGradients(ABC):
    """The gradients of the users of one micro-batch, each of them known apart from the others.

    Attributes:
        losses: (users,), float64.
        norms: (users,) L2 norms over all parameters, never below the real ones by more than 2^-31 of them.
    """

    losses: Vector
    norms: Vector

    @property
    def is_usable(self) -> npt.NDArray[np.bool_]:
        """Whose loss and gradient are numbers; everybody else counts as nobody."""
        return np.isfinite(self.losses) & np.isfinite(self.norms)

    @abstractmethod
    def check_total(self, max_grad_norm: float) -> None:
        """Compare the gradients' sum with the one that autograd found; all users must be usable.

        Only of gradients that were asked for with their total.

        Args:
            max_grad_norm: differences far below it are rounding, whatever the gradients' own length.

        Raises:
            PerUserGradientError: they differ: some weight acts behind its layer's back.
        """

    def _check_difference(self, difference: float, max_grad_norm: float) -> None:
        # Gradients that are zero but for rounding (an attention key's bias) have no length to compare with.
        scale = float(self.norms.sum()) + len(self.norms) * max_grad_norm
        if not difference <= _CONSISTENCY_TOLERANCE * scale:
            raise PerUserGradientError(
                "per-user gradients do not add up to the gradient of the loss",
                where="model",
                remedy="use every weight through its layer only (not `z @ embedding.weight.T`)",
            )

    @abstractmethod
    def clipped_sum(self, max_grad_norm: float, clipping: Clipping) -> Vector:
        """Sum of the clipped gradients, shape (values,): of no use unless everybody is usable."""

    @abstractmethod
    def row(self, user: int) -> Vector:
        """One user's whole gradient, shape (values,): for tests of what is otherwise never written out."""

    @abstractmethod
    def distance(self, user: int, gradient: Gradient) -> float:
        """L2 distance of one user's gradient to another, given parameter by parameter."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Memory that these gradients take."""


class Engine(ABC):
    """One way to tell users apart; knows nothing of clip norms and micro-batches.

    Args:
        hooked: the model with Opacus' hooks on it.
        parameters: the trainable ones, in the model's order.
        loss_per_user: see ``LossPerUser``.
    """

    def __init__(self, hooked: nn.Module, parameters: list[nn.Parameter], loss_per_user: LossPerUser) -> None:
        self._hooked = hooked
        self._modules = list(hooked.modules())
        self.parameters = parameters
        self._led_to = _cheapest_that_lead_past_every_layer(hooked, parameters)
        self._loss_per_user = loss_per_user
        _check_embeddings(self._modules)
        hooked.train()
        hooked.disable_hooks()  # type: ignore[operator]  # of Opacus, so unknown to nn.Module

    @abstractmethod
    def gradients(self, batch: Batch, *, with_total: bool = False) -> BatchGradients:
        """Forward and backward of a batch with at least one user.

        Args:
            batch: see ``LossPerUser``.
            with_total: also have autograd sum them, to be compared.

        Raises:
            PerUserGradientError: a parameter does not have exactly one gradient for each user.
        """

    def alone(self, batch: Batch, user: int) -> Gradient:
        """One user's gradient by autograd, without hooks, from a batch of this user only."""
        with known_warnings():
            loss = self._losses(tuple(tensor[user : user + 1] for tensor in batch)).sum()
            return torch.autograd.grad(loss, self.parameters, materialize_grads=True)

    def _backward(self, batch: Batch, *, with_total: bool) -> Vector:
        """Run the hooked model both ways; what the hooks found of each user is then on the parameters."""
        reached = self.parameters if with_total else [p for p in self._led_to if p.requires_grad]
        if not reached:
            raise takes_no_part()
        self._forget()
        self._hooked.enable_hooks()  # type: ignore[operator]
        try:
            with known_warnings():
                losses = self._losses(batch)
                losses.sum().backward(inputs=reached)  # type: ignore[no-untyped-call]
        except NotImplementedError as error:
            raise PerUserGradientError(
                f"Opacus cannot tell users apart in this model: {error}",
                where="model",
                remedy="use every layer once, or pass mode='hooks'",
            ) from error
        finally:
            self._hooked.disable_hooks()  # type: ignore[operator]
        if any(parameter.grad is None for parameter in reached):
            raise takes_no_part()
        return losses.detach().numpy()

    def _losses(self, batch: Batch) -> Tensor:
        losses = self._loss_per_user(self._hooked, *batch)
        if losses.shape != (num_users(batch),):
            raise PerUserGradientError(
                f"the loss has shape {tuple(losses.shape)}",
                where="loss_per_user",
                remedy="return one loss for each user, without reducing over users",
            )
        if not losses.requires_grad:
            raise takes_no_part()
        return losses

    def _forget(self) -> None:
        """Drop what an earlier batch, perhaps one that failed half-way, left on modules and parameters."""
        for module in self._modules:
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)
        for parameter in self.parameters:
            parameter.__dict__.pop("_current_grad_sample", None)
            parameter.__dict__ |= {"grad_sample": None, "_forward_counter": 0}
            parameter.grad = None


def num_users(batch: Batch) -> int:
    """Number of users in a batch.

    Raises:
        PerUserGradientError: its tensors disagree.
    """
    sizes = {tensor.shape[0] for tensor in batch}
    if len(sizes) != 1:
        raise PerUserGradientError(
            "the tensors of a batch differ in their number of users", where="batch", remedy="put users first"
        )
    return sizes.pop()


def check_rows(found: int, expected: int) -> None:
    """One gradient for each user, or none is released.

    Raises:
        PerUserGradientError: the numbers differ.
    """
    if found != expected:
        raise PerUserGradientError(
            "a parameter's gradients are not one per user",
            where="model",
            remedy="keep users as the first dimension of every layer's input, items in a later one",
        )


def takes_no_part() -> PerUserGradientError:
    """The error of a parameter without gradients."""
    return PerUserGradientError(
        "a trainable parameter took no part in the loss",
        where="model",
        remedy="freeze it with requires_grad_(False), or use it through its layer; ask no gradient of inputs",
    )


def _cheapest_that_lead_past_every_layer(
    model: nn.Module, parameters: list[nn.Parameter]
) -> list[nn.Parameter]:
    """Where autograd has to arrive so that every layer's hook fires.

    A linear layer's bias is enough: its weight's gradient, summed over users, is a product as dear as all
    users' own together, and only :meth:`BatchGradients.check_total` needs it.
    """
    dear = {module.weight for module in model.modules() if _is_reached_by_its_bias(module)}
    others = [module for module in model.modules() if not _is_reached_by_its_bias(module)]
    needed = {parameter for module in others for parameter in module.parameters(recurse=False)}
    return [parameter for parameter in parameters if parameter in needed or parameter not in dear]


def _check_embeddings(modules: list[nn.Module]) -> None:
    """No embedding may scale its rows in place, by whose items are in the batch."""
    if any(isinstance(module, nn.Embedding) and module.max_norm is not None for module in modules):
        raise PerUserGradientError(
            "an embedding with max_norm changes with who is in the batch",
            where="model",
            remedy="leave it out",
        )


def _is_reached_by_its_bias(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.bias is not None and module.bias.requires_grad


def no_total() -> ValueError:
    """The error of a comparison with what was not computed: a mistake of the caller."""
    return ValueError("these gradients were asked for without their total")


class Probe:
    """A random direction of rank and length one: along it, a difference of two gradients shows.

    Freivalds' check (1977): with probability one, and at the cost of a vector instead of a matrix.

    Args:
        shape: of the parameter.
        generator: of the operating system's choice (``fresh_generator``); a constant one could be evaded.
    """

    def __init__(self, shape: torch.Size, generator: torch.Generator) -> None:
        rows = shape[0] if shape else 1
        columns = shape.numel() // max(rows, 1)
        self.left = functional.normalize(torch.randn(rows, generator=generator, dtype=torch.float64), dim=0)
        self.right = functional.normalize(
            torch.randn(columns, generator=generator, dtype=torch.float64), dim=0
        )

    def of(self, matrix: Tensor) -> float:
        """A parameter's gradient along the direction."""
        return float(self.left @ (matrix.reshape(len(self.left), -1) @ self.right))


def fresh_generator() -> torch.Generator:
    """A generator seeded by the operating system."""
    return torch.Generator().manual_seed(secrets.randbits(63))


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence what Opacus' hooks are used to."""
    with warnings.catch_warnings():
        # Inputs are data and need no gradient; the hooks use those of the outputs, as intended.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        yield
