"""One thing that stands against a plan, for the silo's own people and, in part, for others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """One thing that stands against a plan.

    Attributes:
        code: stable word; may leave the silo.
        field: of the plan, the policy or the charter; may leave the silo.
        found: what is there now; stays here.
        allowed: what would pass; stays here.
        remedy: what a person can do.
    """

    code: str
    field: str
    found: str
    allowed: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.field}: {self.found}, allowed is {self.allowed} ({self.remedy})"
