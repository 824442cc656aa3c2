"""What per-user clipping costs: one DP step against one non-private step, in the same run.

The non-private step is forward and backward of the summed loss, float64 as the DP step. The DP step is the
production code, checks included: ``PerUserGradients.clipped_sum`` in both modes. Steps take turns, on one
thread; a figure is the median of the ratios of CPU time of neighbouring steps.

    python benchmarks/dp_step.py
    python benchmarks/dp_step.py --shapes wide-64 --users 64 --repeats 3
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from statistics import median
from typing import Any

import torch
from reporting import Page, Terminal, add_json_option, header, write
from torch import Tensor, nn
from torch.nn import functional

from policies.plans.drafting import Draft, complete_plan
from privacy.dpsgd import Mode, PerUserGradients
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.language.space import PlacedCatalogue
from silo.models.features import public_uniform
from silo.models.language.network import LanguageNetwork
from silo.models.sequence.trunk import NO_ITEM

NUM_ITEMS = 3883  # movielens-1m
MEAN_HISTORY = 100
LENGTH, WIDTH, VOCABULARY = 50, 64, 1000
OWN_ITEMS, PLACES = 2_000, 20
MAX_GRAD_NORM = 0.5
OTHER_MODE_REPEATS = 3
MODES: tuple[Mode, ...] = ("hooks", "ghost")

Batch = tuple[Tensor, ...]


class WideAutoencoder(nn.Module):
    """Items → hidden → items, no public features: as wide as an autoencoder gets."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(NUM_ITEMS, hidden)
        self.decoder = nn.Linear(hidden, NUM_ITEMS)

    def forward(self, histories: Tensor) -> Tensor:
        """Scores of all items."""
        scores: Tensor = self.decoder(torch.tanh(self.encoder(histories)))
        return scores


class SequenceBlock(nn.Module):
    """Embedded items, one causal attention block of ``nn.Linear`` layers: the shape of a sequence model."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(VOCABULARY, WIDTH)
        self.query, self.key, self.value, self.out, self.inner, self.outer = (
            nn.Linear(WIDTH, WIDTH) for _ in range(6)
        )

    def forward(self, histories: Tensor) -> Tensor:
        """A vector for each position."""
        state = self.items(histories)
        mixed = functional.scaled_dot_product_attention(
            self.query(state), self.key(state), self.value(state), is_causal=True
        )
        state = state + self.out(mixed)
        block: Tensor = state + self.outer(torch.relu(self.inner(state)))
        return block


def history_loss(model: nn.Module, histories: Tensor) -> Tensor:
    """Multinomial cross-entropy of each whole history."""
    targets = histories / histories.sum(dim=1, keepdim=True)
    return -(targets * torch.log_softmax(model(histories), dim=1)).sum(dim=1)


def next_item_loss(model: nn.Module, histories: Tensor, wanted: Tensor) -> Tensor:
    """Squared distance of each position to the public vector of the next item, per user."""
    return (model(histories) - wanted).square().mean(dim=(1, 2))


@cache
def language_network() -> LanguageNetwork:
    """What a language plan trains: a Transformer of 85,968 weights between vectors of a silo's own texts."""
    digits = len(str(OWN_ITEMS))
    items = Catalogue(tuple(CatalogueItem(item_id=f"{number:0{digits}}") for number in range(OWN_ITEMS)))
    plan = complete_plan(
        Draft(
            silos=("a", "b", "c"), catalogue_sha256=items.sha256, catalogue_items=OWN_ITEMS,
            family="language", encoder_sha256="00" * 32, architecture="transformer", text_dimensions=32,
            hidden=72, layers=2, places=PLACES, target_epsilon=4.0, target_delta=1e-5,
            max_users_per_silo=1_000,
        )
    )  # fmt: skip
    places = public_uniform(0, 32 * OWN_ITEMS).reshape(OWN_ITEMS, 32)
    return LanguageNetwork(plan, PlacedCatalogue(items.items, places, "00" * 32), None)


def language_module() -> nn.Module:
    """The network with its first weights."""
    architecture = language_network()
    module = architecture.module()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(architecture.initial_weights()[name]))
    return module


def language_loss(model: nn.Module, seen: Tensor, wanted: Tensor) -> Tensor:
    """The production loss: exact softmax over the whole list, place by place."""
    return language_network().loss_per_user(model, seen, wanted)


@dataclass(frozen=True)
class Shape:
    """What is measured: a model, its loss, a batch of so many users, and the ratio wanted."""

    text: str
    model: Callable[[], nn.Module]
    loss: Callable[..., Tensor]
    batch: Callable[[int, torch.Generator], Batch]
    users: tuple[int, ...]
    goal: float


def wide_batch(users: int, generator: torch.Generator) -> Batch:
    chosen = torch.rand(users, NUM_ITEMS, generator=generator) < MEAN_HISTORY / NUM_ITEMS
    chosen[:, 0] = True
    return (chosen.double(),)


