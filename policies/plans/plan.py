"""A plan: one job, as data. No code, no defaults that spend privacy.

A plan is what every silo of its roster accepts unchanged or denies. It holds *public* numbers only: they come
from agreements and upper bounds, never from rows. The roster's first silo leads (it makes the job's keys).

::

    Plan ── catalogue ── holdout ── model ── training ── privacy ── protection ── releases

Field rules live beside their fields; rules across fields are :mod:`policies.plans.rules` and each says why.
What a plan costs and whether it is possible at all is arithmetic and lives in :mod:`policies.plans.price`.

Signed bytes leave out unset fields, so a field added later never changes an old plan's digest: a default,
once published, never changes.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from policies.plans.models import (
    STATISTICS,
    AutoencoderModel,
    LanguageModel,
    Model,
    NoisedPopularity,
    SequenceModel,
)
from policies.plans.rules import plan_problems
from policies.plans.vertical.rules import vertical_problems
from policies.plans.vertical.terms import AlignmentTerms, Roles
from policies.sections import MAX_SILOS, PartyName, Positive, Real, Section, Sha256, Slug, Whole
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter

MAX_ITEMS = 10_000_000
"""Of a plan's public list."""


class SharedCatalogue(Section):
    """The public item list every silo ranks: never the items that happen to occur.

    Attributes:
        sha256: of the catalogue file ``catalogues/<sha256>.jsonl``.
        items: number of its lines.
    """

    kind: Literal["shared"]
    sha256: Sha256
    items: Annotated[Whole, Field(ge=2, le=MAX_ITEMS)]


class PerSiloCatalogue(Section):
    """Every silo ranks a public list of its own (``item_list`` of its dataset); texts make them comparable.

    Attributes:
        sha256: of a public catalogue file whose texts set the scale of all vectors; ranked by nobody as such.
        items: number of its lines.
        encoder_sha256: of the text encoder that every silo has (``archipel silo encoder``).
    """

    kind: Literal["per_silo"]
    sha256: Sha256
    items: Annotated[Whole, Field(ge=2, le=MAX_ITEMS)]
    encoder_sha256: Sha256


class Holdout(Section):
    """Rows each silo keeps out of its contributions; evaluation and noised metrics use them.

    Attributes:
        kind: ``none``, ``random`` (per user, by ``seed``) or ``last`` (per user, by time).
        fraction: share of each user's interactions, at least one of two or more.
        seed: public; splits only, never noise.
    """

    kind: Literal["none", "random", "last"]
    fraction: Annotated[Real, Field(gt=0, lt=1)] = 0.2
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0


class Training(Section):
    """The public schedule.

    Attributes:
        rounds: secure sums of the training itself.
        max_burned_rounds: attempts that may fail after their noise was released; all are reserved.
        sample_rate: Poisson probability of each user per noised step; 1.0 is the full batch.
        expected_batch_size: public divisor of a summed gradient, over all silos; never a row count. One
            above the true batch only shortens the steps; a batch far above it is clamped.
        optimizer: what every silo applies to the same sum.
        learning_rate: step size.
        decay: ``linear``: the step size falls to 0 after the last round.
        second_moment_decay: of Adam's average of squares.
        local_steps: noised steps each silo takes by itself between two secure sums.
        local_learning_rate: step size of those, plain SGD.
    """

    rounds: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    max_burned_rounds: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    sample_rate: Annotated[Real, Field(gt=0, le=1)] = 1.0
    expected_batch_size: Positive | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    learning_rate: Positive | None = None
    decay: Literal["none", "linear"] = "none"
    second_moment_decay: Annotated[Real, Field(gt=0, lt=1)] = 0.999
    local_steps: Annotated[Whole, Field(ge=1, le=1_000)] = 1
    local_learning_rate: Positive | None = None


