"""What a feature silo's own login page calls once a person has agreed: a token for them to take along.

::

    from silo.vertical.serving.issuing import issue_consent

    issued = issue_consent(Path("/srv/archipel"), person.id, audience="shop-a", purpose="recommendation")
    return redirect(shop_url, token=issued.token)

The page has asked the person, in its own words, whether *that* silo may be told what this one knows of them
for *that* purpose. Nothing here can know whether it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from privacy.errors import DeniedError
from silo.site import Site
from silo.vertical.serving.consent import CONSENT_FILE, ConsentBook, limits_of


class ConsentNotOfferedError(DeniedError):
    """This silo's policy answers no such question, so a token for it would be worth nothing."""

    code = "consent_not_offered"


@dataclass(frozen=True)
class IssuedConsent:
    """A token, as it is shown to the person once.

    Attributes:
        token: the word itself; only its hash is kept here.
        issuer: this silo, which a label silo must ask.
        audience: the label silo that may bring it.
        purpose: of the plan whose model it is for.
        expires: aware, UTC.
    """

    token: str
    issuer: str
    audience: str
    purpose: str
    expires: datetime


def issue_consent(directory: Path, user_id: str, *, audience: str, purpose: str) -> IssuedConsent:
    """Return a token for a person who is logged in here and has agreed.

    Args:
        directory: this silo's.
        user_id: whose row may be used, as in this silo's own data; who has no row stands for zeros.
        audience: the label silo that may bring the token.
        purpose: of the plan whose model it is for.

    Raises:
        ConsentNotOfferedError: the policy in force does not answer that silo for that purpose.
        ArchipelError: no policy is in force.
    """
    with Site(directory) as site:
        now, law, name = site.now(), site.law(), site.name
    policy = law.policy
    if law.hold is not None or not policy.serving.answers_to(audience, purpose):
        raise ConsentNotOfferedError(
            "this silo's policy is frozen" if law.hold else f"{audience} is not answered for {purpose}",
            where="serving.answers",
            remedy="write that silo and purpose into serving.answers, and sign the policy",
        )
    with ConsentBook(directory / CONSENT_FILE, limits_of(policy)) as book:
        token = book.issue(user_id, audience=audience, purpose=purpose, now=now)
    return IssuedConsent(
        token, name, audience, purpose, now + timedelta(minutes=policy.serving.token_minutes)
    )
