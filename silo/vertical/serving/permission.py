"""What a feature silo asks of itself before anything of a person of its is used for another silo's list."""

from __future__ import annotations

from policies.files import load_yaml
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import DeniedError
from silo.site import Site


class NotAnsweredError(DeniedError):
    """A label silo asked what this silo does not answer, or a person brought its ticket.

    Attributes:
        reason: why, for this silo's own people: ``policy``, ``job``, or ``held`` by a freeze or a pause.
    """

    code = "not_answered"

    def __init__(self, reason: str) -> None:
        super().__init__("this silo does not answer that", remedy="see serving in its policy.yaml")
        self.reason = reason


def policy_in_force(site: Site) -> SiloPolicy | None:
    """The policy to answer under; None while a freeze or a pause holds.

    Raises:
        ArchipelError: no policy is in force.
    """
    law = site.law()
    return None if law.hold is not None or site.is_paused else law.policy


def plan_served(site: Site, policy: SiloPolicy, *, label: str, job: str) -> Plan:
    """The plan of a finished job with this label silo, of a table that the policy still gives to its purpose.

    Whether the policy answers that silo for that purpose is the caller's question.

    Raises:
        NotAnsweredError: there is none.
    """
    plan = plan_still_allowed(site, policy, job)
    if plan.roles is None or plan.roles.label != label or site.name not in plan.roles.features:
        raise NotAnsweredError("job")
    return plan


def plan_still_allowed(site: Site, policy: SiloPolicy, job: str) -> Plan:
    """The plan of a finished job, if the policy still gives its purpose the table that the job read.

    Raises:
        NotAnsweredError: no such job, or the policy has withdrawn the purpose or names another table.
    """
    accepted = site.policy_of(job)
    if accepted is None or site.job_note(job).get("outcome") != "completed":
        raise NotAnsweredError("job")
    plan = load_yaml(site.directory / "jobs" / job / "plan.yaml", Plan)
    now_used, then_used = policy.dataset_for(plan.purpose), accepted.dataset_for(plan.purpose)
    if now_used is None or then_used is None or now_used[0] != then_used[0]:
        raise NotAnsweredError("policy")
    return plan
