"""The families of models that a plan may name, each with its size; their cost is in :mod:`.price`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from policies.sections import MAX_SILOS, PartyName, Positive, Real, Section, Sha256, Whole

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
ArchitectureName = Literal["transformer", "masked", "gru", "lstm", "cnn"]
LanguageArchitectureName = Literal["bottleneck", "transformer", "masked", "gru", "lstm", "cnn"]

STATISTICS = frozenset({"popularity", "item-graph"})
"""Families that sum one exact integer vector of each user, once; all others sum clipped gradients."""

MAX_LINEAR_FEATURES = 5_000
MAX_NETWORK_WIDTH = 512
"""Of a network over ordered histories, at each place."""

NETWORK_WIDTH_STEP = 2
"""Of such a width: attention has two heads."""

VERTICAL_FAMILIES = frozenset({"cross-moments", "private-encoder"})
"""Families of vertical plans; no other has one."""


class PopularityModel(Section):
    """Noised counts: one secure sum of one value per item."""

    family: Literal["popularity"]


class ItemGraphModel(Section):
    """Noised item-item Gram, denoised and solved in closed form: one secure sum of I(I+1)/2 values.

    Attributes:
        rank: upper bound of the factorisation; unsupported directions vanish by themselves.
    """

    family: Literal["item-graph"]
    rank: Annotated[Whole, Field(ge=1, le=64)] = 64


class LinearModel(Section):
    """One linear layer from public item features to item scores, trained by DP-SGD.

    Attributes:
        features: width of the public feature vector of an item.
    """

    family: Literal["linear"]
    features: Annotated[Whole, Field(ge=1, le=MAX_LINEAR_FEATURES)]


class NoisedPopularity(Section):
    """How often each item occurs, as one noised secure sum before the training.

    Attributes:
        noised: always true: there is no other way to count.
        epsilon: that release as if alone at ``target_delta``; training gets what remains of the composition.
    """

    noised: Literal[True]
    epsilon: Annotated[Real, Field(gt=0, le=100)]


class AutoencoderModel(Section):
    """A history through one hidden layer to item scores, over a public basis of items, trained by DP-SGD.

    Attributes:
        features: width of the public basis of the items.
        hidden: width of the hidden layer.
        input_dropout: share of a history that a step hides from the network and asks it for.
        seed: public; of the first parameters only, never of noise.
        bias: what scores start from: nothing, or the logarithm of noised counts, frozen while training.
        start_from: SHA-256 of a ``checkpoint.safetensors`` that every silo has; left out: from the seed.
    """

    family: Literal["autoencoder"]
    features: Annotated[Whole, Field(ge=1, le=2_000)]
    hidden: Annotated[Whole, Field(ge=1, le=1_024)] = 32
    input_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    bias: Literal["none"] | NoisedPopularity = "none"
    start_from: Sha256 | None = None


MAX_ADAPTER_RANK = 64
AdapterColumns = Annotated[Whole, Field(ge=1, le=MAX_ADAPTER_RANK)]


class EncoderAdapter(Section):
    """Small matrices beside the frozen queries and values of a text encoder's last layers, trained as well.

    Attributes:
        kind: ``ffa_lora`` trains B of ``W + (alpha / rank) B A``, with A frozen; ``fed_sb`` a core of rank ×
            rank between frozen A and B: fewer values, less noise in all.
        rank: of what is added.
        layers: last ones of the encoder.
        outputs: ``ffa_lora``: values that queries and values of one layer have together; a fact of the
            encoder, which every silo checks.
        alpha: LoRA's.
        places: newest items of a history that a step reads with the adapted encoder.
        tokens: most of a text that it reads.
        columns: ``ffa_lora``: silos that train the first so many columns of every B only; all others train
            all of them. Every silo reads with all columns and adds its noise to all.
    """

    kind: Literal["ffa_lora", "fed_sb"]
    rank: Annotated[Whole, Field(ge=1, le=MAX_ADAPTER_RANK)] = 4
    layers: Annotated[Whole, Field(ge=1, le=16)] = 1
    outputs: Annotated[Whole, Field(ge=2, le=65_536)] | None = None
    alpha: Annotated[Real, Field(gt=0, le=1_000)] = 2.0
    places: Annotated[Whole, Field(ge=1, le=64)] = 10
    tokens: Annotated[Whole, Field(ge=4, le=128)] = 32
    columns: Annotated[dict[PartyName, AdapterColumns], Field(min_length=1, max_length=MAX_SILOS)] | None = (
        None
    )

    def __hash__(self) -> int:
        """What was made of texts is kept by the adapter; a mapping has no hash of its own."""
        fewer = None if self.columns is None else frozenset(self.columns.items())
        said = (self.kind, self.rank, self.layers, self.outputs, self.alpha, self.places, self.tokens)
        return hash((said, fewer))

    @property
    def num_weights(self) -> int:
        """Trained values of all adapters."""
        if self.kind == "fed_sb":
            return 2 * self.layers * self.rank**2
        return self.layers * self.rank * (self.outputs or 0)

    def columns_of(self, silo: str) -> int:
        """How many columns of every B one silo trains, from the first."""
        return self.rank if self.columns is None else self.columns.get(silo, self.rank)

    def num_trainers(self, silos: Iterable[str]) -> tuple[int, ...]:
        """For each column of a B, how many silos of a roster train it."""
        trained = [self.columns_of(silo) for silo in silos]
        return tuple(sum(column < own for own in trained) for column in range(self.rank))


class NetworkSize(Section):
    """A network over ordered histories, between public vectors of items.

    Attributes:
        architecture: what reads the history: ``transformer`` (causal attention), ``masked`` (attention both
            ways), ``gru``, ``lstm`` or ``cnn`` (dilated causal convolutions).
        features: width of the items' vectors.
        hidden: width of the network at each place.
        layers: of it.
        places: newest items of a history that are read.
    """

    architecture: ArchitectureName
    features: Annotated[Whole, Field(ge=1, le=2_000)]
    hidden: Annotated[Whole, Field(ge=2, le=MAX_NETWORK_WIDTH, multiple_of=NETWORK_WIDTH_STEP)]
    layers: Annotated[Whole, Field(ge=1, le=4)]
    places: Annotated[Whole, Field(ge=2, le=200)]

    @property
    def num_weights(self) -> int:
        """Trained values: two maps between vectors and places, and what stands between them."""
        width, layers = self.hidden, self.layers
        per_layer = {
            "transformer": 8 * width * width + 10 * width,
            "masked": 8 * width * width + 10 * width,
            "gru": 6 * width * width + 6 * width,
            "lstm": 8 * width * width + 8 * width,
            "cnn": 3 * width * width + 3 * width,
        }
        positions = self.places * width if self.architecture in ("transformer", "masked") else 0
        ends = 2 * self.features * width + width
        return ends + positions + layers * per_layer[self.architecture] + 2 * width


class SampledNegatives(Section):
    """Items that compete in a step's loss for the whole of a long list, drawn by public coins for everybody.

    Attributes:
        count: of them, each item of a silo's own list as likely as another; the loss is corrected for what
            was not drawn.
        above: items of a list beyond which it is sampled; a shorter one competes as a whole.
    """

    count: Annotated[Whole, Field(ge=2, le=65_536)]
    above: Annotated[Whole, Field(ge=3, le=1_000_000)] = 20_000


class LanguageModel(Section):
    """A history to scores, between vectors of item texts, trained by DP-SGD.

    The vectors are a frozen public encoder's, whitened on the plan's reference texts, so every silo ranks
    items of its own (``catalogue: {kind: per_silo}``) with weights that all learn together.

    Attributes:
        dimensions: of the space in which items stand.
        architecture: what reads a history: ``bottleneck``, one hidden layer over the sum of its items,
            whatever their order; the others are those of a sequence model.
        hidden: width of the hidden layer, or of the network at each place; even for the latter.
        layers: all but ``bottleneck``: of the network.
        places: all but ``bottleneck``: newest items of a history that are read.
        input_dropout: ``bottleneck`` and ``masked``: share of a history that a step hides from the network
            and asks it for.
        negatives: all but ``bottleneck``: what competes where a list is long; left out: the whole list.
        seed: public; of first parameters, negatives and an adapter's frozen matrices only, never of noise.
        encoder_adapter: ``bottleneck``: what is trained of the encoder, if anything.
        start_from: SHA-256 of a ``checkpoint.safetensors`` that every silo has; left out: from the seed.
    """

    family: Literal["language"]
    dimensions: Annotated[Whole, Field(ge=1, le=1_024)] = 32
    architecture: LanguageArchitectureName = "bottleneck"
    hidden: Annotated[Whole, Field(ge=1, le=1_024)] = 32
    layers: Annotated[Whole, Field(ge=1, le=4)] = 1
    places: Annotated[Whole, Field(ge=2, le=200)] = 20
    input_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    negatives: SampledNegatives | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    encoder_adapter: Literal["none"] | EncoderAdapter = "none"
    start_from: Sha256 | None = None

    @property
    def adapter(self) -> EncoderAdapter | None:
        """What is trained of the encoder, if anything."""
        return None if self.encoder_adapter == "none" else self.encoder_adapter

    @property
    def network(self) -> NetworkSize | None:
        """What reads histories in their order; None for the bottleneck, which reads none."""
        if self.architecture == "bottleneck":
            return None
        return NetworkSize(
            architecture=self.architecture,
            features=self.dimensions,
            hidden=self.hidden,
            layers=self.layers,
            places=self.places,
        )

    @property
    def num_weights(self) -> int:
        """Trained values."""
        network = self.network
        if network is not None:
            return network.num_weights
        adapters = 0 if self.adapter is None else self.adapter.num_weights
        return adapters + 2 * self.dimensions * self.hidden + self.hidden


class SequenceModel(Section):
    """What comes next after an ordered history, over a public basis of items, trained by DP-SGD.

    Attributes:
        architecture: what reads the history, see :class:`NetworkSize`.
        features: width of the public basis of the items.
        hidden: width of the network at each place.
        layers: of it.
        places: newest items of a history that are read.
        input_dropout: ``masked`` only: share of a history that a step hides from the network and asks it for.
        seed: public; of the first parameters only, never of noise.
        bias: what scores start from: nothing, or the logarithm of noised counts, frozen while training.
        start_from: SHA-256 of a ``checkpoint.safetensors`` that every silo has; left out: from the seed.
    """

    family: Literal["sequence"]
    architecture: ArchitectureName
    features: Annotated[Whole, Field(ge=1, le=2_000)]
    hidden: Annotated[Whole, Field(ge=2, le=MAX_NETWORK_WIDTH, multiple_of=NETWORK_WIDTH_STEP)] = 32
    layers: Annotated[Whole, Field(ge=1, le=4)] = 1
    places: Annotated[Whole, Field(ge=2, le=200)] = 20
    input_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0
    bias: Literal["none"] | NoisedPopularity = "none"
    start_from: Sha256 | None = None

    @property
    def network(self) -> NetworkSize:
        """What reads histories."""
        return NetworkSize(
            architecture=self.architecture,
            features=self.features,
            hidden=self.hidden,
            layers=self.layers,
            places=self.places,
        )


class CrossMomentsModel(Section):
    """What feature silos know of people, joined to the label silo's items by encrypted sums over people.

    Attributes:
        label_items: items of a person that the label silo encrypts: its most frequent ones, chosen by itself.
        label_norm: L2 norm the label silo's rows are bounded by before they are encrypted.
        dimensions: numbers that stand for one person of a feature silo.
        basis: how a row becomes these: ``dp_pca``, from the noised Gram of its own silo, or ``public``.
        basis_share: share of a feature silo's zCDP that its noised Gram takes; the moments take the rest.
    """

    family: Literal["cross-moments"]
    label_items: Annotated[Whole, Field(ge=2, le=4_096)]
    label_norm: Positive = 1.0
    dimensions: Annotated[Whole, Field(ge=1, le=64)] = 16
    basis: Literal["dp_pca", "public"] = "dp_pca"
    basis_share: Annotated[Real, Field(gt=0, lt=1)] = 0.3


class PrivateEncoderModel(Section):
    """What feature silos know of people as numbers, made by an encoder of their own and released once.

    Each feature silo trains it alone by DP-SGD (``training``: a round is a step of its own, the first one
    averages rows), freezes it and noises every person's numbers. The label silo trains on them; nothing flows
    back.

    Attributes:
        label_items: items that the label silo ranks: its most frequent ones, chosen by itself.
        dimensions: numbers that stand for one person of a feature silo.
        release_epsilon: of the noised numbers as if alone at ``target_delta``, whatever the training samples;
            the training gets what remains of the composition.
        input_dropout: share of a row that a step hides from the encoder and asks it for.
        seed: public; of the first parameters only, never of noise.
    """

    family: Literal["private-encoder"]
    label_items: Annotated[Whole, Field(ge=2, le=4_096)]
    dimensions: Annotated[Whole, Field(ge=1, le=64)] = 8
    release_epsilon: Annotated[Real, Field(gt=0, le=100)]
    input_dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.4
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0


Model = Annotated[
    PopularityModel
    | ItemGraphModel
    | LinearModel
    | AutoencoderModel
    | LanguageModel
    | SequenceModel
    | CrossMomentsModel
    | PrivateEncoderModel,
    Field(discriminator="family"),
]
