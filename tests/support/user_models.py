"""Small models of users' histories for tests of per-user gradients, and the plain loop they are held to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from privacy.clipping import Clipping
from privacy.dpsgd import Mode

NUM_ITEMS, WIDTH, HISTORY = 12, 4, 5
MODES: tuple[Mode, ...] = ("hooks", "ghost")
KINDS: tuple[Clipping, ...] = ("flat", "automatic")


class Tower(nn.Module):
    """Mean of item embeddings, then one layer of scores."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(NUM_ITEMS, WIDTH)
        self.scores = nn.Linear(WIDTH, NUM_ITEMS)

    def forward(self, histories: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.items(histories).mean(1))
        return scores


class Attention(Tower):
    """Layers on positions, with normalisation: everything a sequence model is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(HISTORY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, histories: Tensor) -> Tensor:
        places = torch.arange(HISTORY)[None, :].expand(len(histories), -1)
        state = self.norm(self.items(histories) + self.places(places))
        weights = torch.softmax(self.query(state) @ self.key(state).transpose(1, 2), dim=-1)
        scores: Tensor = self.scores((state + weights @ self.value(state)).mean(1))
        return scores


class TiedLayers(Tower):
    """Two layers that own the same weight: legitimate, if both are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.scores.weight = self.items.weight


def losses(model: nn.Module, histories: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each user's next item."""
    return functional.cross_entropy(model(histories), targets, reduction="none")


def made(kind: Callable[[], nn.Module] = Tower, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A model with the same weights every time."""
    generator = torch.Generator().manual_seed(3)
    model = kind().to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def batch(num_users: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Histories, which name items repeatedly, and next items."""
    generator = torch.Generator().manual_seed(seed)
    histories = torch.randint(0, NUM_ITEMS, (num_users, HISTORY), generator=generator)
    return histories, torch.randint(0, NUM_ITEMS, (num_users,), generator=generator)


def gradient_of(
    model: nn.Module, users: tuple[Tensor, ...], user: int, loss: Callable[..., Tensor] = losses
) -> np.ndarray:
    """One user's gradient by autograd, on an unhooked model."""
    alone = tuple(tensor[user : user + 1] for tensor in users)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found = torch.autograd.grad(loss(model, *alone).sum(), parameters)
    return torch.cat([gradient.ravel() for gradient in found]).numpy()


def by_hand(
    model: nn.Module,
    users: tuple[Tensor, ...],
    max_norm: float,
    clipping: Clipping = "flat",
    loss: Callable[..., Tensor] = losses,
) -> np.ndarray:
    """The clipped sum, one user after the other, as the papers write it."""
    rows = [gradient_of(model, users, user, loss) for user in range(len(users[0]))]
    norms = [float(np.linalg.norm(row)) for row in rows]
    if clipping == "flat":
        factors = [min(1.0, max_norm / norm) if norm else 1.0 for norm in norms]
    else:
        factors = [max_norm / (norm + 0.01 * max_norm) for norm in norms]
    clipped = [factor * row for factor, row in zip(factors, rows, strict=True)]
    return np.array([np.sum(column) for column in np.stack(clipped).T])
