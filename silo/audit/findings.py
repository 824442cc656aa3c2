"""What an audit can find: one closed list, each with a stable code (``docs/reference-audit-findings.md``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from policies.documents import PolicyFileError
from policies.plans.summary import counted
from privacy.errors import ArchipelError, FindingError

Severity = Literal["error", "warning"]

PAGE = "docs/reference-audit-findings.md"

MEANINGS: dict[str, tuple[Severity, str]] = {
    "ledger_unreadable": ("error", "The file is damaged so far that not every entry can be read."),
    "entry_altered": ("error", "An entry's content is not what was hashed and signed."),
    "entry_missing": ("error", "A number in the sequence of entries is missing: an entry was deleted."),
    "chain_broken": ("error", "An entry does not continue the one before it: deleted, inserted or moved."),
    "entry_signature": ("error", "An entry was not signed by the identity that the charter gives the silo."),
    "entry_unknown": ("error", "An entry of a kind, or with an event, that this version does not know."),
    "account_order": ("error", "An account was opened twice, or given new terms before it was opened."),
    "account_unknown": ("error", "A job reserved on an account that does not exist."),
    "filter_changed": ("error", "An account's filter or orders changed; they are fixed for its life."),
    "dataset_moved": ("error", "A dataset was charged to another account than before: a fresh budget."),
    "policy_version": ("error", "An account's terms changed without a newer policy version."),
    "policy_mismatch": ("error", "A job was reserved under another policy than its account's terms."),
    "reserved_twice": ("error", "One job has two reservations."),
    "overdraft": ("error", "The account's filter does not allow what was reserved or committed."),
    "charge_unreserved": ("error", "A charge for something the job had not reserved, or had used up."),
    "charge_mismatch": ("error", "A charge names another account, dataset, plan, policy or proposer."),
    "double_spend": ("error", "One (job, round, attempt) was charged twice."),
    "release_exceeds": ("error", "A job gave back more than it had reserved and not used."),
    "release_incomplete": ("error", "A job gave back less than it had reserved and not used."),
    "clock_back": ("warning", "An entry is older than the one before it: the clock was set back."),
    "clock_ahead": ("warning", "An entry is of a time still to come by the auditor's clock."),
    "accounts_differ": ("error", "The accounts kept beside the entries are not those the entries make."),
    "unwitnessed": ("warning", "No peer's receipt is newer than the last job's charges."),
    "receipt_signature": ("error", "A receipt was not signed by the charter's member it names."),
    "receipt_contradicted": ("error", "A peer saw another entry at this place: the chain was rewritten."),
    "ledger_truncated": ("error", "A peer saw entries that are no longer there: the end was cut off."),
    "ledger_forked": ("error", "Two peers saw different entries of one number: two histories were shown."),
    "history_changed": ("error", "An entry is another one than in a bundle that was exported earlier."),
    "charter_rolled_back": ("error", "An entry goes back to an older charter than entries before it."),
    "charter_untrusted": ("error", "A charter is missing, altered, or no agreed amendment of the auditor's."),
    "charter_unrecorded": ("error", "No entry says which of several charters an account was opened under."),
    "charter_not_adopted": ("warning", "The ledger is kept under an older charter than the auditor's."),
    "reserved_while_frozen": ("error", "A job was reserved for although the policy was frozen."),
    "freeze_untrusted": ("warning", "A freeze that no administrator signed, or that was altered."),
    "policy_untrusted": ("error", "The policy file is missing, altered or not signed by its administrators."),
    "signers_revoked": ("error", "The policy was not signed by the administrators in office then."),
    "renewal_early": ("error", "An account got a renewal of its budget before the declared day."),
    "policy_rolled_back": ("error", "The policy file is older than the one the ledger was last kept under."),
    "policy_digest": ("error", "The ledger was kept under other content of the same policy version."),
    "policy_unproven": ("warning", "No signed copy was kept of a policy that the ledger was kept under."),
    "policy_expired": ("error", "An entry was made after the last day of the policy it rests on."),
    "policy_denies": ("error", "The policy in force would have denied the plan that was reserved for."),
    "budget_differs": ("error", "An account's budget is not the one the signed policy gives it."),
    "plan_digest": ("error", "The plan in a job's directory is not the one that was reserved for."),
    "plan_cost": ("error", "A job reserved something else than its plan costs."),
    "job_file_unreadable": ("warning", "A file of a job's directory cannot be read, so it proves nothing."),
    "trail_broken": ("error", "The coordinator's trail was altered, or not signed by the coordinator."),
    "trail_incomplete": ("warning", "The coordinator's trail does not know a job that peers saw the end of."),
    "contribution_uncharged": ("error", "A contribution arrived at the coordinator without a charge."),
    "epsilon_understated": ("error", "A second accountant finds more epsilon than the ledger's filter."),
    "promise_exceeded": ("error", "A second accountant finds more epsilon than was promised."),
    "canaries_told_apart": ("error", "Canaries in and out are told apart better than epsilon allows."),
    "members_told_apart": ("error", "People in and out are told apart better than epsilon allows."),
    "contribution_exposed": ("error", "A silo's stream tells colluders more than the sum of the rest."),
    "noise_missing": ("error", "Less noise than promised is left against the colluders of the plan."),
    "contribution_unexplained": ("error", "Silos contributed more than clipped rows and noise."),
    "sum_unexplained": ("error", "Streams, opened integers and contributions do not add up."),
    "tampering_accepted": ("error", "An alteration was not refused."),
    "key_recovered": ("error", "The BFV key follows from what the coordinator saw."),
    "mask_reused": ("error", "A mask, a mask key or a seed was used twice."),
    "secret_in_file": ("error", "A secret lies in a file that must not hold it."),
}  # fmt: skip


class Finding(BaseModel):
    """One thing found.

    Attributes:
        code: stable, a key of :data:`MEANINGS`.
        severity: ``error``: something is wrong; ``warning``: something cannot be shown to be right.
        text: what, in one sentence.
        where: file, and entry where there is one.
        page: where the documentation says what it means and what to do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str
    severity: Severity
    text: str
    where: str
    page: str


