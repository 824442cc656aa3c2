"""What was spent on what, and the ledger's entries by filter."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from policies.canonical import digest
from policies.files import save_yaml
from privacy.errors import ExitCode
from privacy.ledger.ledger import Ledger
from silo.audit.burndown import burn_down, columns
from silo.audit.commands import audit_app
from silo.audit.evidence import open_evidence
from silo.audit.spending import MAX_POINTS, Account, Overview, Point, overview
from tests.contracts.audited_silo import JOB, AuditedSilo, make_audited_silo

OTHER_JOB = "f" * 32
START = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    return original.copy(tmp_path)


def seen(silo: AuditedSilo) -> Overview:
    with open_evidence(silo.directory) as evidence:
        return overview(evidence)


def reserve_another(silo: AuditedSilo, ledger: Ledger) -> None:
    """A second job, still open, of a plan with another purpose."""
    plan = silo.plan.model_copy(update={"purpose": "newsletter"})
    save_yaml(silo.directory / "jobs" / OTHER_JOB / "plan.yaml", plan)
    ledger.reserve(
        account="customers",
        job=OTHER_JOB,
        dataset="purchases",
        plan_sha256=digest(plan),
        policy_sha256=ledger.status("customers").policy_sha256,
        requested_by="shop-c",
        events=ledger.status("customers").committed,
    )


def test_the_account_is_what_the_ledger_says(silo: AuditedSilo) -> None:
    (account,) = seen(silo).accounts
    with silo.ledger() as ledger:
        status = ledger.status("customers")
    assert (account.spent, account.reserved) == (status.epsilon_spent, 0.0)
    assert account.remaining == status.epsilon_remaining


def test_purposes_and_partners_come_from_the_plans(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        reserve_another(silo, ledger)
    found = seen(silo)
    assert [(share.name, share.jobs, share.releases) for share in found.purposes] == [
        ("newsletter", 1, 0),
        ("product-recommendation", 1, 1),
    ]
    assert [(share.name, share.jobs, share.releases) for share in found.partners] == [
        ("shop-b", 2, 1),
        ("shop-c", 2, 1),
    ]
    newsletter, products = found.purposes
    (account,) = found.accounts
    assert newsletter.spent == 0
    assert newsletter.counted == products.spent == account.spent
    assert [(line.job, line.open, line.partners) for line in found.jobs] == [
        (JOB, False, ("shop-b", "shop-c")),
        (OTHER_JOB, True, ("shop-b", "shop-c")),
    ]


def test_a_job_without_its_plan_is_unknown_and_a_swapped_plan_too(silo: AuditedSilo) -> None:
    plan = silo.plan.model_copy(update={"purpose": "something-nicer"})
    save_yaml(silo.directory / "jobs" / JOB / "plan.yaml", plan)
    assert [share.name for share in seen(silo).purposes] == ["unknown"]
    (silo.directory / "jobs" / JOB / "plan.yaml").unlink()
    assert [share.name for share in seen(silo).partners] == ["unknown"]


def test_the_burn_down_ends_where_the_account_stands(silo: AuditedSilo) -> None:
    with silo.ledger() as ledger:
        reserve_another(silo, ledger)
    (account,) = seen(silo).accounts
    last = account.burn_down[-1]
    assert account.burn_down[0].spent == 0
    assert last.spent == account.spent
    assert account.reserved is not None
    assert last.spent is not None
    assert last.counted == pytest.approx(last.spent + account.reserved)
    assert [point.counted for point in account.burn_down][:2] == [0.0, account.burn_down[1].counted]


def test_a_long_history_keeps_few_moments_and_the_newest(tmp_path: Path) -> None:
    from silo.audit.spending import _Moment, _Series

    series = _Series()
    for number in range(5_000):
        series.add(_Moment(f"{number:06d}", None, None, 1.0))
        points = series.points(1e-5)
        assert len(points) <= MAX_POINTS + 1
        assert points[-1].at == f"{number:06d}"
        assert points[0].at == "000000"
        assert list(points) == sorted(points, key=lambda point: point.at)


class TestPlot:
    def account(self, *levels: tuple[float | None, float | None], budget: float = 4.0) -> Account:
        points = tuple(
            Point(at=(START + timedelta(days=day)).isoformat(), spent=spent, counted=counted, budget=budget)
            for day, (spent, counted) in enumerate(levels)
        )
        return Account.model_construct(account="customers", burn_down=points)

    def drawn(self, account: Account) -> list[str]:
        console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        with console.file:
            console.print(burn_down(account, width=20, height=4))
        return console.export_text().splitlines()

    def test_it_shows_spent_reserved_and_budget(self) -> None:
        lines = self.drawn(self.account((0.0, 2.0), (2.0, 2.0), (2.0, 4.0)))
        assert "╌" in lines[0]
        assert "█" in lines[2]
        assert "░" in lines[2]
        assert lines[-1].strip().startswith("2026-06-01")
        assert lines[-1].endswith("2026-06-03")

    def test_an_epsilon_that_nothing_bounds_fills_its_column(self) -> None:
        lines = self.drawn(self.account((0.0, 0.0), (None, None)))
        assert all(line[9:].endswith("█") for line in lines[:4])

    def test_time_is_even_and_a_clock_that_went_back_does_not_break_it(self) -> None:
        account = self.account((0.0, 0.0), (1.0, 1.0), (2.0, 2.0))
        first = [point.spent for point in columns(account.burn_down, 20)]
        assert first == sorted(first, key=float)
        backwards = tuple(reversed(account.burn_down))
        assert len(columns(backwards, 20)) == 20

    def test_one_moment_is_enough(self) -> None:
        assert len(self.drawn(self.account((1.0, 1.0)))) == 6


class TestLedgerFilters:
    def listed(self, silo: AuditedSilo, *options: str) -> list[int]:
        arguments = ["ledger", "--dir", str(silo.directory), "--json", "-", *options]
        result = CliRunner().invoke(audit_app, arguments)
        assert result.exit_code == ExitCode.OK, result.stderr
        return [item["seq"] for item in json.loads(result.stdout)]

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ((), [1, 2, 3, 4, 5]),
            (("--kind", "committed"), [3]),
            (("--kind", "committed", "--kind", "released"), [3, 4]),
            (("--job", JOB[:6]), [2, 3, 4, 5]),
            (("--job", "ffff"), []),
            (("--account", "customers"), [1, 2, 3, 4]),
            (("--account", "readers"), []),
            (("--since", "2026-06-01"), [1, 2, 3, 4, 5]),
            (("--since", "2026-06-02"), []),
            (("--until", "2026-06-01"), [1, 2, 3, 4, 5]),
            (("--until", "2026-05"), []),
            (("--since", "2026-06-01T00:00:00Z", "--until", "2026"), [1, 2, 3, 4, 5]),
        ],
    )
    def test_filters_are_and(self, silo: AuditedSilo, options: tuple[str, ...], expected: list[int]) -> None:
        assert self.listed(silo, *options) == expected

    @pytest.mark.parametrize("options", [("--since", "yesterday"), ("--kind", "refund")])
    def test_what_means_nothing_is_a_usage_error(self, silo: AuditedSilo, options: tuple[str, ...]) -> None:
        result = CliRunner().invoke(audit_app, ["ledger", "--dir", str(silo.directory), *options])
        assert result.exit_code == ExitCode.USAGE


def test_the_command_shows_plot_purposes_and_partners(silo: AuditedSilo) -> None:
    result = CliRunner().invoke(audit_app, ["budget", "--dir", str(silo.directory)])
    assert result.exit_code == ExitCode.OK
    for text in ("customers", "product-recommendation", "shop-b", "╌", "add_or_remove_one"):
        assert text in result.stdout