class Privacy(Section):
    """What is promised to one person, and the noise that keeps the promise.

    Attributes:
        unit: the whole history of one person.
        neighboring_relation: one person more or fewer.
        target_epsilon: total of everything the plan releases: training, burned rounds, metrics.
        target_delta: total, at least 1e-30; 99 % for the mechanisms, 1 % for clamped noise.
        filter: accounting the plan was calibrated with; every silo checks again with its own account's.
        orders: Rényi orders, only with ``filter: renyi``.
        noise_multiplier: standard deviation of the promised noise / contribution norm (or ``max_grad_norm``).
        contribution_norm: L2 norm of one user's statistics; 1.0, because they are normalised per user.
        max_grad_norm: L2 norm one user's gradient is clipped to (DP-SGD only).
        clipping: ``flat`` shortens longer gradients to that norm; ``automatic`` scales every gradient to just
            below it (Bu et al. 2023).
        grid: integer units per contribution norm.
        noise_placement: ``federation`` = shares that add up; ``silo`` = each silo's own noise suffices.
        colluding_silos: silos, the observer included, that may pool what they know with the coordinator.
        max_silos_per_user: in how many silos of the roster one person may be.
    """

    unit: Literal["user"]
    neighboring_relation: Literal["add_or_remove_one"]
    target_epsilon: Annotated[Real, Field(gt=0, le=100)]
    target_delta: Annotated[Real, Field(ge=1e-30, le=0.01)]
    filter: Literal["zcdp", "renyi"]
    orders: tuple[Real, ...] | None = None
    noise_multiplier: Annotated[Real, Field(gt=0, le=1e6)]
    contribution_norm: Positive | None = None
    max_grad_norm: Positive | None = None
    clipping: Literal["flat", "automatic"] = "flat"
    grid: Annotated[Whole, Field(ge=1, le=2**30)]
    noise_placement: Literal["federation", "silo"]
    colluding_silos: Annotated[Whole, Field(ge=1, lt=MAX_SILOS)]
    max_silos_per_user: Annotated[Whole, Field(ge=1, le=MAX_SILOS)]

    @model_validator(mode="after")
    def _orders_belong_to_renyi(self) -> Privacy:
        if (self.filter == "renyi") != (self.orders is not None):
            raise ValueError("orders: a renyi filter names its orders, a zcdp filter has none")
        if self.orders is not None:
            try:
                RenyiFilter(orders=self.orders)
            except ValidationError as error:
                raise ValueError(f"orders: {error.errors(include_url=False)[0]['msg']}") from error
        return self

    @property
    def filter_spec(self) -> FilterSpec:
        """The filter as the accounting knows it."""
        if self.orders is None:
            return ZcdpFilter()
        return RenyiFilter(orders=self.orders)


class Protection(Section):
    """How contributions are hidden inside the sum.

    Attributes:
        encryption: ``bfv`` keeps the sum from the coordinator.
        masks: ``pairwise`` keeps each contribution from the silos that hold the key.
        min_silos: fewest contributions a sum may have.
        max_failed_opens: sums that may fail to open before the job and its key end, at most two: each tells
            whoever altered it a little.
        round_minutes: a silo that has not done its part of a round by then is absent and the others go on;
            exactly where rounds of gradients may go on with fewer than all silos. Statistics wait.
    """

    encryption: Literal["bfv", "none"]
    masks: Literal["pairwise", "none"]
    min_silos: Annotated[Whole, Field(ge=2, le=MAX_SILOS)]
    max_failed_opens: Annotated[Whole, Field(ge=0, le=2)] = 2
    round_minutes: Annotated[Real, Field(gt=0, le=1e5)] | None = None


class NoisedMetrics(Section):
    """Quality on the holdout, as one noised secure sum.

    Attributes:
        noised: always true: there is no other way to publish a metric.
        epsilon: that release as if alone at ``target_delta``; training gets what remains of the composition.
    """

    noised: Literal[True]
    epsilon: Annotated[Real, Field(gt=0, le=100)]


class Releases(Section):
    """What the job lets out, and to whom.

    Attributes:
        model: ``members`` = the silos of the roster; ``label`` = the label silo of a vertical plan alone.
        metrics: ``none`` or noised.
    """

    model: Literal["members", "label"]
    metrics: Literal["none"] | NoisedMetrics = "none"


