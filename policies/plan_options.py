"""What ``archipel plan new`` can be told, in groups; fields are named as in ``policies.drafting.Draft``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer


@dataclass(frozen=True, kw_only=True)
class RosterOptions:
    """Who takes part, and how far they trust each other."""

    silos: Annotated[str, typer.Option(help="The roster, comma-separated; the first silo leads.")]
    colluding_silos: Annotated[
        int | None,
        typer.Option(help="Silos that may help the coordinator; default: 1, or all others with silo noise."),
    ] = None
    noise_placement: Annotated[
        Literal["federation", "silo"] | None,
        typer.Option(
            help="federation: shares of one noise; silo: each silo's own suffices. "
            "Default: federation where two silos stay outside the collusion."
        ),
    ] = None
    min_silos: Annotated[
        int | None, typer.Option(help="Fewest silos of a sum; trained models only. Default: all of them.")
    ] = None
    round_minutes: Annotated[
        float | None,
        typer.Option(help="With --min-silos: after so long a round goes on without a silo; default: 10."),
    ] = None


@dataclass(frozen=True, kw_only=True)
class PromiseOptions:
    """What is promised to one person."""

    target_epsilon: Annotated[float, typer.Option("--epsilon", help="Total of everything the plan releases.")]
    target_delta: Annotated[
        float, typer.Option("--delta", help="Total; well below one over the number of people.")
    ]
    max_users_per_silo: Annotated[int, typer.Option(help="Public upper bound, rounded up.")]
    max_silos_per_user: Annotated[
        int | None, typer.Option(help="In how many silos one person may be; default: all of them.")
    ] = None
    max_interactions_per_user: Annotated[int, typer.Option(help="Cap of one person's history.")] = 200
    orders: Annotated[
        str | None,
        typer.Option(help="Rényi orders such as 2,4,8,16; default: zCDP accounting, or Rényi if sampled."),
    ] = None
    metrics_epsilon: Annotated[
        float | None, typer.Option(help="Release noised metrics, inside --epsilon; default: none.")
    ] = None
    max_burned_rounds: Annotated[
        int | None,
        typer.Option(
            help="Failed sums to pay for in advance; default: 0, a tenth of the rounds where they may go on "
            "without a silo."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which rows, for what."""

    purpose: Annotated[str, typer.Option(help="What the silos' policies know it as.")] = (
        "product-recommendation"
    )
    holdout: Annotated[
        Literal["none", "random", "last"], typer.Option(help="Rows kept out of contributions.")
    ] = "none"
    holdout_fraction: Annotated[float, typer.Option(help="Of each person's rows.")] = 0.2
    holdout_seed: Annotated[int, typer.Option(help="Of the random holdout.")] = 0


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, how large."""

    family: Annotated[
        Literal["popularity", "item-graph", "linear", "autoencoder"], typer.Option(help="Kind of model.")
    ] = "item-graph"
    rank: Annotated[
        int | None, typer.Option(help="item-graph: upper bound of the factorisation; default: 64.")
    ] = None
    features: Annotated[
        int | None,
        typer.Option(
            help="linear, autoencoder: width of the items' public features. "
            "Default: the catalogue's attributes; autoencoder: 80."
        ),
    ] = None
    hidden: Annotated[
        int | None, typer.Option(help="autoencoder: width of the hidden layer; default: 32.")
    ] = None
    input_dropout: Annotated[
        float | None,
        typer.Option(help="autoencoder: share of a history that a step hides and asks for; default: 0.4."),
    ] = None
    seed: Annotated[
        int | None, typer.Option(help="autoencoder: of its first weights, public; default: 0.")
    ] = None
    bias_epsilon: Annotated[
        float | None,
        typer.Option(
            help="autoencoder: count popularity first, inside --epsilon; default: a quarter of it.", min=0
        ),
    ] = None
    no_bias: Annotated[
        bool, typer.Option("--no-bias", help="autoencoder: count nothing first, start from all items alike.")
    ] = False
    start_from: Annotated[
        str | None,
        typer.Option(help="autoencoder: go on from a checkpoint that every silo has.", metavar="SHA256"),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a model is trained: ``linear`` and ``autoencoder`` only."""

    rounds: Annotated[int | None, typer.Option(help="Trained: secure sums; default: 5, autoencoder 60.")] = (
        None
    )
    sample_rate: Annotated[
        float, typer.Option(help="Trained: chance of each person to be in a step; 1 = everybody.")
    ] = 1.0
    expected_batch_size: Annotated[
        float | None,
        typer.Option(
            help="Trained: public divisor, people of all silos in a step; default: from the bounds."
        ),
    ] = None
    optimizer: Annotated[
        Literal["sgd", "adam"] | None, typer.Option(help="Trained: of every silo; default: adam.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Trained: step size; default: 0.05, autoencoder 0.03.")
    ] = None
    decay: Annotated[
        Literal["none", "linear"] | None,
        typer.Option(help="Trained: of the step size, to 0 at the end; default: none, autoencoder linear."),
    ] = None
    second_moment_decay: Annotated[
        float | None, typer.Option(help="Trained, adam: default: 0.999, autoencoder 0.99.")
    ] = None
    local_steps: Annotated[
        int, typer.Option(help="Trained: noised steps of a silo between two sums; above 1 needs silo noise.")
    ] = 1
    local_learning_rate: Annotated[
        float | None, typer.Option(help="Trained: step size of those; default with --local-steps: 1.")
    ] = None
    max_grad_norm: Annotated[
        float | None, typer.Option(help="Trained: norm of one person's gradient; default: 1.")
    ] = None
    clipping: Annotated[
        Literal["flat", "automatic"] | None,
        typer.Option(
            help="Trained: shorten longer gradients, or scale all to the norm; default: flat, "
            "autoencoder automatic."
        ),
    ] = None
