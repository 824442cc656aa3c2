"""What the legs of a vertical job carry: one writer and reader for each purpose.

The protocol moves files; what is in them is made and understood by a :class:`LegContent`, found by purpose in
:mod:`silo.vertical.contents`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from federation.legs.legs import Leg
from privacy.errors import TrustError
from silo.jobs.context import JobContext


class LegContentError(TrustError):
    """A peer signed and sent something else than its leg carries; the job ends."""

    code = "leg_content"


class LegContent(Protocol):
    """Makes what a silo sends in legs of one purpose, and understands what it receives in them.

    Guarantees asked of it
        * Both may be called again after a crash, until their leg is over; what :meth:`write` drew once and
          may not draw anew it keeps in the outbox.
        * What has a price (:func:`~federation.legs.legs.price_of`) is charged before :meth:`write` is called;
          the noise it draws is exactly that event's.
        * After :meth:`read` returned, the received files are gone: what is needed later is durable elsewhere.
    """

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        """Write what this silo sends, unsealed, into ``target``."""
        ...

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        """Take in what this silo received, unsealed, by sender; slots stand by this silo's own name.

        Raises:
            LegContentError: a sender's bytes are not what the leg carries.
        """
        ...

    async def conclude(self, context: JobContext) -> None:
        """Make what the job leaves here, once every leg is over; only asked of the moments' content."""
        ...
