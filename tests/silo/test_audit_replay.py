from __future__ import annotations

import ast
import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privacy.accounting import epsilon_of
from privacy.budget import FilterSpec, RenyiFilter, ZcdpFilter
from privacy.errors import ExitCode, FindingError
from privacy.events import (
    SAMPLER,
    Event,
    EventCount,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PureEvent,
    SelfComposedEvent,
    UnknownEventError,
)
from privacy.ledger.records import UnknownRecordError, event_key
from silo.audit import accountant
from silo.audit.accountant import SecondAccountant, SecondOpinion, read_event
from silo.audit.commands import audit_app
from silo.audit.evidence import open_evidence
from silo.audit.replay import TOLERANCE, Replay, replay
from tests.contracts.audited_silo import JOB, AuditedSilo, make_audited_silo

RENYI = RenyiFilter(orders=(2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
DELTA = 1e-5
SAMPLED = PoissonSampledGaussianEvent(
    noise_multiplier=1.0, sample_rate=0.02, max_silos_per_user=1, sampler=SAMPLER
)
IN_THREE = PoissonSampledGaussianEvent(
    noise_multiplier=2.0, sample_rate=0.05, max_silos_per_user=3, sampler=SAMPLER
)


def gaussian(noise: float, clamp: float = 0.0) -> GaussianEvent:
    return GaussianEvent(noise_multiplier=noise, sampler=SAMPLER, clamp_probability=clamp)


def second(*events: EventCount, delta: float = DELTA) -> SecondOpinion:
    return SecondAccountant().opinion({event_key(event): count for event, count in events}, delta)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    return original.copy(tmp_path)


def replayed(silo: AuditedSilo) -> Replay:
    with open_evidence(silo.directory) as evidence:
        return replay(evidence)


def test_it_shares_nothing_with_the_ledgers_accounting() -> None:
    modules = set()
    for node in ast.walk(ast.parse(inspect.getsource(accountant))):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    ours = {name for name in modules if name and name.split(".")[0] in ("privacy", "policies", "silo")}
    names = {
        alias.name
        for node in ast.walk(ast.parse(inspect.getsource(accountant)))
        if isinstance(node, ast.ImportFrom) and node.module in ours
        for alias in node.names
    }
    assert (ours, names) == ({"privacy.events"}, {"UnknownEventError"})


class TestSecondAccountant:
    def test_one_gaussian_is_the_closed_form(self) -> None:
        """Balle and Wang 2018: delta(epsilon) of the Gaussian mechanism."""
        epsilon = second(EventCount(gaussian(2.0), 1)).pld

        def phi(x: float) -> float:
            return 0.5 * math.erfc(-x / math.sqrt(2))

        exact = phi(0.25 - 2 * epsilon) - math.exp(epsilon) * phi(-0.25 - 2 * epsilon)
        assert exact == pytest.approx(DELTA, rel=1e-3)

    def test_gaussians_of_different_noise_amount_to_one(self) -> None:
        together = second(EventCount(gaussian(3.0), 4), EventCount(gaussian(6.0), 5))
        one = second(EventCount(gaussian(1 / math.sqrt(4 / 9 + 5 / 36)), 1))
        assert together.pld == pytest.approx(one.pld, rel=1e-9)

    def test_pure_releases_add_up_and_no_more(self) -> None:
        assert second(EventCount(PureEvent(epsilon=0.5), 2)).pld == pytest.approx(1.0, abs=1e-3)

    def test_everybody_sampled_is_nobody_sampled(self) -> None:
        everybody = SAMPLED.model_copy(update={"sample_rate": 1.0, "max_silos_per_user": 3})
        assert second(EventCount(everybody, 2)) == second(EventCount(gaussian(1.0), 2))

    def test_sampling_in_one_silo_is_a_mixture_of_one(self) -> None:
        found = second(EventCount(SAMPLED, 50))
        assert found.rdp is not None
        assert found.pld < found.rdp < second(EventCount(gaussian(1.0), 50)).pld

    def test_more_silos_cost_more_and_have_no_renyi_figure(self) -> None:
        several = second(EventCount(IN_THREE, 50))
        one = second(EventCount(IN_THREE.model_copy(update={"max_silos_per_user": 1}), 50))
        assert several.rdp is None
        assert several.epsilon == several.pld
        assert several.pld != one.pld

    def test_a_self_composed_release_is_its_steps(self) -> None:
        steps = SelfComposedEvent(event=SAMPLED, count=10)
        assert second(EventCount(steps, 5)) == second(EventCount(SAMPLED, 50))

    def test_clamped_noise_costs_delta_and_at_last_everything(self) -> None:
        free = second(EventCount(gaussian(2.0), 1)).pld
        paid = second(EventCount(gaussian(2.0, clamp=1e-7), 1)).pld
        assert free < paid < math.inf
        assert second(EventCount(gaussian(2.0, clamp=1e-5), 1)).pld == math.inf

    def test_nothing_costs_nothing(self) -> None:
        assert second() == SecondOpinion(0.0, 0.0)

    @pytest.mark.parametrize(
        ("events", "filter_"),
        [
            ([(gaussian(2.0), 1)], ZcdpFilter()),
            ([(gaussian(0.6), 1)], ZcdpFilter()),
            ([(gaussian(40.0), 1)], ZcdpFilter()),
            ([(gaussian(2.0, 1e-13), 3), (gaussian(5.5), 2), (PureEvent(epsilon=0.25), 2)], ZcdpFilter()),
            ([(PureEvent(epsilon=0.25), 4)], RENYI),
            ([(SAMPLED, 200)], RENYI),
            ([(IN_THREE, 100)], RENYI),
            ([(SelfComposedEvent(event=SAMPLED, count=8), 25), (gaussian(8.0), 1)], RENYI),
        ],
    )
    def test_the_ledgers_filter_never_claims_less(
        self, events: list[tuple[Event, int]], filter_: FilterSpec
    ) -> None:
        counts = [EventCount(event, count) for event, count in events]
        claimed = epsilon_of(counts, DELTA, filter_)
        assert claimed >= second(*counts).epsilon * (1 - TOLERANCE) - TOLERANCE

    @pytest.mark.parametrize(
        "event",
        [
            {"kind": "laplace", "epsilon": 1.0},
            {"kind": "gaussian", "noise_multiplier": 2.0, "sampler": SAMPLER},
            {"kind": "gaussian", "noise_multiplier": 2.0, "sampler": SAMPLER, "clamp_probability": 0, "x": 1},
            {"kind": "gaussian", "noise_multiplier": 0.0, "sampler": SAMPLER, "clamp_probability": 0.0},
            {"kind": "gaussian", "noise_multiplier": True, "sampler": SAMPLER, "clamp_probability": 0.0},
            {"kind": "gaussian", "noise_multiplier": 2.0, "sampler": "normal/v1", "clamp_probability": 0.0},
            {"kind": "gaussian", "noise_multiplier": 2.0, "sampler": SAMPLER, "clamp_probability": 1.0},
            {"kind": "gaussian", "noise_multiplier": "2", "sampler": SAMPLER, "clamp_probability": 0.0},
            {**json.loads(event_key(SAMPLED)), "sample_rate": 1.5},
            {**json.loads(event_key(SAMPLED)), "max_silos_per_user": 0},
            {**json.loads(event_key(SAMPLED)), "max_silos_per_user": 1.0},
            {"kind": "pure", "epsilon": -1.0},
            {"kind": "self_composed", "event": {"kind": "pure", "epsilon": 1.0}, "count": 2},
            {"kind": "self_composed", "event": json.loads(event_key(SAMPLED)), "count": 1},
            {"kind": "self_composed", "event": "gaussian", "count": 2},
            {"kind": None},
            {},
            [],
            "gaussian",
        ],
        ids=str,
    )
    def test_what_it_does_not_know_it_refuses(self, event: Any) -> None:
        with pytest.raises(UnknownEventError, match="does not know"):
            read_event(event)


class TestReplay:
    def test_accounts_and_jobs_are_recomputed(self, silo: AuditedSilo) -> None:
        report = replayed(silo)
        account, job = report.rows
        assert (account.kind, account.name, account.releases, account.promised) == (
            "account", "customers", 1, 8.0,
        )  # fmt: skip
        assert (job.kind, job.name, job.promised) == ("job", JOB, 2.0)
        with silo.ledger() as ledger:
            status = ledger.status("customers")
        assert account.claimed == status.epsilon_spent
        assert account.pld == second(*status.committed).pld
        assert report.findings == ()
        assert report.accepted() is report

    def test_an_account_without_releases_is_a_row_too(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            status = ledger.status("customers")
            ledger.open_account("readers", status.budget, status.policy_sha256, 1)
        rows = {row.name: row for row in replayed(silo).rows}
        assert (rows["readers"].claimed, rows["readers"].pld, rows["readers"].releases) == (0.0, 0.0, 0)

    def test_a_filter_that_claims_too_little_is_found(
        self, silo: AuditedSilo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("privacy.accounting.Spending.epsilon", lambda self, delta: 1.0)
        report = replayed(silo)
        assert {item.code for item in report.findings} == {"epsilon_understated"}
        assert len(report.findings) == 2
        with pytest.raises(FindingError, match="epsilon_understated"):
            report.accepted()

    @pytest.mark.parametrize("field", ["epsilon", "target_epsilon"])
    def test_a_model_card_that_claims_too_little_is_found(self, silo: AuditedSilo, field: str) -> None:
        card = {"privacy": {"epsilon": 2.0, "target_epsilon": 2.0} | {field: 0.5}}
        path = silo.directory / "jobs" / JOB / "model-card.json"
        path.write_text(json.dumps(card))
        (found,) = replayed(silo).findings
        assert (found.code, found.where) == ("epsilon_understated", f"jobs/{JOB}/model-card.json")

    @pytest.mark.parametrize("content", ["[]", "{", '{"privacy": {"epsilon": "low"}}'])
    def test_a_card_that_is_none_proves_nothing(self, silo: AuditedSilo, content: str) -> None:
        (silo.directory / "jobs" / JOB / "model-card.json").write_text(content)
        assert [item.code for item in replayed(silo).findings] == ["job_file_unreadable"]

    def test_more_than_was_promised_is_found(self, silo: AuditedSilo) -> None:
        """Charged around the ledger, again and again, until no promise holds."""
        with silo.log() as log:
            (charge,) = [entry.payload for entry in log.entries() if entry.kind == "committed"]
            for attempt in range(1, 60):
                log.append("committed", {**charge, "attempt": attempt})
        assert {(item.code, item.where) for item in replayed(silo).findings} == {
            ("promise_exceeded", "ledger.db account customers"),
            ("promise_exceeded", f"ledger.db job {JOB}"),
        }

    def test_an_entry_that_is_not_known_refuses_the_whole(self, silo: AuditedSilo) -> None:
        with silo.log() as log:
            log.append("refund", {"account": "customers"})
        with pytest.raises(UnknownRecordError, match="refund"):
            replayed(silo)

    def test_an_event_that_is_not_known_refuses_the_whole(self, silo: AuditedSilo) -> None:
        with silo.log() as log:
            (charge,) = [entry.payload for entry in log.entries() if entry.kind == "committed"]
            log.append("committed", {**charge, "attempt": 1, "event": {"kind": "laplace", "epsilon": 1.0}})
        with pytest.raises(UnknownEventError, match="laplace"):
            replayed(silo)

    def test_progress_is_told(self, silo: AuditedSilo) -> None:
        seen = []
        with open_evidence(silo.directory) as evidence:
            replay(evidence, advance=lambda done, total: seen.append((done, total)))
        assert seen == [(1, 2), (2, 2)]


class TestCommand:
    def run(self, silo: AuditedSilo, *more: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(audit_app, ["replay", "--dir", str(silo.directory), *more])
        return result.exit_code, result.stdout, result.stderr

    def test_it_ends_with_0_and_says_unit_and_relation(self, silo: AuditedSilo) -> None:
        code, out, _ = self.run(silo)
        assert code == ExitCode.OK
        assert "add_or_remove_one" in out
        assert "nothing was found" in out

    def test_it_ends_with_4_and_names_the_finding(self, silo: AuditedSilo) -> None:
        card = {"privacy": {"epsilon": 0.1, "target_epsilon": 2.0}}
        (silo.directory / "jobs" / JOB / "model-card.json").write_text(json.dumps(card))
        code, out, err = self.run(silo, "--json", "-")
        assert code == ExitCode.FINDING
        assert [item["code"] for item in json.loads(out)["findings"]] == ["epsilon_understated"]
        assert "error[epsilon_understated]" in err

    def test_what_is_not_known_is_denied(self, silo: AuditedSilo) -> None:
        with silo.log() as log:
            (charge,) = [entry.payload for entry in log.entries() if entry.kind == "committed"]
            log.append("committed", {**charge, "attempt": 1, "event": {"kind": "laplace", "epsilon": 1.0}})
        code, _, err = self.run(silo)
        assert code == ExitCode.DENIED
        assert "error[unknown_event]" in err
