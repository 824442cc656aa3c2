"""All attacks on one recording, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from silo.audit.attack import canary, collusion, keys, membership, tampering
from silo.audit.attack.claims import CONFIDENCE
from silo.audit.attack.recording import Recording
from silo.audit.attack.results import Attacked, AttackReport, Report
from silo.audit.findings import worst_first

ATTACKS: Mapping[str, Callable[[Recording, Report], Attacked]] = {
    "canaries": canary.attack,
    "membership": membership.attack,
    "collusion": collusion.attack,
    "tampering": tampering.attack,
    "keys": keys.attack,
}
"""By the word that ``--only`` takes, in the order they run."""


def attack(directory: Path, report: Report, only: tuple[str, ...] = ()) -> AttackReport:
    """Attack a recording, which is only read.

    Args:
        directory: the recording's.
        report: told what is being done.
        only: words of :data:`ATTACKS`; none = all.

    Raises:
        RecordingError: it is incomplete, or no recording.
    """
    from threadpoolctl import threadpool_limits

    recording = Recording(directory)
    with threadpool_limits(1):  # one person's arithmetic is small: threads that wait for it only cost
        done = [run(recording, report) for word, run in ATTACKS.items() if not only or word in only]
    privacy = recording.plan.privacy
    silos = privacy.max_silos_per_user
    scope = "over all silos" if silos > 1 else "per silo"
    return AttackReport(
        job=recording.manifest.job,
        plan_sha256=recording.state.plan_sha256,
        family=recording.plan.model.family,
        unit=f"one person's whole history, {scope}; add or remove one",
        claimed_epsilon=recording.claimed_epsilon,
        delta=privacy.target_delta,
        confidence=CONFIDENCE,
        colluders=recording.manifest.colluders,
        trials=tuple(trial for attacked in done for trial in attacked.trials),
        findings=worst_first(item for attacked in done for item in attacked.findings),
    )
