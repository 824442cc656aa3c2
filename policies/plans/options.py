"""What ``archipel plan new`` can be told, in groups.

Fields are named as in ``drafting.Draft``. Groups of one partition stand in :data:`HORIZONTAL` and in
:data:`.vertical.options.VERTICAL`; all of their options may be left out. What is left out here is
None, and left to the draft.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

import typer

FamilyName = Literal[
    "popularity",
    "item-graph",
    "linear",
    "autoencoder",
    "language",
    "sequence",
    "cross-moments",
    "private-encoder",
]
"""As in ``policies.plans.plan``, which takes longer to import than ``--help`` may."""

# ── of every plan ──


@dataclass(frozen=True, kw_only=True)
class PromiseOptions:
    """What is promised to one person."""

    target_epsilon: Annotated[
        float,
        typer.Option("--epsilon", help="Total of everything that is released, of a vertical plan by a silo."),
    ]
    target_delta: Annotated[
        float, typer.Option("--delta", help="Total; well below one over the number of people.")
    ]
    max_interactions_per_user: Annotated[int, typer.Option(help="Cap of one person's history.")] = 200
    orders: Annotated[
        str | None,
        typer.Option(help="Rényi orders such as 2,4,8,16; default: zCDP accounting, or Rényi if sampled."),
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


# ── of horizontal plans ──


@dataclass(frozen=True, kw_only=True)
class RosterOptions:
    """Horizontal: who takes part, how many people."""

    silos: Annotated[
        str | None, typer.Option(help="The roster, comma-separated; the first silo leads. Needed.")
    ] = None
    max_users_per_silo: Annotated[
        int | None, typer.Option(help="Public upper bound, rounded up. Needed.")
    ] = None
    max_silos_per_user: Annotated[
        int | None, typer.Option(help="In how many silos one person may be; default: all of them.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class SumOptions:
    """Horizontal: how contributions are summed, and who may collude."""

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
    max_burned_rounds: Annotated[
        int | None,
        typer.Option(
            help="Failed sums to pay for in advance; default: 0, a tenth of the rounds where they may go on "
            "without a silo."
        ),
    ] = None
    metrics_epsilon: Annotated[
        float | None, typer.Option(help="Release noised metrics, inside --epsilon; default: none.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Horizontal: which model, how large."""

    rank: Annotated[
        int | None, typer.Option(help="item-graph: upper bound of the factorisation; default: 64.")
    ] = None
    features: Annotated[
        int | None,
        typer.Option(
            help="linear, autoencoder, sequence: width of the items' public features. "
            "Default: the catalogue's attributes; the other two: 80."
        ),
    ] = None
    text_dimensions: Annotated[
        int | None, typer.Option(help="language: dimensions of the space of item texts; default: 32.")
    ] = None
    encoder_sha256: Annotated[
        str | None,
        typer.Option(
            "--encoder",
            help="language: text encoder that every silo has (archipel silo encoder show). Each ranks the "
            "item_list of its own policy; --catalogue is the public texts that set the scale.",
            metavar="SHA256",
        ),
    ] = None
    architecture: Annotated[
        Literal["bottleneck", "transformer", "masked", "gru", "lstm", "cnn"] | None,
        typer.Option(
            help="sequence, language: what reads a history in its order; language also bottleneck, which "
            "adds it up and needs no times. Default: transformer."
        ),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option(help="sequence, language but for bottleneck: of the network; default: 1."),
    ] = None
    places: Annotated[
        int | None,
        typer.Option(
            help="sequence, language but for bottleneck: newest items of a history that are read; "
            "default: 20."
        ),
    ] = None
    negatives: Annotated[
        int | None,
        typer.Option(
            help="language but for bottleneck: items that compete in a step for a list of more than 20,000; "
            "default: 2048."
        ),
    ] = None
    hidden: Annotated[
        int | None, typer.Option(help="autoencoder, language, sequence: width inside; default: 32.")
    ] = None
    input_dropout: Annotated[
        float | None,
        typer.Option(
            help="autoencoder, language bottleneck, masked: share of a history that a step hides and asks "
            "for; default: 0.4, masked 0.2."
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(help="autoencoder, language, sequence: of first weights, public; default: 0."),
    ] = None
    bias_epsilon: Annotated[
        float | None,
        typer.Option(
            help="autoencoder, sequence: count popularity first, inside --epsilon; default: a quarter of it.",
            min=0,
        ),
    ] = None
    no_bias: Annotated[
        bool,
        typer.Option(
            "--no-bias", help="autoencoder, sequence: count nothing first, start from all items alike."
        ),
    ] = False
    start_from: Annotated[
        str | None,
        typer.Option(
            help="autoencoder, language, sequence: a checkpoint of every silo to go on from.",
            metavar="SHA256",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Horizontal, family language: what is trained of the text encoder."""

    adapter: Annotated[
        Literal["ffa_lora", "fed_sb"] | None,
        typer.Option(
            help="ffa_lora: one matrix beside each map of the last layers; fed_sb: a small core, for low "
            "epsilon; both with --architecture bottleneck. Default: the encoder stays as it is."
        ),
    ] = None
    adapter_rank: Annotated[int | None, typer.Option(help="Of it; default: 4.")] = None
    adapter_layers: Annotated[
        int | None, typer.Option(help="Last layers of the encoder that have one; default: 1.")
    ] = None
    adapter_outputs: Annotated[
        int | None,
        typer.Option(help="ffa_lora: adapter_outputs of archipel silo encoder show; default: 768."),
    ] = None
    adapter_alpha: Annotated[
        float | None, typer.Option(help="Times alpha / rank it is added; default: 2.")
    ] = None
    adapter_places: Annotated[
        int | None, typer.Option(help="Newest items of a history that it reads in a step; default: 10.")
    ] = None
    adapter_tokens: Annotated[
        int | None, typer.Option(help="Most tokens of a text that it reads; default: 32.")
    ] = None
    adapter_columns: Annotated[
        list[str] | None,
        typer.Option(
            help="ffa_lora: a silo that trains the first so many columns only, once for each; default: all.",
            metavar="SILO=COLUMNS",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Horizontal: how linear, autoencoder, language and sequence are trained."""

    rounds: Annotated[
        int | None, typer.Option(help="Trained: secure sums; default: 5, autoencoder 60, sequence 60.")
    ] = None
    sample_rate: Annotated[
        float | None,
        typer.Option(help="Trained: chance of each person to be in a step; default: 1, everybody."),
    ] = None
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
        float | None,
        typer.Option(help="Trained: step size; default: 0.05, autoencoder 0.03, sequence 0.01."),
    ] = None
    decay: Annotated[
        Literal["none", "linear"] | None,
        typer.Option(
            help="Trained: of the step size, to 0; default: none, autoencoder linear, sequence linear."
        ),
    ] = None
    second_moment_decay: Annotated[
        float | None, typer.Option(help="Trained, adam: default: 0.999, autoencoder 0.99, sequence 0.99.")
    ] = None
    local_steps: Annotated[
        int | None,
        typer.Option(
            help="Trained: noised steps of a silo between two sums; default: 1, more need silo noise."
        ),
    ] = None
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
            "autoencoder automatic, sequence automatic."
        ),
    ] = None


HORIZONTAL: Final = (RosterOptions, SumOptions, ModelOptions, AdapterOptions, TrainingOptions)
