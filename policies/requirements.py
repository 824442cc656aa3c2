"""What a silo's policy demands of a plan, published for the other members: signed, and without its budget.

Members who forecast a plan learn before they propose it who would refuse and why. The extract says what a
refusal's code and field would say anyway. What an account may spend, has spent or has left is not in it, nor
are tables, columns, partners outside the charter, or the policy's digest (by which budgets could be guessed).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from policies.alignment_policy import Alignment
from policies.canonical import signed_bytes
from policies.charters.charter import Charter
from policies.documents import Document, check_size
from policies.files import read_limited
from policies.plans.models import FamilyName
from policies.sections import MAX_SILOS, PartyName, Real, Section, Sha256, Slug, Whole
from policies.signing import PrivateKey, SignatureError
from policies.silo_policy import MAX_VERSION, Requirements, SiloPolicy
from policies.trust import ExpiredError, WrongSiloError, require_unexpired
from policies.validation import validate_document
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter
from privacy.errors import DataError

REQUIREMENTS_KIND = "requirements"
REQUIREMENTS_FILE = "requirements.json"
_PLENTY = 100.0
_SAME = (
    "with_members",
    "max_epsilon_per_plan",
    "min_silos",
    "min_colluding_silos",
    "require",
    "metrics",
    "catalogues",
    "families",
    "max_rounds",
)


class PurposeTerms(Section):
    """What a plan of one purpose must be like.

    Attributes:
        unit: what the guarantee protects.
        max_silos_per_user: in how many silos one person may be; a plan must assume at least this.
        max_delta: largest ``target_delta``.
        filter: the accounting that the plan's promise is checked with.
        orders: its Rényi orders.
    """

    unit: Literal["user", "user_row", "user_node"]
    max_silos_per_user: Annotated[Whole, Field(ge=1, le=MAX_SILOS)]
    max_delta: Annotated[Real, Field(gt=0, le=0.01)]
    filter: Literal["zcdp", "renyi"]
    orders: tuple[Real, ...] | None = None

    @property
    def filter_spec(self) -> FilterSpec:
        """The filter as the accounting knows it."""
        if self.orders is None:
            return ZcdpFilter(kind="zcdp")
        return RenyiFilter(kind="renyi", orders=self.orders)


class PublishedRequirements(Section):
    """The extract of one policy (``requirements.json``).

    Attributes:
        silo: whose policy.
        policy_version: its version.
        published: on which day, UTC.
        expires: the policy's last day in force.
        purposes: what plans may be for, and what each must be like.
        with_members: members of the charter that may be in the roster.
        max_epsilon_per_plan: largest ``target_epsilon``.
        min_silos: fewest contributions of a sum.
        min_colluding_silos: colluders that a plan must cover.
        require: protections no plan may lack.
        metrics: whether quality figures may leave.
        catalogues: accepted catalogues; left out = any.
        families: accepted families; left out = any.
        max_rounds: most rounds of a training; left out = any.
        alignment: limits on finding common people; left out = nobody is aligned.
        signature: the silo's identity key's, over everything else.
    """

    kind: Literal["Requirements"]
    schema_version: Literal[1]
    silo: PartyName
    policy_version: Annotated[Whole, Field(ge=1, le=MAX_VERSION)]
    published: date
    expires: date
    purposes: dict[Slug, PurposeTerms] = Field(max_length=100)
    with_members: Annotated[tuple[PartyName, ...], Field(max_length=MAX_SILOS)]
    max_epsilon_per_plan: Annotated[Real, Field(gt=0, le=100)]
    min_silos: Annotated[Whole, Field(ge=2, le=MAX_SILOS)]
    min_colluding_silos: Annotated[Whole, Field(ge=1, lt=MAX_SILOS)]
    require: Requirements
    metrics: Literal["none", "noised"]
    catalogues: Annotated[tuple[Sha256, ...], Field(max_length=1_000)] | None = None
    families: Annotated[tuple[FamilyName, ...], Field(max_length=100)] | None = None
    max_rounds: Annotated[Whole, Field(ge=1, le=1_000_000)] | None = None
    alignment: Alignment | None = None
    signature: Annotated[str, StringConstraints(max_length=100)]

    def as_policy(self) -> SiloPolicy:
        """A policy that demands the same and can pay for anything: the one decision code judges by it."""
        accounts = {
            purpose: {
                "epsilon": _PLENTY,
                "delta": terms.max_delta,
                "scope": "lifetime",
                "filter": terms.filter,
            }
            | ({} if terms.orders is None else {"orders": terms.orders})
            for purpose, terms in self.purposes.items()
        }
        tables = {
            purpose: {
                "source": {"csv": "not published"},
                "max_interactions_per_user": 1,
                "population": purpose,
                "max_silos_per_user": terms.max_silos_per_user,
                "item_list": "not published",
            }
            | ({} if terms.unit == "user" else {"unit": terms.unit})
            for purpose, terms in self.purposes.items()
        }
        return SiloPolicy.model_validate(
            {
                "kind": "SiloPolicy",
                "schema_version": 1,
                "version": self.policy_version,
                "silo": self.silo,
                "expires": self.expires,
                "datasets": tables,
                "budgets": accounts,
                "accepts": {"purposes": {name: name for name in self.purposes}}
                | {name: getattr(self, name) for name in _SAME},
                "alignment": self.alignment,
            }
        )


def extract(
    policy: SiloPolicy, charter: Charter, identity: PrivateKey, now: datetime
) -> PublishedRequirements:
    """Return what ``policy`` demands, signed by the silo's identity.

    Args:
        policy: the trusted policy.
        charter: whose members are named; others are left out.
        identity: the silo's identity key.
        now: reference time, aware.
    """
    accepts = policy.accepts
    purposes = {}
    for purpose, name in accepts.purposes.items():
        dataset = policy.datasets[name]
        budget = policy.budgets[dataset.population]
        purposes[purpose] = {
            "unit": dataset.unit or accepts.require.unit,
            "max_silos_per_user": dataset.max_silos_per_user,
            "max_delta": budget.delta,
            "filter": budget.filter,
        } | ({} if budget.orders is None else {"orders": list(budget.orders)})
    content: dict[str, object] = {
        "kind": "Requirements",
        "schema_version": 1,
        "silo": policy.silo,
        "policy_version": policy.version,
        "published": now.astimezone(UTC).date().isoformat(),
        "expires": policy.expires.isoformat(),
        "purposes": purposes,
        "with_members": [name for name in accepts.with_members if charter.member(name) is not None],
        "max_epsilon_per_plan": accepts.max_epsilon_per_plan,
        "min_silos": accepts.min_silos,
        "min_colluding_silos": accepts.min_colluding_silos,
        "require": accepts.require.model_dump(mode="json"),
        "metrics": accepts.metrics,
    }
    for field in ("catalogues", "families", "max_rounds"):
        value = getattr(accepts, field)
        if value is not None:
            content[field] = list(value) if isinstance(value, tuple) else value
    if policy.alignment is not None:
        content["alignment"] = policy.alignment.model_dump(mode="json", exclude_unset=True)
    signature = identity.sign(signed_bytes(REQUIREMENTS_KIND, content))
    return PublishedRequirements.model_validate_json(json.dumps({**content, "signature": signature}))


def trust_requirements(
    content: bytes, *, charter: Charter, now: datetime, source: str = REQUIREMENTS_FILE
) -> PublishedRequirements:
    """Accept an extract: signed by the identity that the charter lists for its silo, of a policy in force.

    Args:
        content: bytes of ``requirements.json``.
        charter: the trusted charter.
        now: reference time, aware.
        source: the file's name, for messages.

    Raises:
        DataError, PolicyFileError: not an extract.
        OversizeError, WrongSiloError, SignatureError, ExpiredError: not to be trusted.
    """
    try:
        values = json.loads(check_size(content, source))
    except (ValueError, RecursionError) as error:
        raise DataError("this is not JSON", where=source, remedy="ask the member for it again") from error
    found = validate_document(Document(source=source, value=values, lines={}), PublishedRequirements)
    member = charter.member(found.silo)
    if member is None:
        raise WrongSiloError(f"{found.silo} is no member of the charter {charter.name}", where=source)
    signed = signed_bytes(
        REQUIREMENTS_KIND, found.model_dump(mode="json", exclude_unset=True, exclude={"signature"})
    )
    try:
        member.identity_key.verify(signed, found.signature)
    except SignatureError as error:
        raise SignatureError(
            f"this is not what {found.silo} signed",
            where=source,
            remedy=f"ask {found.silo} for a fresh one: archipel policy publish",
        ) from error
    require_unexpired(f"policy of {found.silo}", found.expires, now)
    return found


def read_requirements(
    paths: Iterable[Path], *, charter: Charter, now: datetime
) -> dict[str, PublishedRequirements]:
    """Read extracts by silo: of two of one silo that of the newer policy, and none of an expired one.

    Args:
        paths: files, or directories that hold ``*.json``.
        charter: the trusted charter.
        now: reference time, aware.

    Raises:
        DataError: a directory without any.
        ArchipelError: a file that is missing or not to be trusted.
    """
    found: dict[str, PublishedRequirements] = {}
    for given in paths:
        files = sorted(given.glob("*.json")) if given.is_dir() else [given]
        if not files:
            raise DataError(
                "nothing that a member published is in this directory",
                where=str(given),
                remedy="put what `archipel policy publish` wrote into it, as NAME.json",
            )
        for path in files:
            try:
                one = trust_requirements(read_limited(path), charter=charter, now=now, source=str(path))
            except ExpiredError:
                continue  # of a policy that is over: that silo has said nothing
            known = found.get(one.silo)
            if known is None or (known.policy_version, known.published) < (one.policy_version, one.published):
                found[one.silo] = one
    return found