class Plan(Section):
    """One job of one roster.

    Attributes:
        purpose: what the silos' policies map to one of their datasets.
        partition: ``horizontal``: same catalogue, different users; ``vertical``: same users, different data.
        silos: the roster, in order; the first leads.
        catalogue: the public item list, or what makes the silos' own lists comparable.
        max_users_per_silo: public bound, rounded up; grid and clamp derive from it alone.
        max_interactions_per_user: cap of one history; a silo may cap lower.
        holdout: rows kept out of the contributions.
        model: the family and its size.
        training: the public schedule.
        privacy: what is promised to one person.
        protection: how contributions are hidden in the sum.
        releases: what the job lets out.
        roles: of a vertical plan: who ranks items, who brings features.
        alignment: of a vertical plan: how the people in common are found.
    """

    kind: Literal["Plan"]
    schema_version: Literal[1]
    purpose: Slug
    partition: Literal["horizontal", "vertical"]
    silos: Annotated[tuple[PartyName, ...], Field(min_length=2, max_length=MAX_SILOS)]
    catalogue: Annotated[SharedCatalogue | PerSiloCatalogue, Field(discriminator="kind")]
    max_users_per_silo: Annotated[Whole, Field(ge=1, le=2**31)]
    max_interactions_per_user: Annotated[Whole, Field(ge=1, le=100_000)]
    holdout: Holdout
    model: Model
    training: Training
    privacy: Privacy
    protection: Protection
    releases: Releases
    roles: Roles | None = None
    alignment: AlignmentTerms | None = None

    @model_validator(mode="after")
    def _agree(self) -> Plan:
        found = plan_problems(self) if self.partition == "horizontal" else vertical_problems(self)
        problems = "; ".join(found)
        if problems:
            raise ValueError(problems)
        return self

    @property
    def leader(self) -> str:
        """The silo that makes the job's keys: the roster's first."""
        return self.silos[0]

    @property
    def num_silos(self) -> int:
        """Roster size n."""
        return len(self.silos)

    @property
    def num_noise_shares(self) -> int:
        """Shares of the full roster that the colluders do not know, n - c."""
        return len(self.silos) - self.privacy.colluding_silos

    @property
    def is_statistics(self) -> bool:
        """Whether each user's contribution is an exact integer vector (else a rounded sum of gradients)."""
        return self.model.family in STATISTICS

    @property
    def is_vertical(self) -> bool:
        """Whether the silos hold different data about the same people."""
        return self.partition == "vertical"

    def unit_of(self, silo: str) -> str:
        """What the guarantee protects in one silo: a feature silo of a vertical plan has its own."""
        terms = None if self.roles is None else self.roles.features.get(silo)
        return self.privacy.unit if terms is None else terms.unit

    @property
    def fewest_contributors(self) -> int:
        """Silos with which a round may still be summed.

        All of them where nobody can be absent. Otherwise ``min_silos``, but under shared noise never so few
        that fewer than two shares lie outside the collusion.
        """
        if self.protection.round_minutes is None:
            return self.num_silos
        shared = self.privacy.noise_placement == "federation"
        return max(self.protection.min_silos, self.privacy.colluding_silos + 2 if shared else 2)

    @property
    def popularity(self) -> NoisedPopularity | None:
        """The noised counts that a trained model starts from, if any."""
        bias = self.model.bias if isinstance(self.model, AutoencoderModel | SequenceModel) else "none"
        return bias if isinstance(bias, NoisedPopularity) else None

    @property
    def reads_order(self) -> bool:
        """Whether the model reads histories in order of time, so that rows without times are refused."""
        model = self.model
        return isinstance(model, LanguageModel | SequenceModel) and model.network is not None

    @property
    def may_hide_items(self) -> bool:
        """Whether a step may hide a share of a history (``input_dropout``); who asks for all hides none."""
        model = self.model
        if isinstance(model, LanguageModel | SequenceModel):
            return model.architecture in ("bottleneck", "masked")
        return "input_dropout" in type(model).model_fields
