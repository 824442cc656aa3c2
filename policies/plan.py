"""A plan: one job, as data. No code, no defaults that spend privacy.

A plan is what every silo of its roster accepts unchanged or denies. It holds *public* numbers only: they come
from agreements and upper bounds, never from rows. The roster's first silo leads (it makes the job's keys).

::

    Plan ── catalogue ── holdout ── model ── training ── privacy ── protection ── releases

Field rules live beside their fields; rules across fields stand at the end and each says why. What a plan
costs and whether it is possible at all is arithmetic and lives in :mod:`policies.price`.

Signed bytes leave out unset fields, so a field added later never changes an old plan's digest: a default,
once published, never changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, StringConstraints, ValidationError, model_validator

from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter

Whole = Annotated[int, Strict()]
Real = Annotated[float, Strict()]
Flag = Annotated[bool, Strict()]
PartyName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[float, Strict(), Field(gt=0, le=1e9)]

MAX_ITEM_GRAPH_ITEMS = 20_000
MAX_SILOS = 64


class Section(BaseModel):
    """A part of a plan: frozen, closed to unknown fields, free of NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SharedCatalogue(Section):
    """The public item list every silo ranks: never the items that happen to occur.

    Attributes:
        sha256: of the catalogue file ``catalogues/<sha256>.jsonl``.
        items: number of its lines.
    """

    kind: Literal["shared"]
    sha256: Sha256
    items: Annotated[Whole, Field(ge=2, le=10_000_000)]


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
    features: Annotated[Whole, Field(ge=1, le=5_000)]


Model = Annotated[PopularityModel | ItemGraphModel | LinearModel, Field(discriminator="family")]


class Training(Section):
    """The public schedule.

    Attributes:
        rounds: secure sums of the training itself.
        max_burned_rounds: attempts that may fail after their noise was released; all are reserved.
        sample_rate: Poisson probability of each user per round; 1.0 is the full batch.
        expected_batch_size: public divisor of a summed gradient, over all silos; never a row count.
        optimizer: what every silo applies to the same sum.
        learning_rate: step size.
        local_steps: steps between two secure sums.
    """

    rounds: Annotated[Whole, Field(ge=1, le=10_000)] = 1
    max_burned_rounds: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    sample_rate: Annotated[Real, Field(gt=0, le=1)] = 1.0
    expected_batch_size: Positive | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    learning_rate: Positive | None = None
    local_steps: Annotated[Whole, Field(ge=1, le=1_000)] = 1


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
    """

    encryption: Literal["bfv", "none"]
    masks: Literal["pairwise", "none"]
    min_silos: Annotated[Whole, Field(ge=2, le=MAX_SILOS)]
    max_failed_opens: Annotated[Whole, Field(ge=0, le=2)] = 2


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
        model: ``members`` = the silos of the roster.
        metrics: ``none`` or noised.
    """

    model: Literal["members"]
    metrics: Literal["none"] | NoisedMetrics = "none"


