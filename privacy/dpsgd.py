"""Per-user gradients, clipped and summed: the only home of Opacus.

Guarantees
----------
- One training example is one user, so clipping an example's gradient clips the person. That this is what
  Opacus computed is asserted at every step: each trainable parameter has exactly one gradient per user, and
  these add up to the gradient autograd found (weights used behind the hooks' back, as in
  ``z @ emb.weight.T``, break the second; items folded into the batch dimension break the first).
- ``start_up_self_test`` compares with a plain autograd loop over single users before any private row is read,
  which also finds losses that mix users (in-batch negatives, batch norm) and layers that are random.
- Memory is bounded: gradients exist for one micro-batch at a time.
- The sum is exact (``privacy.clipping``). A user's own gradient may differ in its last bits with the
  micro-batch it is computed in; run the model in float64 where that matters.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from opacus import GradSampleModule
from opacus.accountants import RDPAccountant
from torch import Tensor, nn

from privacy.clipping import MAX_EXACT_ROWS, check_max_norm, clip_rows
from privacy.errors import UsageError

LossPerUser = Callable[..., Tensor]
"""``loss_per_user(model, *batch) -> losses`` of shape (users,); the batch's tensors have users first."""

_SELF_TEST_USERS = 3
_SELF_TEST_TOLERANCE = 1e-3
# Gradient, its float64 copy and the temporaries of clipping, per parameter and user.
_BYTES_PER_VALUE = 48
_DEFAULT_MEMORY_BYTES = 1 << 28


class PerUserGradientError(UsageError):
    """A model or loss whose gradients cannot be told apart by user; nothing was released."""

    code = "per_user_gradients"


