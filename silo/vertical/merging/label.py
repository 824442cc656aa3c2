"""The label silo's side: a person's scores, with each partner's term under masks, sealed to their device.

::

    from silo.vertical.merging.label import start_merge

    async with LabelDesk(Path("/srv/archipel"), job) as desk:
        started = start_merge(desk, customer.id, device)

Nothing is sent anywhere and nothing comes back: this silo does not learn whether the person goes on.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from policies.silo_policy import SiloPolicy
from privacy.devices import DeviceAddress
from privacy.merging import MergeMasks, key_of_merge
from silo.law import Law
from silo.release import release_label_part, release_ticket
from silo.site import Site
from silo.vertical.merging.documents import LabelPart, MaskedTerm, MergeTicket
from silo.vertical.merging.first import FIRST_FILE, FirstAnswers
from silo.vertical.merging.keys import load_merge_keys
from silo.vertical.serving.asking import ServingDeniedError
from silo.vertical.serving.desk import LabelDesk
from silo.vertical.serving.permission import NotAnsweredError, plan_still_allowed

_NONCE_BYTES = 32


@dataclass(frozen=True)
class StartedMerge:
    """What the person takes along.

    Attributes:
        ticket: for the feature silos; it names nobody.
        part: bytes of the label silo's part, for the device.
    """

    ticket: MergeTicket
    part: bytes


def start_merge(desk: LabelDesk, user_id: str, device: DeviceAddress) -> StartedMerge:
    """Give a person who is logged in here the label silo's part of their list, and a ticket.

    Args:
        desk: of the job.
        user_id: as in this silo's own data; in neither the ticket nor the part. For one job the scores are
            of the history of the first time; what the person has had since is marked as had.
        device: the key that the person's device made.

    Raises:
        ServingDeniedError: this silo's policy does not let it, or it is paused or its policy frozen; or the
            job ranks fewer items than its catalogue has.
        MergeKeyError: the job left no keys to merge with.
    """
    keys = load_merge_keys(desk.directory / "jobs" / desk.job)
    with Site(desk.directory) as site:
        law, now, identity, name = site.law(), site.now(), site.party.identity, site.name
        _require_permission(site, law, desk.job)
    _require_all_items(desk)
    ends = now + timedelta(minutes=law.policy.serving.token_minutes)
    ticket = release_ticket(
        MergeTicket(
            job=desk.job, label=name, device=str(device), nonce=secrets.token_hex(_NONCE_BYTES),
            expires=int(ends.timestamp()),
        ),
        identity,
    )  # fmt: skip
    return StartedMerge(ticket, release_label_part(_part_of(desk, user_id, ticket, keys), identity))


def require_merging(policy: SiloPolicy) -> None:
    """Accept that this silo gives people their part of a list.

    Raises:
        ServingDeniedError: its policy does not.
    """
    if not policy.serving.merges:
        raise ServingDeniedError(
            f"this silo's policy serves with {policy.serving.mode}: no list is merged on a person's device",
            where="serving.mode",
            remedy="sign a policy with serving: {mode: user_side_merge}",
        )


def _require_permission(site: Site, law: Law, job: str) -> None:
    """Accept that this silo makes lists of a job's model now.

    Raises:
        ServingDeniedError: it does not.
    """
    require_merging(law.policy)
    if law.hold is not None:
        raise ServingDeniedError(law.hold.why, where="policy.yaml", remedy=law.hold.remedy)
    if site.is_paused:
        raise ServingDeniedError("this silo is paused", remedy="`archipel silo resume`")
    try:
        plan_still_allowed(site, law.policy, job)
    except NotAnsweredError as error:
        why, where, remedy = _NOT_ALLOWED[error.reason]
        raise ServingDeniedError(why, where=where, remedy=remedy) from error


_NOT_ALLOWED = {
    "job": ("this job has not ended as planned", "--job", "name another; see `archipel silo status`"),
    "policy": (
        "this silo's policy no longer gives the job's purpose the table that it read",
        "accepts.purposes",
        "sign a policy that does, or run the job anew",
    ),
}


def _require_all_items(desk: LabelDesk) -> None:
    """Accept a model of the whole catalogue: which items are the most frequent depends on people, exactly.

    Raises:
        ServingDeniedError: it ranks some items only, and a part would say which.
    """
    ranked, all_items = desk.model.items.size, len(desk.catalogue)
    if ranked < all_items:
        raise ServingDeniedError(
            f"the job ranks this silo's {ranked:,} most frequent of {all_items:,} items: "
            "a part for a device would tell which they are, without noise",
            where="model.label_items",
            remedy="run a plan whose label_items covers its catalogue",
        )


def _part_of(desk: LabelDesk, user_id: str, ticket: MergeTicket, keys: dict[str, bytes]) -> LabelPart:
    model, items = desk.model, desk.catalogue.items
    known = desk.known()
    seen = known.seen.of(user_id)
    own, terms = model.terms(_first_history(desk, user_id, known.liked.of(user_id)))
    partners = {}
    for silo, (loadings, offset) in terms.items():
        key = key_of_merge(keys[silo], ticket.digest)
        masks = MergeMasks.draw(key, *loadings.shape)
        partners[silo] = MaskedTerm.of(masks.mask(loadings, offset))
    return LabelPart(
        ticket=ticket,
        item_ids=[items[item].item_id for item in model.items],
        titles=[items[item].title for item in model.items],
        seen=np.flatnonzero(np.isin(model.items, seen)).tolist(),
        own=(own + 0.0).astype("<f8").tobytes(),  # no zero has a sign, which would tell of sums
        partners=partners,
    )


def _first_history(desk: LabelDesk, user_id: str, liked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The history of a person's first list of the job: each history would read other sums, exactly."""
    with FirstAnswers(desk.directory / "jobs" / desk.job / FIRST_FILE) as answers:
        kept = answers.first(user_id, liked.astype("<i8").tobytes())
    return np.frombuffer(kept, dtype="<i8").astype(np.int64)
