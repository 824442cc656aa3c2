"""A silo's own law: what its data may be used for, with whom, and what that may cost in total.

Signed by the silo's administrators; its version only goes up. Empty means deny: without a dataset, a purpose
or a partner nothing is accepted. Encryption and masks cannot be turned off; whatever else is permissive is
warned about (:meth:`SiloPolicy.warnings`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator, model_validator

from policies.alignment_policy import Alignment, alignment_problems, alignment_warnings
from policies.canonical import signed_bytes
from policies.plans.models import FamilyName
from policies.sections import MAX_SILOS, PartyName, Real, Section, Sha256, Slug, Whole
from policies.serving import Serving, serving_problems, serving_warnings
from privacy.budget import Budget, FilterSpec, RenyiFilter, ZcdpFilter

POLICY_KIND = "silo-policy"
MAX_VERSION = 2**31 - 1
GENEROUS_EPSILON = 10.0
MAX_EPSILON = 100.0
LOOSE_DELTA = 1e-5

Location = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=200)]
EventName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
EventWeight = Annotated[Real, Field(gt=0, le=1000)]
Share = Annotated[Real, Field(ge=0, le=1)]
SourceFormat = Literal["parquet", "csv", "inter"]


class Source(Section):
    """Where the rows are: exactly one of these, a path or glob relative to the silo's directory.

    Attributes:
        parquet: Parquet files.
        csv: CSV files with a header.
        inter: RecBole files.
    """

    parquet: Location | None = None
    csv: Location | None = None
    inter: Location | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Source:
        if len(self._named()) != 1:
            raise ValueError("not exactly one source; write one, such as parquet: data/purchases/*.parquet")
        return self

    def _named(self) -> list[tuple[SourceFormat, str]]:
        sources: tuple[tuple[SourceFormat, str | None], ...] = (
            ("parquet", self.parquet),
            ("csv", self.csv),
            ("inter", self.inter),
        )
        return [(name, path) for name, path in sources if path is not None]

    @property
    def format(self) -> SourceFormat:
        """How the files are written."""
        return self._named()[0][0]

    @property
    def path(self) -> str:
        """Path or glob."""
        return self._named()[0][1]


class Columns(Section):
    """Names of the columns in the source. All but the two ids only where the source has them.

    Attributes:
        user_id: who.
        item_id: what, as in the catalogue.
        timestamp: when: Unix times or dates.
        weight: rows of zero or less are left out; local models learn from its size, federated ones do not.
        rating: what the person thought of it; see ``Dataset.min_rating``.
        event: what kind of event a row is; see ``Dataset.events``.
    """

    user_id: Column = "user_id"
    item_id: Column = "item_id"
    timestamp: Column | None = None
    weight: Column | None = None
    rating: Column | None = None
    event: Column | None = None


class Dataset(Section):
    """One table of interactions.

    Attributes:
        source: the files.
        columns: their column names.
        max_interactions_per_user: cap of one person's history; plans may ask for fewer, never get more.
        population: whose data it is; datasets of the same people share one account.
        max_silos_per_user: in how many silos of a roster one person may be. A plan must assume at least this.
        exclude_users: CSV file of user ids who said no; honoured from the next job on.
        events: kind of event -> what one counts; kinds that are not named are left out.
        min_rating: a pair whose latest rating is lower is no interaction; rows without a rating are.
        unit: of a graph dataset, what ``require.unit`` is for all others.
        item_list: file of the silo's own public list of items (``archipel data catalogue``): what it ranks
            under plans that leave each silo its own, and the columns of a feature silo; left out, it accepts
            no such plans, and as a feature silo folds items into columns by public hashing.
        default_region: country of telephone numbers that name none, where plans align people by ``phone``;
            left out, such people are in no alignment.
    """

    source: Source
    columns: Columns = Columns()
    max_interactions_per_user: Annotated[Whole, Field(ge=1, le=100_000)]
    population: Slug
    max_silos_per_user: Annotated[Whole, Field(ge=1, le=MAX_SILOS)]
    exclude_users: Location | None = None
    events: Annotated[dict[EventName, EventWeight], Field(min_length=1, max_length=100)] | None = None
    min_rating: Real | None = None
    unit: Literal["user_row", "user_node"] | None = None
    item_list: Location | None = None
    default_region: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = None

    @field_validator("default_region")
    @classmethod
    def _is_known(cls, region: str | None) -> str | None:
        from privacy.alignment.identifiers import is_region  # with the tables of all countries

        if region is not None and not is_region(region):
            raise ValueError(f"{region} is no region of telephone numbers; write one such as DE, FR or US")
        return region

    @model_validator(mode="after")
    def _columns_are_named(self) -> Dataset:
        for field, column in (("events", "event"), ("min_rating", "rating")):
            if getattr(self, field) is not None and getattr(self.columns, column) is None:
                raise ValueError(f"{field} without its column; name columns.{column}")
        if self.columns.event is not None and self.events is None:
            raise ValueError("columns.event without events; say what each kind counts, such as purchase: 3")
        return self


class Renewal(Section):
    """A later addition to what an account may spend, declared before it is taken.

    Attributes:
        date: the first day on which a policy may take it.
        epsilon: how much it adds; nothing that was spent is forgotten.
    """

    date: date
    epsilon: Annotated[Real, Field(gt=0, le=100)]


class AccountBudget(Section):
    """The most that one population's account may ever spend.

    Attributes:
        epsilon: bound on the privacy loss of one person, before any renewal.
        delta: probability with which it may fail.
        scope: ``lifetime``: nothing is ever forgotten or refilled; ``renewals``: declared additions may come.
        filter: the account's accounting, fixed for its life.
        orders: Rényi orders, only with ``filter: renyi``.
        renewals: the additions, only with ``scope: renewals``; each taken by a signed version of its own.
        renewed: how many of them have been taken.
        expires: last day on which a plan may draw on the account; left out = as long as the policy.
        max_epsilon_with: partner -> the most that all jobs with it in their roster may spend together.
    """

    epsilon: Annotated[Real, Field(gt=0, le=100)]
    delta: Annotated[Real, Field(gt=0, le=0.01)]
    scope: Literal["lifetime", "renewals"]
    filter: Literal["zcdp", "renyi"]
    orders: tuple[Real, ...] | None = None
    renewals: Annotated[tuple[Renewal, ...], Field(min_length=1, max_length=100)] | None = None
    renewed: Annotated[Whole, Field(ge=0, le=100)] = 0
    expires: date | None = None
    max_epsilon_with: dict[PartyName, Annotated[Real, Field(gt=0, le=100)]] | None = None

    @model_validator(mode="after")
    def _fields_belong_together(self) -> AccountBudget:
        problems = [*_order_problems(self), *_renewal_problems(self)]
        if problems:
            raise ValueError("; ".join(problems))
        if self.orders is not None:
            RenyiFilter(kind="renyi", orders=self.orders)
        return self

    @property
    def total_epsilon(self) -> float:
        """The first allowance and every renewal that was taken."""
        return self.epsilon + sum(renewal.epsilon for renewal in self.taken)

    @property
    def taken(self) -> tuple[Renewal, ...]:
        """Renewals that were taken."""
        return (self.renewals or ())[: self.renewed]

    @property
    def filter_spec(self) -> FilterSpec:
        """The filter as the accounting knows it."""
        if self.orders is None:
            return ZcdpFilter(kind="zcdp")
        return RenyiFilter(kind="renyi", orders=self.orders)

    def to_budget(self) -> Budget:
        """The budget as the ledger knows it."""
        return Budget(epsilon=self.total_epsilon, delta=self.delta, filter=self.filter_spec)


class Requirements(Section):
    """What every plan must bring. There is no unprotected sum, so both switches have one position.

    Attributes:
        encryption: the coordinator learns no sum.
        masks: key holders learn no single contribution.
        unit: what the guarantee protects.
    """

    encryption: Literal[True] = True
    masks: Literal[True] = True
    unit: Literal["user"] = "user"


class Accepts(Section):
    """What a plan must look like to be accepted. Nothing is accepted by default.

    Attributes:
        purposes: purpose of a plan -> the one dataset it may use.
        with_members: silos that may be in the roster with us.
        max_epsilon_per_plan: ceiling of one plan's ``target_epsilon``.
        min_silos: fewest contributions a sum may have.
        min_colluding_silos: plans must cover at least so many colluders.
        require: protections no plan may lack.
        metrics: ``none`` or ``noised``: whether quality figures may leave.
        verify_sums: share of rounds whose sum this silo recomputes; 1.0 where there is one round.
        catalogues: SHA-256 of the catalogues that may be used; left out = any.
        families: kinds of models that may be made of our rows; left out = any.
        max_rounds: most rounds a training may have, burned ones included: each reads our rows and takes this
            machine's time; left out = as many as the epsilon allows.
        max_epsilon_per_selection: ceiling of one private choice among released models, made by this silo's
            own people (``archipel tune --kind local-private``); left out = none is made.
    """

    purposes: dict[Slug, Slug] = Field(default_factory=dict, max_length=100)
    with_members: Annotated[tuple[PartyName, ...], Field(max_length=MAX_SILOS)] = ()
    max_epsilon_per_plan: Annotated[Real, Field(gt=0, le=100)]
    min_silos: Annotated[Whole, Field(ge=2, le=MAX_SILOS)]
    min_colluding_silos: Annotated[Whole, Field(ge=1, lt=MAX_SILOS)]
    require: Requirements = Requirements()
    metrics: Literal["none", "noised"] = "none"
    verify_sums: Share = 1.0
    catalogues: Annotated[tuple[Sha256, ...], Field(max_length=1_000)] | None = None
    families: Annotated[tuple[FamilyName, ...], Field(max_length=100)] | None = None
    max_rounds: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    max_epsilon_per_selection: Annotated[Real, Field(gt=0, le=10)] | None = None


class SiloPolicy(Section):
    """The law of one silo, in force until ``expires`` (the last day, UTC).

    Attributes:
        version: goes up with every change; an older one is refused for ever.
        silo: whose policy it is.
        expires: last day in force, UTC.
        datasets: tables by name.
        budgets: accounts by population: what may ever be learnt about one of its people.
        accepts: what a plan must look like.
        alignment: limits on finding common people; left out, nobody is aligned.
        serving: whose features may score a person.
    """

    kind: Literal["SiloPolicy"]
    schema_version: Literal[1]
    version: Annotated[Whole, Field(ge=1, le=MAX_VERSION)]
    silo: PartyName
    expires: date
    datasets: dict[Slug, Dataset] = Field(default_factory=dict, max_length=100)
    budgets: dict[Slug, AccountBudget] = Field(default_factory=dict, max_length=100)
    accepts: Accepts
    alignment: Alignment | None = None
    serving: Serving = Serving()

    @model_validator(mode="after")
    def _agree(self) -> SiloPolicy:
        problems = [
            *_dataset_problems(self),
            *_accepts_problems(self),
            *alignment_problems(self),
            *serving_problems(self),
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def dataset_for(self, purpose: str) -> tuple[str, Dataset] | None:
        """Name and table of the one dataset a purpose may use; None when the purpose is not accepted."""
        name = self.accepts.purposes.get(purpose)
        return None if name is None else (name, self.datasets[name])

    def signed_bytes(self) -> bytes:
        """What the administrators sign."""
        return signed_bytes(POLICY_KIND, self)

    def unenforced(self) -> tuple[tuple[str, str], ...]:
        """Fields that nothing of this version would hold to, and why; such a policy is not signed or run."""
        return tuple(self.serving.unenforced())

    def warnings(self) -> tuple[str, ...]:
        """What an administrator should look at twice: permissive settings, and those that deny everything."""
        looks = (_permissive, serving_warnings, _denying, alignment_warnings)
        return tuple(warning for look in looks for warning in look(self))


def _order_problems(budget: AccountBudget) -> Iterator[str]:
    if budget.filter == "renyi" and budget.orders is None:
        yield "orders: missing for a renyi filter; name at most 8, such as [2, 4, 8, 16]"
    if budget.filter == "zcdp" and budget.orders is not None:
        yield "orders: a zcdp filter has none; remove them, or write filter: renyi"


def _renewal_problems(budget: AccountBudget) -> Iterator[str]:
    renewals = budget.renewals
    if (budget.scope == "renewals") != (renewals is not None):
        yield "renewals: they belong to scope: renewals and to no other; write both or neither"
    days = [renewal.date for renewal in renewals or ()]
    if days != sorted(set(days)):
        yield "renewals: not in the order of their dates; write each date once, the earliest first"
    if budget.renewed > len(days):
        yield f"renewed: {budget.renewed} of {len(days)} declared renewals; declare one before it is taken"
    if budget.epsilon + sum(renewal.epsilon for renewal in renewals or ()) > MAX_EPSILON:
        yield f"renewals: together with epsilon more than {MAX_EPSILON:g}; that is no promise to a person"


def _dataset_problems(policy: SiloPolicy) -> Iterator[str]:
    for name, dataset in policy.datasets.items():
        if dataset.population not in policy.budgets:
            yield (
                f"datasets.{name}.population: budgets has no account {dataset.population}; "
                f"add budgets.{dataset.population}"
            )


def _accepts_problems(policy: SiloPolicy) -> Iterator[str]:
    for purpose, name in policy.accepts.purposes.items():
        if name not in policy.datasets:
            known = ", ".join(policy.datasets) or "none yet"
            yield f"accepts.purposes.{purpose}: there is no dataset {name}; the datasets are: {known}"
    if policy.silo in policy.accepts.with_members:
        yield f"accepts.with_members: {policy.silo} is this silo itself; name the others only"
    for name, budget in policy.budgets.items():
        if policy.silo in (budget.max_epsilon_with or ()):
            yield f"budgets.{name}.max_epsilon_with: {policy.silo} is this silo itself; name partners only"
    if len(set(policy.accepts.with_members)) != len(policy.accepts.with_members):
        yield "accepts.with_members: a silo stands here twice; write each once"


def _permissive(policy: SiloPolicy) -> Iterator[str]:
    accepts = policy.accepts
    for name, budget in policy.budgets.items():
        total = budget.total_epsilon
        if total > GENEROUS_EPSILON:
            yield f"budgets.{name}.epsilon: {total:g} over a lifetime is a weak promise to a person"
        if budget.delta > LOOSE_DELTA:
            yield f"budgets.{name}.delta: {budget.delta:g} is large; stay below one over the number of people"
    for name, dataset in policy.datasets.items():
        if dataset.max_silos_per_user == 1 and len(accepts.with_members) > 0:
            yield (
                f"datasets.{name}.max_silos_per_user: 1 declares that nobody is a customer of two silos; "
                "where that is not sure, write the number of silos one person may be in"
            )
    if accepts.verify_sums == 0:
        yield "accepts.verify_sums: 0 never checks the coordinator's sums"


def _denying(policy: SiloPolicy) -> Iterator[str]:
    accepts = policy.accepts
    for name, dataset in policy.datasets.items():
        if dataset.unit is not None and policy.alignment is None:
            yield (
                f"datasets.{name}.unit: only vertical plans protect a {dataset.unit}, and without alignment "
                "all of them are denied"
            )
    for name, budget in policy.budgets.items():
        for partner in (budget.max_epsilon_with or {}).keys() - set(accepts.with_members):
            yield f"budgets.{name}.max_epsilon_with: {partner} is not in accepts.with_members"
    if not accepts.with_members:
        yield "accepts.with_members: empty, so every plan is denied; name the silos you work with"
    elif accepts.min_silos > len(accepts.with_members) + 1:
        yield (
            f"accepts.min_silos: {accepts.min_silos} silos cannot come together from "
            f"{len(accepts.with_members)} partners and this one; every plan is denied"
        )
    if not accepts.purposes:
        yield "accepts.purposes: empty, so every plan is denied; map a purpose to a dataset"
    if accepts.families == ():
        yield "accepts.families: empty, so every plan is denied; name a kind of model, or leave the field out"
    used = {dataset.population for dataset in policy.datasets.values()}
    for name in policy.budgets.keys() - used:
        yield f"budgets.{name}: no dataset draws on this account"
    for name, budget in policy.budgets.items():
        if name in used and budget.total_epsilon < accepts.max_epsilon_per_plan:
            yield (
                f"budgets.{name}.epsilon: {budget.total_epsilon:g} is less than accepts.max_epsilon_per_plan "
                f"{accepts.max_epsilon_per_plan:g}; plans between the two are denied by the account"
            )