class PerUserGradients:
    """Clipped sum of per-user gradients of one model.

    The model is hooked in place: its parameters stay its own, to be updated between calls.

    Args:
        model: any module whose layers Opacus knows; every trainable parameter must take part in the loss.
        loss_per_user: see ``LossPerUser``; each entry depends on that user's part of the batch only.
        max_grad_norm: L2 bound on one user's gradient over all trainable parameters.
        max_memory_bytes: bound on what the gradients of one micro-batch may take.

    Raises:
        PerUserGradientError: the model has nothing to train, or layers that mix users.
        ClippingError: ``max_grad_norm`` is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_per_user: LossPerUser,
        max_grad_norm: float,
        *,
        max_memory_bytes: int = _DEFAULT_MEMORY_BYTES,
    ) -> None:
        check_max_norm(max_grad_norm)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.num_values = sum(parameter.numel() for parameter in self._parameters)
        if not self.num_values:
            raise PerUserGradientError("the model has no trainable parameter", where="model")
        try:
            self._hooked = GradSampleModule(model, loss_reduction="sum", strict=True)
        except (NotImplementedError, ValueError) as error:
            raise PerUserGradientError(
                f"Opacus cannot tell users apart in this model: {error}",
                where="model",
                remedy="use layers without buffers and statistics over the batch, and hook a model only once",
            ) from error
        self._hooked.train()
        self._loss_per_user = loss_per_user
        self._max_grad_norm = max_grad_norm
        self._users_at_once = max(1, max_memory_bytes // (_BYTES_PER_VALUE * self.num_values))

    def clipped_sum(self, *batch: Tensor) -> npt.NDArray[np.float64]:
        """Sum of the batch's gradients, each clipped to ``max_grad_norm``.

        Args:
            *batch: tensors with users first; a batch without users is fine.

        Returns:
            Shape (num_values,), trainable parameters flattened in the order of ``model.parameters()``.

        Raises:
            PerUserGradientError: a per-step assertion of the module failed.
        """
        return self._sum(batch, self._max_grad_norm)

    def start_up_self_test(self, *batch: Tensor) -> None:
        """Prove on three users that this model's gradients are per user and clipped.

        Args:
            *batch: public or made-up users, at least three, whose gradients are not zero.

        Raises:
            PerUserGradientError: a per-user gradient differs from autograd's, or one user moves the sum by
                more than the clip norm.
        """
        if _num_users(batch) < _SELF_TEST_USERS:
            raise PerUserGradientError("the self-test needs three users", where="batch")
        batch = tuple(tensor[:_SELF_TEST_USERS] for tensor in batch)
        found = self._gradients(batch)
        expected = np.stack([self._plain_gradient(batch, user) for user in range(_SELF_TEST_USERS)])
        norms = np.linalg.norm(expected, axis=1)
        if not norms.min() > 0:
            raise PerUserGradientError("a user of the self-test has no gradient", where="batch")
        if not np.all(np.linalg.norm(found - expected, axis=1) <= _SELF_TEST_TOLERANCE * norms):
            raise PerUserGradientError(
                "per-user gradients differ from those of each user alone",
                where="start_up_self_test",
                remedy="use parameters through their layers only, sum over each user's own terms, no dropout",
            )
        bound = float(norms.min()) / 2
        everybody = self._sum(batch, bound)
        for user in range(_SELF_TEST_USERS):
            others = tuple(torch.cat([tensor[:user], tensor[user + 1 :]]) for tensor in batch)
            moved = float(np.linalg.norm(everybody - self._sum(others, bound)))
            if not moved <= bound * (1 + _SELF_TEST_TOLERANCE):
                raise PerUserGradientError(
                    "one user moves the sum by more than the clip norm", where="start_up_self_test"
                )

    def _sum(self, batch: tuple[Tensor, ...], max_grad_norm: float) -> npt.NDArray[np.float64]:
        num_users = _num_users(batch)
        if num_users > MAX_EXACT_ROWS:
            raise PerUserGradientError(
                f"a batch has more than {MAX_EXACT_ROWS} users", remedy="lower the sample rate"
            )
        total = np.zeros(self.num_values)
        for start in range(0, num_users, self._users_at_once):
            part = tuple(tensor[start : start + self._users_at_once] for tensor in batch)
            total += clip_rows(self._gradients(part), max_grad_norm).sum(axis=0)
        return total

    def _gradients(self, batch: tuple[Tensor, ...]) -> npt.NDArray[np.float32 | np.float64]:
        num_users = _num_users(batch)
        self._hooked.zero_grad(set_to_none=True)
        with _known_warnings():
            losses = self._losses(batch)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        rows = [self._checked(parameter, num_users) for parameter in self._parameters]
        self._hooked.zero_grad(set_to_none=True)
        return np.concatenate(rows, axis=1)

    def _losses(self, batch: tuple[Tensor, ...]) -> Tensor:
        losses = self._loss_per_user(self._hooked, *batch)
        if losses.shape != (_num_users(batch),):
            raise PerUserGradientError(
                f"the loss has shape {tuple(losses.shape)}",
                where="loss_per_user",
                remedy="return one loss for each user, without reducing over users",
            )
        return losses

    def _plain_gradient(self, batch: tuple[Tensor, ...], user: int) -> npt.NDArray[np.floating]:
        self._hooked.disable_hooks()
        try:
            with _known_warnings():
                loss = self._losses(tuple(tensor[user : user + 1] for tensor in batch)).sum()
                gradients = torch.autograd.grad(loss, self._parameters)
        finally:
            self._hooked.enable_hooks()
        return np.concatenate([gradient.numpy().ravel() for gradient in gradients])

    @staticmethod
    def _checked(parameter: nn.Parameter, num_users: int) -> npt.NDArray[np.float32 | np.float64]:
        """One parameter's gradients, shape (users, values), if they are what the guarantees need."""
        samples = getattr(parameter, "grad_sample", None)
        if not isinstance(samples, Tensor) or parameter.grad is None:
            raise PerUserGradientError(
                "a trainable parameter took no part in the loss",
                where="model",
                remedy="freeze it with requires_grad_(False), or use it through its layer",
            )
        if samples.shape[0] != num_users:
            raise PerUserGradientError(
                "a parameter's gradients are not one per user",
                where="model",
                remedy="keep users as the first dimension of every layer's input, items in a later one",
            )
        difference = torch.nan_to_num(samples.sum(dim=0) - parameter.grad, posinf=0.0, neginf=0.0)
        magnitude = torch.nan_to_num(samples.abs().sum(dim=0), posinf=0.0)
        if float(difference.norm()) > _SELF_TEST_TOLERANCE * float(magnitude.norm()):
            raise PerUserGradientError(
                "per-user gradients do not add up to the gradient of the loss",
                where="model",
                remedy="use every weight through its layer only (not `z @ embedding.weight.T`)",
            )
        return samples.detach().reshape(num_users, -1).numpy()


def opacus_rdp_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Epsilon by Opacus' own RDP accountant over its own orders: a cross-check, not what refuses.

    Args:
        noise_multiplier: std of the noise over the sensitivity.
        sample_rate: Poisson rate.
        steps: number of equal steps.
        delta: whole delta.
    """
    accountant = RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(accountant.get_epsilon(delta=delta))


def _num_users(batch: tuple[Tensor, ...]) -> int:
    sizes = {tensor.shape[0] for tensor in batch}
    if len(sizes) != 1:
        raise PerUserGradientError(
            "the tensors of a batch differ in their number of users", where="batch", remedy="put users first"
        )
    return sizes.pop()


@contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # Inputs are data and need no gradient; the hooks use those of the outputs, as intended.
        warnings.filterwarnings("ignore", message="Full backward hook is firing when gradients are computed")
        yield
