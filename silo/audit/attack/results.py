"""What an attack tried and came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from privacy.errors import FindingError
from silo.audit.findings import PAGE, Finding, finding

Report = Callable[[str], None]
"""Told what is being done now."""


class Trial(BaseModel):
    """One thing an adversary tried.

    Attributes:
        attack: its name.
        tried: by whom, with what.
        came_to: in figures or words.
        epsilon_lower_bound: with confidence 99.9 %, where the trial gives one.
        claimed_epsilon: at the same delta.
        delta: of both.
        stands: whether what is claimed stands.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attack: str
    tried: str
    came_to: str
    epsilon_lower_bound: float | None = None
    claimed_epsilon: float | None = None
    delta: float | None = None
    stands: bool


@dataclass
class Attacked:
    """Trials of one attack, and what they found."""

    name: str
    trials: list[Trial] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def add(self, tried: str, came_to: str, *, stands: bool = True) -> None:
        """Note a trial without a bound."""
        self.trials.append(Trial(attack=self.name, tried=tried, came_to=came_to, stands=stands))

    def check(self, tried: str, came_to: str, *, code: str, where: str, found: str | None) -> None:
        """Note a trial; ``found`` says in one sentence what is wrong, or is None."""
        self.add(tried, came_to, stands=found is None)
        if found is not None:
            self.findings.append(finding(code, where, found))


class AttackReport(BaseModel):
    """What ``archipel audit attack`` says.

    Attributes:
        job: whose recording.
        plan_sha256: digest of its plan.
        family: what was trained.
        unit: whose privacy is claimed, and by which relation.
        claimed_epsilon: by the plan's own filter, everything reserved.
        delta: of the claim.
        confidence: of every bound and test.
        colluders: silos that helped the coordinator.
        trials: in the order they were made.
        findings: where a claim does not stand, worst first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    plan_sha256: str
    family: str
    unit: str
    claimed_epsilon: float
    delta: float
    confidence: float
    colluders: tuple[str, ...]
    trials: tuple[Trial, ...]
    findings: tuple[Finding, ...]

    def accepted(self) -> AttackReport:
        """Return this report if no attack succeeded.

        Raises:
            FindingError: at least one did.
        """
        if self.findings:
            codes = ", ".join(dict.fromkeys(item.code for item in self.findings))
            raise FindingError(
                f"attacks succeeded: {codes}",
                where=f"job {self.job[:12]}",
                remedy=f"{PAGE} says what each means and what to do",
            )
        return self
