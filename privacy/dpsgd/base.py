"""What both ways to tell users apart share: the loss, the error, a batch and its gradients."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from privacy.clipping import Clipping
from privacy.errors import UsageError

LossPerUser = Callable[..., Tensor]
"""``loss_per_user(model, *batch) -> losses`` of shape (users,); the batch's tensors have users first."""

Batch: TypeAlias = tuple[Tensor, ...]
Gradient: TypeAlias = tuple[Tensor, ...]
Vector = npt.NDArray[np.float64]
Mode = Literal["hooks", "ghost"]


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
        hooked.train()
        hooked.disable_hooks()  # type: ignore[operator]  # of Opacus, so unknown to nn.Module

    @abstractmethod
    def gradients(self, batch: Batch) -> BatchGradients:
        """Forward and backward of a batch with at least one user.

        Raises:
            PerUserGradientError: a parameter does not have exactly one gradient for each user.
        """

    def alone(self, batch: Batch, user: int) -> Gradient:
        """One user's gradient by autograd, without hooks, from a batch of this user only."""
        with known_warnings():
            loss = self._losses(tuple(tensor[user : user + 1] for tensor in batch)).sum()
            return torch.autograd.grad(loss, self.parameters, materialize_grads=True)

    def _backward(self, batch: Batch) -> Vector:
        """Run the hooked model both ways; what the hooks found of each user is then on the parameters."""
        self._forget()
        self._hooked.enable_hooks()  # type: ignore[operator]
        try:
            with known_warnings():
                losses = self._losses(batch)
                losses.sum().backward(inputs=self._led_to)  # type: ignore[no-untyped-call]
        except NotImplementedError as error:
            raise PerUserGradientError(
                f"Opacus cannot tell users apart in this model: {error}",
                where="model",
                remedy="use every layer once, or pass mode='hooks'",
            ) from error
        finally:
            self._hooked.disable_hooks()  # type: ignore[operator]
        if any(parameter.grad is None for parameter in self._led_to):
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
        remedy="freeze it with requires_grad_(False), or use it through its layer",
    )


def _cheapest_that_lead_past_every_layer(
    model: nn.Module, parameters: list[nn.Parameter]
) -> list[nn.Parameter]:
    """Where autograd has to arrive so that every layer's hook fires.

    A linear layer's bias is enough: its weight's gradient, summed over users, is a product as dear as all
    users' own together, and nobody needs it.
    """
    dear = {module.weight for module in model.modules() if _is_reached_by_its_bias(module)}
    others = [module for module in model.modules() if not _is_reached_by_its_bias(module)]
    needed = {parameter for module in others for parameter in module.parameters(recurse=False)}
    return [parameter for parameter in parameters if parameter in needed or parameter not in dear]


def _is_reached_by_its_bias(module: nn.Module) -> bool:
    return type(module) is nn.Linear and module.bias is not None and module.bias.requires_grad


@contextmanager
def known_warnings() -> Iterator[None]:
    """Silence what Opacus' hooks are used to."""
    with warnings.catch_warnings():
        # Inputs are data and need no gradient; the hooks use those of the outputs, as intended.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        yield