class Report(BaseModel):
    """What ``archipel audit verify`` says.

    Attributes:
        silo: whose ledger.
        charter: name of the auditor's charter.
        entries: number of entries read.
        head_hash: hash of the last one.
        charges: charged contributions.
        receipts: valid receipts by peers about this ledger.
        witnessed_seq: the newest entry that a valid receipt covers, 0 if none.
        findings: everything found, worst first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    silo: str
    charter: str
    entries: int = Field(ge=0)
    head_hash: str
    charges: int = Field(ge=0)
    receipts: int = Field(ge=0)
    witnessed_seq: int = Field(ge=0)
    findings: tuple[Finding, ...]

    def accepted(self) -> Report:
        """Return this report if nothing was found.

        Raises:
            FindingError: something was.
        """
        if self.findings:
            codes = ", ".join(dict.fromkeys(finding.code for finding in self.findings))
            raise FindingError(
                f"{counted(len(self.findings), 'finding')}: {codes}",
                where=self.silo,
                remedy=f"{PAGE} says what each means and what to do",
            )
        return self


def finding(code: str, where: str, text: str) -> Finding:
    """A finding with the severity of its code."""
    return Finding(code=code, severity=MEANINGS[code][0], text=text, where=where, page=f"{PAGE}#{code}")


def untrusted(code: str, where: str, error: ArchipelError) -> Iterator[Finding]:
    """Why a file is not believed; of a malformed one, each problem is a finding of one line."""
    if not isinstance(error, PolicyFileError):
        yield finding(code, where, error.message)
        return
    for problem in error.problems:
        line = f"line {problem.line}, " if problem.line else ""
        yield finding(code, error.source, line + problem.text)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings, otherwise in the order found; the same finding once."""
    unique = dict.fromkeys(findings)
    return tuple(sorted(unique, key=lambda item: item.severity != "error"))
