"""A feature silo's side: a person's own numbers, and what takes the masks off, sealed to their device.

What a silo's own login page calls once a person has agreed::

    from silo.vertical.merging.feature import give_part

    sealed = give_part(Path("/srv/archipel"), person.id, ticket, device)

The device's key comes from the device, not from who made the ticket: a ticket for another key is refused, for
whoever put it there would read the person's numbers.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np

from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.devices import DeviceAddress
from privacy.errors import DeniedError
from privacy.merging import MergeMasks, Vector, key_of_merge
from silo.release import release_feature_part
from silo.site import Site
from silo.vertical.merging.documents import FeaturePart, MergeTicket, MergeTrustError
from silo.vertical.merging.first import FIRST_FILE, FirstAnswers
from silo.vertical.merging.keys import load_merge_keys
from silo.vertical.moments.files import cross_moments
from silo.vertical.projection import ProjectTask, project
from silo.vertical.serving.consent import CONSENT_FILE, ConsentBook, ConsentError, limits_of
from silo.vertical.serving.permission import NotAnsweredError, plan_served, policy_in_force


class MergeDeniedError(DeniedError):
    """This silo gives a person no part for a ticket.

    Attributes:
        reason: ``policy``, ``job``, ``held`` by a freeze or a pause, or ``redeemed``.
    """

    code = "merge_denied"

    def __init__(self, reason: str, label: str) -> None:
        why, remedy = _WHY[reason]
        super().__init__(why.format(label=label), where="--ticket", remedy=remedy.format(label=label))
        self.reason = reason


_WHY = {
    "policy": (
        "this silo's policy does not let a person take their numbers to a list of {label}",
        "sign a policy with serving: {{mode: user_side_merge, answers: {{{label}: [purpose of the plan]}}}}",
    ),
    "job": ("no finished job of {label}'s with this silo is meant", "see `archipel silo status`"),
    "held": ("this silo is paused, or its policy frozen", "wait, or `archipel silo resume`"),
    "redeemed": ("this ticket was used here before", "begin again at {label}: `archipel merge start`"),
}


def give_part(directory: Path, user_id: str, ticket: MergeTicket, device: DeviceAddress) -> bytes:
    """Give a person who is logged in here, and has agreed, their own numbers for one list.

    Args:
        directory: this silo's.
        user_id: whose row, as in this silo's own data; who has no row stands for zeros. For one job the
            numbers are those of the first time, whatever the row says by now.
        ticket: as the person brought it.
        device: the key that the person's device made, as it said itself.

    Returns:
        Bytes that open on that device alone.

    Raises:
        MergeDeniedError: not under this policy, not for this job, or not a second time.
        MergeTrustError: the ticket is for another device, over, or not signed by its silo.
    """
    with Site(directory) as site:
        now, name, identity = site.now(), site.name, site.party.identity
        _check_ticket(site, ticket, device, now)
        policy = policy_in_force(site)
        with ConsentBook(directory / CONSENT_FILE, limits_of(policy)) as book:
            outcome = "failed"
            try:
                plan = _plan_of(site, policy, ticket)
                keys = load_merge_keys(directory / "jobs" / ticket.job)
                admission = book.admit(ticket.digest, user_id, ends=ticket.ends, now=now)
                outcome = "merged"
            except (ConsentError, NotAnsweredError) as error:
                outcome = error.reason
                raise MergeDeniedError(error.reason, ticket.label) from error
            finally:
                book.count(ticket.label, outcome, now)
    numbers = _first_numbers(directory, ticket.job, admission.user_id)
    key = key_of_merge(keys[ticket.label], ticket.digest)
    given = MergeMasks.draw(key, num_ranked(plan), numbers.size).unmask(numbers)
    return release_feature_part(FeaturePart.of(name, ticket, given), admission, device, identity)


def _first_numbers(directory: Path, job: str, user_id: str) -> Vector:
    """The numbers of a person's first list of the job: other numbers for each list would give the model away.

    Zeros for who has no row now, and then for the rest of the job.
    """
    numbers = np.array(project(ProjectTask(directory, job, user_id)))
    fresh = numbers.astype("<f8").tobytes() if numbers.any() else b""
    with FirstAnswers(directory / "jobs" / job / FIRST_FILE) as answers:
        kept = answers.first(user_id, fresh)
    return np.frombuffer(kept, dtype="<f8").astype(np.float64) if kept else np.zeros(numbers.size)


def num_ranked(plan: Plan) -> int:
    """Items that a plan's joint model ranks: for so many both silos draw masks."""
    return min(plan.catalogue.items, cross_moments(plan).label_items)


def _check_ticket(site: Site, ticket: MergeTicket, device: DeviceAddress, now: datetime) -> None:
    """Accept a ticket of a member's, for this device, now.

    Raises:
        MergeTrustError: it is none.
    """
    if ticket.device != str(device):
        raise MergeTrustError(
            f"this ticket of {ticket.label} is for another device than the person's",
            where="--device",
            remedy="give nothing; whoever put that key in would read the person's numbers",
        )
    member = site.charter.member(ticket.label)
    if member is None:
        raise MergeTrustError(f"{ticket.label} is no member", where="--ticket", remedy="give nothing")
    ticket.verify(ticket.label, member.identity_key)
    ticket.require_current(now)


def _plan_of(site: Site, policy: SiloPolicy | None, ticket: MergeTicket) -> Plan:
    """The job's plan, if the policy in force lets people take their numbers to its lists.

    Raises:
        NotAnsweredError: it does not.
    """
    if policy is None:
        raise NotAnsweredError("held")
    plan = plan_served(site, policy, label=ticket.label, job=ticket.job)
    if not policy.serving.merges_with(ticket.label, plan.purpose):
        raise NotAnsweredError("policy")
    return plan
