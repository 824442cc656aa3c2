"""Epsilon recomputed from the exported record alone, and compared with what the ledger's filter claims.

The record: every ``committed`` entry with its event, and the plan and model card kept with a job. The claim
of an account or job is what the account's filter makes of the same events, and what plan and card promise.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from pydantic import BaseModel, ConfigDict

from policies.plans.summary import counted
from privacy.accounting import Spending
from privacy.errors import DeniedError, FindingError
from privacy.events import EventCount
from privacy.ledger.fold import Fold
from privacy.ledger.records import COMMITTED, RECORDS, UnknownRecordError, event_of
from silo.audit.accountant import SecondAccountant, SecondOpinion
from silo.audit.evidence import Evidence
from silo.audit.findings import PAGE, Finding, finding
from silo.audit.jobs import plan_of

TOLERANCE = 1e-3
"""By how much a claim may lie below the second opinion: this much, and this share of it."""


class Replayed(BaseModel):
    """One account or job, by two accountants.

    Attributes:
        kind: ``account`` or ``job``.
        name: which.
        releases: charged contributions.
        delta: at which epsilon is told.
        claimed: epsilon by the ledger's filter; None where it has no bound.
        pld: epsilon by privacy loss distributions; None where there is no bound.
        rdp: epsilon by Rényi divergences; None where that accountant has no bound.
        promised: the largest budget the account ever had, or the plan's target; None where it was not kept.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    name: str
    releases: int
    delta: float
    claimed: float | None
    pld: float | None
    rdp: float | None
    promised: float | None


