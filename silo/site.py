"""One silo's directory, opened: its keys, charter, policy, ledger, outbox and jobs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from federation.identity import Party
from policies.canonical import canonical_bytes, digest
from policies.charters.charter import Charter
from policies.decisions.decision import Authorization, reauthorize
from policies.decisions.history import count_alignments, read_rosters
from policies.decisions.vertical_reasons import ALIGNMENT_DAYS
from policies.files import load_charters, save_yaml, write_atomically
from policies.freezing import FREEZE_FILE
from policies.plans.plan import Plan
from policies.signing import PublicKey
from policies.silo_policy import Dataset, SiloPolicy
from privacy.errors import ArchipelError, DataError, ProtocolError, TrustError, UsageError
from privacy.ledger.ledger import Ledger, LedgerState
from silo.law import Law, law_of
from silo.outbox import Outbox


class RecordLostError(ProtocolError):
    """The board shows a post of this silo that its own records do not have: an older disk was restored."""

    code = "record_lost"


class JobRecordLostError(RecordLostError):
    """What the whole job rests on is gone, so no further attempt can help: the job ends."""

    code = "job_record_lost"


class LedgerLostError(TrustError):
    """A silo that has taken part in jobs has no ledger any more."""

    code = "ledger_lost"


class NotJoinedError(DataError):
    """The silo has no charter or no signed policy yet."""

    code = "not_joined"


def utc_now() -> datetime:
    """The current time, aware, UTC."""
    return datetime.now(UTC)


class Site:
    """Everything that belongs to one silo on this machine.

    Args:
        directory: as ``silo init`` made it and ``silo join`` completed it.
        clock: current time; tests pass their own.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self.directory = directory
        self.now = clock
        self.party = Party.load(directory)
        if self.party.role != "silo":
            raise UsageError(
                f"{self.party.name} is a coordinator", where=str(directory), remedy="name a silo's --dir"
            )
        self.charters = _joined_charters(directory, clock())
        self.charter = self.charters[-1]
        _refuse_lost_ledger(directory)
        identity = self.party.identity
        self.ledger = Ledger.open(
            directory / "ledger.db", sign=identity.sign_raw, key_id=identity.key_id, clock=clock
        )
        self.outbox = Outbox(directory)
        self._rosters: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close ledger and outbox."""
        self.ledger.close()
        self.outbox.close()

    @property
    def name(self) -> str:
        """The silo's name in the charter."""
        return self.party.name

    @property
    def is_rekeyed(self) -> bool:
        """Whether the latest amendment gave this silo another TLS certificate: not all may know it yet."""
        known = [charter.member(self.name) for charter in self.charters[-2:]]
        return len({member.certificate_sha256 for member in known if member is not None}) > 1

    @property
    def is_paused(self) -> bool:
        """Whether ``silo pause`` asked for no new work."""
        return (self.directory / "paused").exists()

    def identity_of(self, name: str) -> PublicKey:
        """The identity key of a party of the charter, or of one that it amends: its posts stay readable.

        New jobs with a party that has left are refused by the plan's roster, not here.

        Raises:
            TrustError: no such party.
        """
        for charter in reversed(self.charters):
            for party in charter.parties():
                if party.name == name:
                    return party.identity_key
        raise TrustError(f"{name} is not in the charter", remedy="only the charter's parties are listened to")

    def law(self) -> Law:
        """The policy in force, why ``policy.yaml`` is not it, and what holds new jobs (:mod:`silo.law`).

        The ledger notes the charter that it is judged by, and a freeze, before anything rests on them.

        Raises:
            StaleCharterError: the ledger is kept under a newer charter than this one.
            ArchipelError: no policy is in force; what is wrong with ``policy.yaml``.
        """
        self.ledger.adopt_charter(digest(self.charter), self.charter.version)
        law = law_of(
            self.directory, charter=self.charter, silo=self.name, ledger=self.ledger.state(), now=self.now()
        )
        if law.hold is not None and law.hold.freeze is not None:
            freeze = law.hold.freeze
            self.ledger.freeze(freeze.policy_version, digest(freeze), freeze.frozen_at)
        return law

    def trusted_policy(self) -> SiloPolicy:
        """The signed policy in force; never an older one than was trusted before. It is kept for auditors.

        Raises:
            TrustError: none is: unsigned, expired, rolled back, or another silo's.
        """
        return self.law().policy

    def stops(self, job: str) -> bool:
        """Whether a freeze cancels a job that this silo takes part in."""
        if not any((self.directory / path).exists() for path in (FREEZE_FILE, f"policies/{FREEZE_FILE}")):
            return False
        try:
            hold = self.law().hold
        except ArchipelError:
            return False  # without a policy in force there are no new jobs, and running ones keep theirs
        return hold is not None and hold.stops_jobs and self.policy_of(job) is not None

    def ledger_state(self, policy: SiloPolicy) -> LedgerState:
        """Accounts as they stand, under ``policy``'s budgets.

        Raises:
            StalePolicyError, FilterChangedError: the ledger knows better.
        """
        for population, budget in policy.budgets.items():
            self.ledger.open_account(population, budget.to_budget(), digest(policy), policy.version)
        return self.ledger.state()

    def rosters(self, policy: SiloPolicy, state: LedgerState) -> dict[str, tuple[str, ...]]:
        """The silos of every job of the ledger, where ``policy`` caps what jobs with a partner may spend."""
        if not any(budget.max_epsilon_with for budget in policy.budgets.values()):
            return {}
        unknown = {job: status for job, status in state.jobs.items() if job not in self._rosters}
        self._rosters |= read_rosters(self.directory, unknown)
        return self._rosters

    def recent_alignments(self, plan: Plan) -> int:
        """For how many alignments the ledger has lately reserved, where ``plan`` asks for one more."""
        if not plan.is_vertical:
            return 0
        return count_alignments(self.directory / "ledger.db", self.now() - timedelta(days=ALIGNMENT_DAYS))

    def policy_of(self, job: str) -> SiloPolicy | None:
        """The policy that a job was answered under; it stays that job's law whatever is signed later."""
        path = self._job_path(job, "policy.json")
        return SiloPolicy.model_validate_json(path.read_bytes()) if path.exists() else None

    def remember_job(self, job: str, plan: Plan, policy: SiloPolicy) -> None:
        """Fix plan and policy a job is answered under."""
        save_yaml(self._job_path(job, "plan.yaml"), plan)
        write_atomically(self._job_path(job, "policy.json"), canonical_bytes(policy))

    def authorization_for(self, job: str, plan: Plan) -> Authorization:
        """What this silo decided about a job it has reserved for.

        Raises:
            JobRecordLostError: there is no reservation or no policy of this job.
        """
        policy, reserved = self.policy_of(job), self.ledger.state().jobs.get(job)
        if policy is None or reserved is None:
            raise JobRecordLostError("this silo has no record of having authorised the job")
        return reauthorize(plan, policy, reserved)

    def dataset(self, job: str, authorization: Authorization) -> Dataset:
        """The table that the job may use."""
        policy = self.policy_of(job)
        if policy is None:
            raise JobRecordLostError("this silo has no record of the job's policy")
        return policy.datasets[authorization.dataset]

    def remember_denial(self, job: str, plan: Plan, reasons: list[dict[str, Any]]) -> None:
        """Keep a refused plan and the reasons, values included, for this silo's own people."""
        save_yaml(self._job_path(job, "plan.yaml"), plan)
        write_atomically(self._job_path(job, "denial.json"), json.dumps(reasons, indent=2).encode())

    def remember_remarks(self, job: str, remarks: tuple[str, ...]) -> None:
        """Keep what cleaning did to the rows of a job, for this silo's own people; the same once."""
        if list(remarks) == self.remarks(job):
            return
        write_atomically(self._job_path(job, "rows.json"), json.dumps(remarks, indent=2).encode())

    def remarks(self, job: str) -> list[str]:
        """What cleaning did to the rows of a job; empty before its first contribution."""
        path = self._job_path(job, "rows.json")
        return list(json.loads(path.read_bytes())) if path.exists() else []

    def remember_repair(self, job: str, what: str) -> None:
        """Keep that something of a job was damaged here and what became of it, for this silo's own people."""
        write_atomically(
            self._job_path(job, "repairs.json"), json.dumps([*self.repairs(job), what], indent=2).encode()
        )

    def repairs(self, job: str) -> list[str]:
        """What was damaged here during a job; empty if nothing."""
        path = self._job_path(job, "repairs.json")
        return list(json.loads(path.read_bytes())) if path.exists() else []

    def job_note(self, job: str) -> dict[str, Any]:
        """What the agent last noted about a job; empty if nothing, or if the power went while it wrote."""
        return _note_in(self._job_path(job, "state.json"))

    def job_notes(self) -> list[dict[str, Any]]:
        """Notes about all jobs, oldest first."""
        return job_notes(self.directory)

    def _job_path(self, job: str, name: str) -> Path:
        return self.directory / "jobs" / job / name


def job_notes(directory: Path) -> list[dict[str, Any]]:
    """Notes of an agent about all jobs, oldest first; only read."""
    paths = sorted((directory / "jobs").glob("*/state.json"), key=lambda path: path.stat().st_ctime)
    return [note for note in map(_note_in, paths) if note]


def _note_in(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def _refuse_lost_ledger(directory: Path) -> None:
    """A silo that has worked has a ledger: a new one would begin with an untouched budget."""
    has_worked = any((directory / "jobs").glob("*")) or (directory / "outbox" / "outbox.db").exists()
    if has_worked and not (directory / "ledger.db").exists():
        raise LedgerLostError(
            "ledger.db is gone, and with it what has been spent",
            where=str(directory),
            remedy="restore the newest backup of ledger.db; peers hold receipts of its head",
        )


def _joined_charters(directory: Path, now: datetime) -> tuple[Charter, ...]:
    if not (directory / "charter.yaml").exists():
        raise NotJoinedError(
            "this silo has not joined a federation yet",
            where=str(directory),
            remedy="archipel silo join charter.yaml --dir " + str(directory),
        )
    return load_charters(directory / "charter.yaml", now)
