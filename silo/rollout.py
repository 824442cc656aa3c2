"""A newly signed policy, or a freeze, is taken up while the agent runs.

Jobs that were accepted keep the policy they were accepted under. What is refused is said once, in the log
and in ``silo status``, and changes nothing.
"""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path

import structlog

from federation.amendments import file_stamp
from policies.files import signature_path
from policies.freezing import FREEZE_FILE
from privacy.errors import ArchipelError
from silo.law import Law
from silo.site import Site

log = structlog.get_logger("silo")

CHECK_SECONDS = 5.0

Stamp = tuple[object, ...]


class PolicyWatch:
    """Looks at the policy's files and says what became of them.

    Args:
        site: the silo's.
    """

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stamp: Stamp = ()
        self._said: tuple[object, ...] = ()

    async def run(self) -> None:
        """Look every :data:`CHECK_SECONDS` until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(CHECK_SECONDS)

    def look(self) -> None:
        """Take up what changed since the last look; the accounts get the newer policy's terms at once."""
        stamp = _stamp(self._site.directory, self._site.now().date())
        if stamp == self._stamp:
            return
        try:
            law = self._site.law()
            self._site.ledger_state(law.policy)
        except (ArchipelError, OSError) as error:
            self._say_none(error)
            return
        self._stamp = stamp
        self._say(law)

    def _say(self, law: Law) -> None:
        said = (law.policy.version, str(law.refused), law.hold and law.hold.why)
        if said == self._said:
            return
        self._said = said
        log.info("policy_in_force", policy_version=law.policy.version)
        if law.refused is not None:
            log.error(
                "policy_refused", code=law.refused.code, what=law.refused.message, remedy=law.refused.remedy
            )
        if law.hold is not None:
            log.warning("frozen", what=law.hold.why, remedy=law.hold.remedy)

    def _say_none(self, error: Exception) -> None:
        said = ("none", str(error))
        if said != self._said:
            self._said = said
            log.error("no_policy_in_force", code=getattr(error, "code", "host"), what=str(error))


def _stamp(directory: Path, today: date) -> Stamp:
    """What changes when a file of the policy is replaced, or another day begins."""
    policy, freeze = directory / "policy.yaml", directory / FREEZE_FILE
    files = (policy, signature_path(policy), freeze, signature_path(freeze))
    return (today, *map(file_stamp, files))