class Replay(BaseModel):
    """What ``archipel audit replay`` says.

    Attributes:
        unit: what epsilon protects.
        neighboring_relation: against which change.
        tolerance: by how much a claim may lie below the second opinion.
        rows: accounts, then jobs.
        findings: claims and promises below the second opinion.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unit: str = "user"
    neighboring_relation: str = "add_or_remove_one"
    tolerance: float = TOLERANCE
    rows: tuple[Replayed, ...]
    findings: tuple[Finding, ...]

    def accepted(self) -> Replay:
        """Return this replay if nothing was found.

        Raises:
            FindingError: a claim or promise lies below the second opinion.
        """
        if self.findings:
            codes = ", ".join(dict.fromkeys(item.code for item in self.findings))
            raise FindingError(
                f"{counted(len(self.findings), 'finding')}: {codes}",
                where="replay",
                remedy=f"{PAGE} says what each means and what to do",
            )
        return self


def replay(evidence: Evidence, *, advance: Callable[[int, int], None] | None = None) -> Replay:
    """Recompute every account and job with the second accountant.

    Args:
        evidence: the record.
        advance: told after each of them how many are done, of how many.

    Raises:
        UnknownEventError, UnknownRecordError: something the record says is not known, so nothing is claimed.
        LogCorruptError: the entries cannot be read in full.
    """
    fold = Fold()
    by_account: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    by_job: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    with evidence.open_ledger() as ledger:
        for entry in ledger.entries():
            if entry.kind not in RECORDS:
                raise UnknownRecordError(
                    f"kind {entry.kind!r} is unknown",
                    where=f"{evidence.ledger} entry {entry.seq}",
                    remedy="replay with a version of archipel that knows it; entries are never skipped",
                )
            for _ in fold.apply(entry):
                pass  # what is wrong with an entry is for verify to say; what it spent counts all the same
            if entry.kind == COMMITTED:
                event = json.dumps(entry.payload.get("event"), sort_keys=True)
                by_account[str(entry.payload.get("account"))][event] += 1
                by_job[str(entry.payload.get("job"))][event] += 1
    worker = _Replayer(evidence, fold, advance, len(by_account) + len(by_job))
    for name in fold.state().accounts:
        by_account.setdefault(name, {})
    rows = [worker.account(name, by_account[name]) for name in sorted(by_account)]
    rows += [worker.job(name, by_job[name]) for name in sorted(by_job)]
    return Replay(rows=tuple(rows), findings=tuple(worker.findings))


class _Replayer:
    def __init__(
        self, evidence: Evidence, fold: Fold, advance: Callable[[int, int], None] | None, total: int
    ) -> None:
        self.findings: list[Finding] = []
        self._evidence = evidence
        self._fold = fold
        self._state = fold.state()
        self._second = SecondAccountant()
        self._advance = advance
        self._total = total
        self._done = 0

    def account(self, name: str, events: Mapping[str, int]) -> Replayed:
        status = self._state.accounts.get(name)
        if status is None:
            raise UnknownRecordError(f"account {name} was charged and never opened", where=name)
        largest = max(item.terms.budget.epsilon for item in self._fold.terms if item.terms.account == name)
        claimed = _claim(lambda: self._fold.spent(name).epsilon(status.budget.delta))
        found = self._second.opinion(events, status.budget.delta)
        where = f"{self._evidence.ledger} account {name}"
        self._understated(where, claimed, found, "the ledger's filter says")
        self._exceeded(where, largest, found, "the largest budget it ever had is")
        return self._row("account", name, events, status.budget.delta, claimed, found, largest)

    def job(self, name: str, events: Mapping[str, int]) -> Replayed:
        job = self._state.jobs.get(name)
        if job is None:
            raise UnknownRecordError(f"job {name} was charged and never reserved", where=name)
        budget = self._state.accounts[job.account].budget
        plan = plan_of(self._evidence, name, job.plan_sha256)
        delta = plan.privacy.target_delta if plan is not None else budget.delta
        counts = (EventCount(event_of(text), count) for text, count in events.items())
        claimed = _claim(lambda: Spending.of(counts, budget.filter).epsilon(delta))
        found = self._second.opinion(events, delta)
        where = f"{self._evidence.ledger} job {name}"
        self._understated(where, claimed, found, "the ledger's filter says")
        promised = None
        if plan is not None:
            promised = plan.privacy.target_epsilon
            self._exceeded(where, promised, found, "its plan promises")
        for label, value in self._card_claims(name):
            place = f"jobs/{name}/model-card.json"
            self._understated(place, value, found, f"the model card's {label} is")
        return self._row("job", name, events, delta, claimed, found, promised)

    def _card_claims(self, job: str) -> Iterator[tuple[str, float]]:
        name = f"jobs/{job}/model-card.json"
        if not self._evidence.has(name):
            return
        try:
            privacy = json.loads(self._evidence.read(name))["privacy"]
            for label in ("epsilon", "target_epsilon"):
                yield label, float(privacy[label])
        except (ValueError, KeyError, TypeError, RecursionError):
            self.findings.append(finding("job_file_unreadable", name, "it is no model card"))

    def _understated(self, where: str, claimed: float | None, found: SecondOpinion, what: str) -> None:
        if claimed is not None and _is_below(claimed, found.epsilon):
            text = f"{what} {claimed:.6g}; the second accountant finds {found.epsilon:.6g}"
            self.findings.append(finding("epsilon_understated", where, text))

    def _exceeded(self, where: str, promised: float, found: SecondOpinion, what: str) -> None:
        if _is_below(promised, found.epsilon):
            text = f"{what} {promised:.6g}; the second accountant finds {found.epsilon:.6g}"
            self.findings.append(finding("promise_exceeded", where, text))

    def _row(
        self,
        kind: str,
        name: str,
        events: Mapping[str, int],
        delta: float,
        claimed: float | None,
        found: SecondOpinion,
        promised: float | None,
    ) -> Replayed:
        self._done += 1
        if self._advance is not None:
            self._advance(self._done, self._total)
        return Replayed(
            kind=kind,
            name=name,
            releases=sum(events.values()),
            delta=delta,
            claimed=_finite(claimed),
            pld=_finite(found.pld),
            rdp=_finite(found.rdp),
            promised=promised,
        )


def _is_below(claimed: float, epsilon: float) -> bool:
    """Whether a claim lies further below the second opinion than the tolerance."""
    return claimed < epsilon * (1 - TOLERANCE) - TOLERANCE


def _claim(compute: Callable[[], float]) -> float | None:
    """What the filter says; None where it cannot price an event (then verify says overdraft)."""
    try:
        return compute()
    except DeniedError:
        return None


def _finite(value: float | None) -> float | None:
    """JSON has no infinity: None stands for an epsilon that nothing bounds."""
    return value if value is not None and value != float("inf") else None
