"""The policy's section on serving: whose numbers may score a person, with whose consent.

What a training may learn is bounded by epsilon; a score for one person that depends on another silo's row of
them is not, and should be taken as disclosing it. So it is a permission of its own, and nothing by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field

from policies.sections import PartyName, Section, Slug, Whole

if TYPE_CHECKING:
    from policies.silo_policy import SiloPolicy

Mode = Literal["own_features_only", "consented_session", "dp_release", "user_side_merge"]

DP_RELEASE: Final = (
    "numbers of each person that are noised once and charged are what a plan of the family private-encoder "
    "releases: accepts.families allows it, its price stands in the plan, and lists are made from them under "
    "any mode; write own_features_only, consented_session or user_side_merge"
)


class Serving(Section):
    """Whose features may score a person.

    Attributes:
        mode: ``own_features_only``: each silo its own. ``consented_session``: also a feature silo's, which it
            tells the label silo for a person in session who brings its token. ``user_side_merge``: also a
            feature silo's, which it tells the person alone; their device adds it to the label silo's scores.
            ``dp_release`` is no mode of a policy but a family of plans; a policy with it is not signed.
        answers: at a feature silo: label silo -> purposes for which its lists may rest on a consenting
            person's numbers, told to it (``consented_session``) or to the person (``user_side_merge``).
        max_requests_per_hour: of one label silo, right or wrong; further ones are denied.
        token_minutes: how long a person's consent holds, and a ticket of theirs at the label silo.
    """

    mode: Mode = "own_features_only"
    answers: dict[PartyName, Annotated[tuple[Slug, ...], Field(min_length=1, max_length=100)]] = Field(
        default_factory=dict, max_length=64
    )
    max_requests_per_hour: Annotated[Whole, Field(ge=1, le=1_000_000)] = 3_600
    token_minutes: Annotated[Whole, Field(ge=1, le=60)] = 10

    @property
    def asks(self) -> bool:
        """Whether this silo takes tokens to other silos."""
        return self.mode == "consented_session"

    @property
    def merges(self) -> bool:
        """Whether this silo gives people its part of their list, to be merged on their own device."""
        return self.mode == "user_side_merge"

    @property
    def answers_anybody(self) -> bool:
        """Whether any silo is told a consenting person's numbers."""
        return self.asks and bool(self.answers)

    def answers_to(self, silo: str, purpose: str) -> bool:
        """Whether ``silo`` may be told a consenting person's numbers for ``purpose``."""
        return self.asks and purpose in self.answers.get(silo, ())

    def merges_with(self, silo: str, purpose: str) -> bool:
        """Whether a person may take their own numbers to a list of ``silo`` for ``purpose``."""
        return self.merges and purpose in self.answers.get(silo, ())

    def unenforced(self) -> Iterator[tuple[str, str]]:
        """A mode that nothing does, and why."""
        if self.mode == "dp_release":
            yield "serving.mode", DP_RELEASE


def serving_problems(policy: SiloPolicy) -> Iterator[str]:
    """What in ``policy.serving`` contradicts itself or the rest of the policy."""
    serving, accepts = policy.serving, policy.accepts
    if serving.answers and not (serving.asks or serving.merges):
        yield (
            f"serving.answers: {serving.mode} answers nobody; write mode: consented_session or "
            "user_side_merge, or remove it"
        )
    for silo, purposes in serving.answers.items():
        if silo not in accepts.with_members:
            yield f"serving.answers.{silo}: not in accepts.with_members; add it there, or remove it here"
        for purpose in purposes:
            if purpose not in accepts.purposes:
                yield (
                    f"serving.answers.{silo}: the purpose {purpose} is not in accepts.purposes; "
                    "add it there, or remove it here"
                )


def serving_warnings(policy: SiloPolicy) -> Iterator[str]:
    """What an administrator should look at twice."""
    for silo in policy.serving.answers:
        if policy.serving.asks:
            yield (
                f"serving.answers.{silo}: {silo} learns the numbers of each person who hands it a token; "
                "no epsilon bounds that, the person's consent is what allows it"
            )
        elif policy.serving.merges:
            yield (
                f"serving.answers.{silo}: each person who asks is given their own numbers; {silo} is told "
                "nothing, and whoever sees the list that the person makes learns something of their row"
            )


def serving_words(policy: SiloPolicy) -> Iterator[str]:
    """The section in plain words."""
    if policy.serving.asks:
        yield from _words_of_sessions(policy.serving)
    elif policy.serving.merges:
        yield from _words_of_merges(policy.serving)
    else:
        yield "Recommendations for a person are made from this silo's own data of that person."


def _words_of_sessions(serving: Serving) -> Iterator[str]:
    yield (
        "Recommendations for a person in session may use the numbers that a feature silo has of them, where "
        "the person brings that silo's own token."
    )
    for silo, purposes in serving.answers.items():
        yield (
            f"{silo} is told the numbers of a person who consented here and brought it the token, for "
            f"{', '.join(purposes)}. A token holds once, for {serving.token_minutes} minutes, for it alone."
        )
        yield "What it is told of that person no epsilon bounds: the consent allows it, not the budget."
    if not serving.answers:
        yield "No silo is told anything of this silo's people."


def _words_of_merges(serving: Serving) -> Iterator[str]:
    yield (
        "Recommendations for a person may use the numbers that a feature silo has of them, on the person's "
        "own device: each silo gives the person its part, sealed, and no silo sees another's."
    )
    for silo, purposes in serving.answers.items():
        yield (
            f"A person who is logged in here may take their own numbers to a list of {silo}, for "
            f"{', '.join(purposes)}, once for each ticket of {silo}. {silo} is told nothing."
        )
    if not serving.answers:
        yield "Nobody is given numbers that this silo has of them."
