from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privacy.errors import ExitCode, FindingError
from privacy.events import PureEvent
from silo.audit.chart import chart_of
from silo.audit.commands import audit_app
from silo.audit.render import render
from silo.audit.report import AuditReport, make_report
from silo.audit.spending import Account, Point
from silo.audit.words import assumptions, guarantee
from tests.contracts.audited_silo import JOB, NOW, AuditedSilo, make_audited_silo
from tests.contracts.ledger_tools import tampering

OTHER_JOB = "f" * 32
VOID = {"meta", "br", "path", "rect"}


class Page(HTMLParser):
    """Reads a page as strictly as a person would want: every element closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def having(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("original"))


@pytest.fixture
def silo(original: AuditedSilo, tmp_path: Path) -> AuditedSilo:
    return original.copy(tmp_path)


def made(silo: AuditedSilo) -> AuditReport:
    return make_report(silo.directory, silo.charter_path, now=NOW)


@pytest.fixture(scope="module")
def clean(original: AuditedSilo) -> AuditReport:
    return made(original)


class TestPage:
    def test_it_says_what_was_found_guaranteed_spent_and_done(self, clean: AuditReport) -> None:
        page = Page(render(clean))
        for words in (
            "shop-a",
            "Nothing was found",
            "3.93 times as likely",
            "1 in 100,000",
            "at most 79.7 % sure",
            "customers",
            "product-recommendation",
            JOB[:12],
            "What it may cost a person",
            "kept and valid",
            "by loss distributions",
            "archipel audit verify BUNDLE --charter CHARTER",
        ):
            assert words in page.words, words

    def test_it_fetches_nothing_and_runs_nothing(self, clean: AuditReport) -> None:
        text = render(clean)
        assert "://" not in text
        assert "url(" not in text.replace("url(#hatch)", "")
        page = Page(text)
        assert (
            page.having("script") == page.having("link") == page.having("img") == page.having("iframe") == []
        )
        (policy,) = (item for item in page.having("meta") if item.get("http-equiv"))
        assert "default-src 'none'" in str(policy["content"])
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)

    def test_every_drawing_is_named_described_and_beside_its_table(self, clean: AuditReport) -> None:
        page = Page(render(clean))
        drawings = [item for item in page.having("svg") if item.get("role") == "img"]
        assert len(drawings) == 1
        ids = {item["id"] for _, item in page.elements if "id" in item}
        assert set(str(drawings[0]["aria-labelledby"]).split()) <= ids
        assert "epsilon over time" in page.words

    def test_headings_descend_one_by_one_and_tables_have_header_cells(self, clean: AuditReport) -> None:
        page = Page(render(clean))
        levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
        assert {item.get("scope") for item in page.having("th")} == {"col", "row"}

    def test_what_comes_from_the_record_is_escaped(self, silo: AuditedSilo) -> None:
        evil = "<script>alert(1)</script>"
        with silo.ledger() as ledger:
            status = ledger.status("customers")
            ledger.open_account(evil, status.budget, status.policy_sha256, 1)
            ledger.reserve(
                account=evil,
                job=evil,
                dataset=evil,
                plan_sha256="e" * 64,
                policy_sha256=status.policy_sha256,
                requested_by=evil,
                events=[(PureEvent(epsilon=0.01), 1)],  # type: ignore[list-item]
            )
        page = Page(render(made(silo)))
        assert page.having("script") == []
        assert evil in page.words

    def test_findings_stand_first_and_take_the_guarantee_back(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("UPDATE entries SET at = '2020-01-01T00:00:00.000000Z' WHERE seq = 3")
        report = made(silo)
        words = Page(render(report)).words
        assert "1 error and 1 warning" in words
        assert words.index("entry_altered") < words.index("What is guaranteed")
        assert "nothing that can be relied on" in words
        assert report.meanings["entry_altered"] in words

    def test_warnings_alone_do_not_take_it_back(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB, witnesses=())
        words = Page(render(made(silo))).words
        assert "1 warning" in words
        assert "error" not in words
        assert "nothing that can be relied on" not in words

    def test_a_ledger_that_cannot_be_read_is_still_a_page(self, silo: AuditedSilo) -> None:
        with tampering(silo.ledger_path) as connection:
            connection.execute("UPDATE entries SET payload = '{' WHERE seq = 4")
        report = made(silo)
        assert report.spending is None
        assert report.replay is None
        words = Page(render(report)).words
        assert "Nothing can be said" in words
        assert "It refused" in words

    def test_a_second_accountant_that_refuses_is_no_clean_report(self, silo: AuditedSilo) -> None:
        with silo.log() as log:
            (charge,) = [entry.payload for entry in log.entries() if entry.kind == "committed"]
            log.append("committed", {**charge, "attempt": 1, "event": {"kind": "laplace", "epsilon": 1.0}})
        report = made(silo)
        with pytest.raises(FindingError):
            report.accepted()
        assert "laplace" in Page(render(report)).words


class TestWords:
    def account(self, spent: float | None, **changes: object) -> Account:
        values: dict[str, object] = {
            "account": "customers", "epsilon": 8.0, "delta": 1e-6, "spent": spent, "frozen": False,
        }  # fmt: skip
        return Account.model_construct(**(values | changes))

    def test_bounds_are_rounded_to_the_cautious_side(self) -> None:
        text = " ".join(guarantee(self.account(1.0)))
        assert "2.72 times as likely" in text
        assert "at most 73.2 % sure" in text

    def test_a_large_epsilon_is_not_made_to_look_like_a_figure(self) -> None:
        assert "e^30.0 times" in " ".join(guarantee(self.account(30.0)))

    def test_nothing_spent_and_nothing_bounded_are_said(self) -> None:
        assert guarantee(self.account(0.0))[0] == "Nothing derived from the customers has left this silo."
        assert "nothing is guaranteed" in guarantee(self.account(None))[0]
        assert "frozen" in guarantee(self.account(1.0, frozen=True))[-1]

    def test_assumptions_name_the_fewest_colluders_and_the_most_silos(self, original: AuditedSilo) -> None:
        plan = original.plan
        many = plan.model_copy(
            update={
                "privacy": plan.privacy.model_copy(update={"colluding_silos": 2, "max_silos_per_user": 3})
            }
        )
        both = " ".join(assumptions([many, plan]))
        assert "at most one silo" in both
        assert "up to 3 silos" in both
        assert "nobody is in the data of two silos" in " ".join(assumptions([plan]))


class TestChart:
    def account(self, *points: tuple[str, float | None, float | None, float]) -> Account:
        moments = tuple(Point(at=at, spent=a, counted=b, budget=c) for at, a, b, c in points)
        return Account.model_construct(account="customers", burn_down=moments)

    def test_it_stays_inside_its_frame(self) -> None:
        chart = chart_of(
            self.account(
                ("2026-06-01T00:00:00Z", 0.0, 0.0, 4.0),
                ("2026-06-02T00:00:00Z", 2.0, 3.0, 4.0),
                ("2026-07-01T00:00:00Z", 5.0, 5.0, 4.0),
                ("2026-07-02T00:00:00Z", None, None, 4.0),
            )
        )
        numbers = [float(text) for path in (chart.spent, chart.counted, chart.budget)
                   for text in re.findall(r"[-\d.]+", path)]  # fmt: skip
        assert 0 <= min(numbers) <= max(numbers) <= chart.width
        assert chart.rows[0].label == "0"
        assert float(chart.rows[-1].label) >= 5.0
        assert chart.columns[0].label == "2026-06-01"
        assert chart.columns[-1].label == "2026-07-02"

    def test_a_scale_of_some_minutes_bears_its_date(self) -> None:
        ends = [
            ("2026-06-01T23:58:00.000000Z", 0.0, 0.0, 4.0),
            ("2026-06-02T00:02:00.000000Z", 1.0, 1.0, 4.0),
        ]
        labels = [tick.label for tick in chart_of(self.account(*ends)).columns]
        assert labels == ["2026-06-01 23:58", "23:59:00", "00:00:00", "00:01:00", "2026-06-02 00:02"]
        same_day = [
            ("2026-06-01T10:00:00.000000Z", 0.0, 0.0, 4.0),
            ("2026-06-01T10:04:00.000000Z", 1.0, 1.0, 4.0),
        ]
        labels = [tick.label for tick in chart_of(self.account(*same_day)).columns]
        assert (labels[0], labels[-1]) == ("2026-06-01 10:00", "10:04:00")

    def test_one_moment_or_a_clock_that_went_back_draw_too(self) -> None:
        one = chart_of(self.account(("2026-06-01T00:00:00Z", 0.0, 0.0, 0.3)))
        assert len(one.table) == 1
        back = chart_of(
            self.account(("2026-06-02T00:00:00Z", 0.0, 0.0, 1.0), ("2026-06-01T00:00:00Z", 0.5, 0.5, 1.0))
        )
        assert back.outline.startswith("M")


class TestCommand:
    def run(self, silo: AuditedSilo, *more: object) -> tuple[int, str, str]:
        arguments = ("report", "--dir", silo.directory, "--charter", silo.charter_path, *more)
        result = CliRunner().invoke(audit_app, [str(item) for item in arguments])
        return result.exit_code, result.stdout, result.stderr

    def test_it_writes_the_page_and_the_same_as_json(self, silo: AuditedSilo) -> None:
        target = silo.root / "report.html"
        code, out, _ = self.run(silo, "--out", target, "--json", "-")
        assert code == ExitCode.OK
        content = json.loads(out)
        assert content["verification"]["findings"] == []
        assert content["spending"]["accounts"][0]["account"] == "customers"
        assert content["source"]["record_sha256"] is None
        assert Page(target.read_text()).words.startswith("Privacy audit of shop-a")

    def test_with_findings_the_page_is_written_and_the_exit_code_is_4(self, silo: AuditedSilo) -> None:
        with silo.ledger() as ledger:
            silo.run_job(ledger, OTHER_JOB, witnesses=())
        target = silo.root / "report.html"
        code, _, err = self.run(silo, "--out", target)
        assert code == ExitCode.FINDING
        assert "error[finding]" in err
        assert "unwitnessed" in target.read_text()