def sequence_batch(users: int, generator: torch.Generator) -> Batch:
    histories = torch.randint(0, VOCABULARY, (users, LENGTH), generator=generator)
    return histories, torch.randn(users, LENGTH, WIDTH, generator=generator, dtype=torch.float64)


def language_batch(users: int, generator: torch.Generator) -> Batch:
    histories = torch.randint(0, OWN_ITEMS, (users, PLACES + 1), generator=generator)
    lengths = torch.randint(2, PLACES + 2, (users, 1), generator=generator)
    is_there = torch.arange(PLACES + 1) < lengths
    histories = histories.where(is_there, torch.tensor(NO_ITEM))
    return histories[:, :-1], histories[:, 1:]


SHAPES = {
    f"wide-{hidden}": Shape(
        f"autoencoder {NUM_ITEMS}-{hidden}-{NUM_ITEMS}",
        partial(WideAutoencoder, hidden),
        history_loss,
        wide_batch,
        (256, 1024),
        2.5,
    )
    for hidden in (64, 200)
} | {
    "sequence": Shape(
        f"attention {LENGTH} × {WIDTH}",
        SequenceBlock,
        next_item_loss,
        sequence_batch,
        (64, 256),
        1.7,
    ),
    "language": Shape(
        f"language transformer, {OWN_ITEMS} texts",
        language_module,
        language_loss,
        language_batch,
        (64, 256, 1024),
        1.25,
    ),
}


def cpu_seconds(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def plain_step(model: nn.Module, loss: Callable[..., Tensor], batch: Batch) -> Callable[[], None]:
    def step() -> None:
        model.zero_grad(set_to_none=True)
        loss(model, *batch).sum().backward()

    return step


def measure(shape: Shape, users: int, modes: Sequence[Mode], repeats: int) -> list[dict[str, Any]]:
    """One row a mode: both steps' CPU seconds and their ratio."""
    generator = torch.Generator().manual_seed(users)
    batch = shape.batch(users, generator)
    picked = PerUserGradients(shape.model().double(), shape.loss, MAX_GRAD_NORM).mode
    rows = []
    for mode in modes:
        gradients = PerUserGradients(shape.model().double(), shape.loss, MAX_GRAD_NORM, mode=mode)
        gradients.start_up_self_test(*batch)
        steps = plain_step(shape.model().double(), shape.loss, batch), partial(gradients.clipped_sum, *batch)
        # What nobody would pick can take seconds a step, and no figure of it is a goal.
        times = repeats if mode == picked else min(repeats, OTHER_MODE_REPEATS)
        pairs = [tuple(map(cpu_seconds, steps)) for _ in range(1 + times)][1:]
        ratio = median(private / plain for plain, private in pairs)
        rows.append(
            {
                "shape": shape.text,
                "users": users,
                "mode": mode,
                "is_picked": mode == picked,
                "values": gradients.num_values,
                "plain_cpu_seconds": median(plain for plain, _ in pairs),
                "private_cpu_seconds": median(private for _, private in pairs),
                "ratio": ratio,
                "goal": shape.goal,
                "is_met": ratio <= shape.goal,
            }
        )
    return rows


def show(result: dict[str, Any], page: Page) -> None:
    """Print the table."""
    page.table(
        "CPU time of a DP step over that of a non-private step",
        ("model", "users", "mode", "plain ms", "DP ms", "ratio", "goal", "met"),
        [
            (
                row["shape"],
                row["users"],
                f"{row['mode']} (picked)" if row["is_picked"] else row["mode"],
                f"{row['plain_cpu_seconds'] * 1e3:.1f}",
                f"{row['private_cpu_seconds'] * 1e3:.1f}",
                f"{row['ratio']:.2f}",
                f"<= {row['goal']}" if row["is_picked"] else "",
                ("yes" if row["is_met"] else "**no**") if row["is_picked"] else "",
            )
            for row in result["rows"]
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="which models")
    parser.add_argument("--users", type=int, nargs="+", help="batch sizes; default: each model's own")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES), help="which modes")
    parser.add_argument(
        "--repeats", type=int, default=11, help="pairs of steps that a figure is the median of"
    )
    add_json_option(parser, "dp_step")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    page = Terminal(asked.json)
    rows = []
    for name in asked.shapes:
        for users in asked.users or SHAPES[name].users:
            page.say(f"{name}, {users} users …")
            rows += measure(SHAPES[name], users, asked.modes, asked.repeats)
    command = f"python benchmarks/dp_step.py --shapes {' '.join(asked.shapes)} --repeats {asked.repeats}"
    result = header("dp_step", command) | {"rows": rows}
    show(result, page)
    write(result, asked.json)
    return 0 if all(row["is_met"] for row in rows if row["is_picked"]) else 1


if __name__ == "__main__":
    sys.exit(main())