class Plan(Section):
    """One job of one roster.

    Attributes:
        purpose: what the silos' policies map to one of their datasets.
        silos: the roster, in order; the first leads.
        max_users_per_silo: public bound, rounded up; grid and clamp derive from it alone.
        max_interactions_per_user: cap of one history; a silo may cap lower.
    """

    kind: Literal["Plan"]
    schema_version: Literal[1]
    purpose: Slug
    partition: Literal["horizontal"]
    silos: Annotated[tuple[PartyName, ...], Field(min_length=2, max_length=MAX_SILOS)]
    catalogue: SharedCatalogue
    max_users_per_silo: Annotated[Whole, Field(ge=1, le=2**31)]
    max_interactions_per_user: Annotated[Whole, Field(ge=1, le=100_000)]
    holdout: Holdout
    model: Model
    training: Training
    privacy: Privacy
    protection: Protection
    releases: Releases

    @model_validator(mode="after")
    def _agree(self) -> Plan:
        problems = [*_roster_problems(self), *_collusion_problems(self), *_family_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
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
        """Shares the colluders do not know, n - c: their variances add up to the promised one."""
        return len(self.silos) - self.privacy.colluding_silos

    @property
    def is_statistics(self) -> bool:
        """Whether each user's contribution is an exact integer vector (else a rounded sum of gradients)."""
        return self.model.family != "linear"


def _roster_problems(plan: Plan) -> Iterator[str]:
    n = plan.num_silos
    if len(set(plan.silos)) != n:
        yield "silos: a silo stands in the roster twice; its contribution would be counted twice"
    if plan.protection.min_silos > n:
        yield f"protection.min_silos: {plan.protection.min_silos} of {n} silos can never contribute"
    if plan.privacy.max_silos_per_user > n:
        yield f"privacy.max_silos_per_user: a person is in at most the {n} silos of the roster"
    if plan.releases.metrics != "none" and plan.holdout.kind == "none":
        yield "releases.metrics: metrics need a holdout; without one they would be measured on training rows"


def _collusion_problems(plan: Plan) -> Iterator[str]:
    n, c = plan.num_silos, plan.privacy.colluding_silos
    if c > n - 1:
        yield f"privacy.colluding_silos: {c} is more than all others of {n} silos; write at most {n - 1}"
    elif plan.privacy.noise_placement == "federation" and n - c < 2:
        yield (
            f"privacy.noise_placement: federation needs two silos outside the collusion, here {n - c}; "
            "write noise_placement: silo"
        )
    elif plan.privacy.noise_placement == "silo" and c != n - 1:
        yield (
            "privacy.colluding_silos: under noise_placement: silo each silo's noise suffices alone; "
            f"write {n - 1}"
        )
    if plan.training.local_steps > 1 and plan.privacy.noise_placement != "silo":
        yield (
            "training.local_steps: the other silos' noise never protects steps between two sums; "
            "write local_steps: 1 or noise_placement: silo"
        )


def _family_problems(plan: Plan) -> Iterator[str]:
    if plan.is_statistics:
        yield from _statistics_problems(plan)
    else:
        yield from _gradient_problems(plan)


def _statistics_problems(plan: Plan) -> Iterator[str]:
    family, training = plan.model.family, plan.training
    if plan.privacy.contribution_norm != 1.0:
        yield f"privacy.contribution_norm: {family} normalises each user's statistics to norm 1.0; write 1.0"
    if plan.privacy.max_grad_norm is not None:
        yield f"privacy.max_grad_norm: {family} has no gradients; contribution_norm bounds a user"
    if training.rounds != 1:
        yield f"training.rounds: {family} is one secure sum; every further round would only cost; write 1"
    if training.sample_rate != 1.0:
        yield f"training.sample_rate: {family} counts every user once; write 1.0"
    if training.local_steps != 1:
        yield f"training.local_steps: {family} takes no steps; write 1"
    steps = {
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "expected_batch_size": training.expected_batch_size,
    }
    for name, value in steps.items():
        if value is not None:
            yield f"training.{name}: {family} takes no steps; leave it out"
    if family == "item-graph" and plan.catalogue.items > MAX_ITEM_GRAPH_ITEMS:
        yield (
            f"catalogue.items: item-graph sums one value per pair, at most {MAX_ITEM_GRAPH_ITEMS:,} items; "
            "take family: popularity or a smaller catalogue"
        )


def _gradient_problems(plan: Plan) -> Iterator[str]:
    training = plan.training
    if plan.privacy.max_grad_norm is None:
        yield "privacy.max_grad_norm: an unbounded gradient has no privacy; name the norm it is clipped to"
    if plan.privacy.contribution_norm is not None:
        yield "privacy.contribution_norm: max_grad_norm bounds gradients; leave this out"
    needed = {
        "optimizer": training.optimizer,
        "learning_rate": training.learning_rate,
        "expected_batch_size": training.expected_batch_size,
    }
    for name, value in needed.items():
        if value is None:
            yield f"training.{name}: {plan.model.family} needs it, the same in every silo"
