from __future__ import annotations

import itertools
import multiprocessing
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event as ProcessEvent
from pathlib import Path
from threading import Event

import pytest
from starlette.testclient import TestClient

from federation.identity import Party
from policies.canonical import digest
from privacy.errors import DataError
from privacy.ledger.chain import ChainLog
from silo.dashboard import pages, snapshot
from silo.dashboard.snapshot import Lookout, Snapshot, take_snapshot
from silo.extras import MissingExtraError, require_extra
from tests.contracts.audited_silo import JOB, NOW, AuditedSilo, make_audited_silo
from tests.contracts.ledger_tools import tampering
from tests.support.dashboards import shown

PAGES = ("/", "/budgets", "/ledger", "/jobs", "/policy", "/findings", f"/jobs/{JOB}")


def _append(directory: Path, begun: ProcessEvent, stop: ProcessEvent) -> None:
    key = Party.load(directory).identity
    with ChainLog.open(directory / "ledger.db", sign=key.sign_raw, key_id=key.key_id) as log:
        while not stop.is_set():
            log.append("witnessed", {"job": JOB, "receipts": []})
            begun.set()


@contextmanager
def writing(silo: AuditedSilo) -> Iterator[BaseProcess]:
    """An agent's process that writes one entry after the other."""
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    writer = context.Process(target=_append, args=(silo.directory, begun, stop), daemon=True)
    writer.start()
    try:
        assert begun.wait(60)
        yield writer
    finally:
        stop.set()
        writer.join(60)
    assert writer.exitcode == 0


def _wait(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("silo"))


@pytest.fixture
def client(silo: AuditedSilo) -> Iterator[TestClient]:
    with shown(silo) as (client, _):
        yield client


def test_every_page_has_one_heading_a_language_landmarks_and_a_skip_link(client: TestClient) -> None:
    for path in PAGES:
        text = client.get(path).text
        assert text.lstrip().startswith("<!DOCTYPE html>")
        assert len(re.findall("<h1", text)) == 1
        assert '<html lang="en">' in text
        assert 'href="#content"' in text
        for landmark in ("<header", "<nav", "<main", "<footer"):
            assert landmark in text
        levels = [int(level) for level in re.findall(r"<h([1-6])", text)]
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels)), path


def test_the_place_in_the_navigation_is_marked(client: TestClient) -> None:
    for path, name in pages.NAVIGATION:
        text = client.get(path).text
        assert re.findall(r'aria-current="page">([^<]+)<', text) == [name]


def test_the_figures_are_those_of_the_audit(silo: AuditedSilo, client: TestClient) -> None:
    spending = take_snapshot(silo.directory, silo.charter_path, NOW).report.spending
    assert spending is not None
    told = client.get("/", headers={"Accept": "application/json"}).json()
    assert told["accounts"] == [item.model_dump(mode="json") for item in spending.accounts]
    assert f"{spending.accounts[0].remaining:.3f}" in client.get("/").text
    assert told["standing"]["charges"] == 1


def test_charts_have_words_and_a_table_of_the_same_figures(client: TestClient) -> None:
    text = client.get("/budgets").text
    assert len(re.findall(r'<svg [^>]*role="img" aria-labelledby="chart-1-title chart-1-text"', text)) == 1
    assert '<title id="chart-1-title">' in text
    assert '<desc id="chart-1-text">' in text
    assert "epsilon over time (UTC)" in text


def test_entries_are_listed_newest_first_and_chosen(client: TestClient) -> None:
    told = client.get("/ledger?format=json").json()
    numbers = [entry["seq"] for entry in told["entries"]]
    assert numbers == sorted(numbers, reverse=True)
    assert told["total"] == len(numbers) == 5
    chosen = client.get("/ledger", params={"format": "json", "kind": "committed", "job": JOB[:6]}).json()
    assert [entry["kind"] for entry in chosen["entries"]] == ["committed"]
    assert client.get("/ledger", params={"format": "json", "until": "2025"}).json()["entries"] == []


def test_many_entries_come_on_pages(silo: AuditedSilo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ENTRIES_A_PAGE", 2)
    with shown(silo) as (client, _):
        seen = [
            [entry["seq"] for entry in client.get(f"/ledger?format=json&page={number}").json()["entries"]]
            for number in (1, 2, 3, 4)
        ]
        assert seen == [[5, 4], [3, 2], [1], []]
        middle = client.get("/ledger?page=2&kind=").text
        assert 'rel="prev"' in middle
        assert 'rel="next"' in middle


def test_pages_stand_still_while_the_agent_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process appends without a pause; who turns the pages sees each entry once, whole, in order."""
    monkeypatch.setattr(pages, "ENTRIES_A_PAGE", 2)
    silo = make_audited_silo(tmp_path)
    with shown(silo) as (client, _), writing(silo) as writer:
        ask: dict[str, str | int] = {"format": "json"}
        first = client.get("/ledger", params=ask).json()
        seen = [entry["seq"] for entry in first["entries"]]
        newer = 0
        for number in range(2, first["pages"] + 1):
            told = client.get("/ledger", params=ask | {"page": number, "upto": first["upto"]}).json()
            assert (told["total"], told["pages"]) == (first["total"], first["pages"])
            assert told["num_newer"] >= newer
            newer = told["num_newer"]
            seen += [entry["seq"] for entry in told["entries"]]
        assert seen == list(range(first["upto"], 0, -1))
        _wait(lambda: client.get("/ledger", params=ask).json()["upto"] > first["upto"])
        shown_page = client.get("/ledger", params={"page": 2, "upto": first["upto"]}).text
        assert "written since" in shown_page
        assert f"upto={first['upto']}" in shown_page
        assert writer.is_alive()
    with silo.ledger() as ledger:
        assert ledger.head().seq > first["upto"]
    assert "chain_broken" not in silo.codes()


def test_the_ledger_does_not_wait_for_a_new_look_at_everything(
    silo: AuditedSilo, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shown(silo) as (client, _):
        assert client.get("/").status_code == 200

        def never(*_: object) -> None:
            raise AssertionError("the whole record was looked at")

        monkeypatch.setattr(snapshot, "take_snapshot", never)
        monkeypatch.setattr(snapshot.time, "monotonic", lambda: float("inf"))
        text = client.get("/ledger").text
        assert f"As it stood on {datetime.now(UTC):%Y-%m-%d}" in text
        with pytest.raises(AssertionError, match="looked at"):
            client.get("/")


class Slow:
    """The real look, which waits for a sign."""

    def __init__(self) -> None:
        self.sign, self.looks, self.fails = Event(), 0, False

    def __call__(self, directory: Path, charter: Path, now: datetime) -> Snapshot:
        assert self.sign.wait(30)
        self.looks += 1
        if self.fails:
            raise DataError("the disk is gone")
        return take_snapshot(directory, charter, now)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    slow = Slow()
    monkeypatch.setattr(snapshot, "take_snapshot", slow)
    monkeypatch.setattr(snapshot, "SECONDS_KEPT", 0.0)
    monkeypatch.setattr(snapshot, "SECONDS_WAITED", 0.05)
    return slow


def test_who_asks_while_a_long_look_is_taken_sees_the_one_before_it(silo: AuditedSilo, slow: Slow) -> None:
    slow.sign.set()
    with shown(silo) as (client, _):
        before = client.get("/?format=json").json()["standing"]["at"]
        looks = slow.looks
        slow.sign.clear()
        _wait(lambda: "a newer look is being taken" in client.get("/").text)
        assert client.get("/?format=json").json()["standing"]["at"] == before
        assert slow.looks == looks
        slow.sign.set()
        _wait(lambda: "a newer look" not in client.get("/").text)
        assert slow.looks > looks


def test_a_look_that_failed_after_its_asker_had_gone_is_said_to_the_next(
    silo: AuditedSilo, slow: Slow
) -> None:
    slow.sign.set()
    lookout = Lookout(silo.directory, silo.charter_path)
    lookout.look()
    slow.sign.clear()
    _wait(lambda: lookout.look().is_renewing)
    slow.fails = True
    slow.sign.set()
    with pytest.raises(DataError, match="disk is gone"):
        _wait(lambda: not lookout.look())
    slow.fails = False
    _wait(lambda: not lookout.look().is_renewing)


@pytest.mark.parametrize(
    "query", ["upto=0", "upto=x", "kind=x", "since=yesterday", "page=0", "page=-1", "page=²", "page=99999999"]
)
def test_what_was_asked_wrongly_is_said(client: TestClient, query: str) -> None:
    answer = client.get(f"/ledger?{query}")
    assert answer.status_code == 400
    assert "How to mend it" in answer.text
    assert client.get(f"/ledger?{query}&format=json").json()["code"] == "usage"


def test_a_job_tells_its_ledger_and_its_card(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    (silo.directory / "jobs" / JOB / "model-card.json").write_text(
        '{"family": "popularity", "privacy": {"statement": "Whoever sees everything", "epsilon": 1.5}}'
    )
    with shown(silo) as (client, _):
        told = client.get(f"/jobs/{JOB}?format=json").json()
        assert told["job"]["state"] == "ended"
        assert told["job"]["ledger"]["plan_sha256"] == digest(silo.plan)
        text = client.get(f"/jobs/{JOB}").text
        assert "Whoever sees everything" in text
        assert "1.5" in text
        assert client.get("/jobs/" + "f" * 32).status_code == 404


def test_findings_are_told_with_their_meaning(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    with tampering(silo.ledger_path) as db:
        db.execute("UPDATE entries SET at = '2026-06-02T00:00:00.000000Z' WHERE seq = 3")
    with shown(silo) as (client, _):
        told = client.get("/findings?format=json").json()
        assert "entry_altered" in {item["code"] for item in told["findings"]}
        assert "An entry&#39;s content is not what was hashed and signed." in client.get("/findings").text
        assert client.get("/?format=json").json()["standing"]["verdict"] == "error"


def test_a_policy_that_was_edited_is_said_and_the_one_before_it_stays(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    with (silo.directory / "policy.yaml").open("a") as file:
        file.write("# edited\nversion: 2\n")
    now = take_snapshot(silo.directory, silo.charter_path, NOW)
    assert now.law is not None
    assert now.law.refused is not None
    with shown(silo) as (client, _):
        assert "policy.yaml is not in force" in client.get("/policy").text
        assert client.get("/policy?format=json").json()["policy"]["version"] == 1


def test_without_any_policy_in_force_that_is_what_the_page_says(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    (silo.directory / "policy.yaml").unlink()
    shutil.rmtree(silo.directory / "policies")
    with shown(silo) as (client, _):
        assert "No policy is in force" in client.get("/policy").text
        assert client.get("/").status_code == 200


def test_a_ledger_that_is_gone_is_said_and_no_page_breaks(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    with shown(silo) as (client, _):
        for path in silo.directory.glob("ledger.db*"):
            path.unlink()
        answer = client.get("/ledger")
        assert answer.status_code == 503
        assert "How to mend it" in answer.text or "ledger.db" in answer.text


def test_a_damaged_ledger_is_a_finding_and_no_page_breaks(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    with tampering(silo.ledger_path) as db:
        db.execute("UPDATE entries SET payload = '{' WHERE seq = 2")
    with shown(silo) as (client, _):
        for path in ("/", "/budgets", "/jobs", "/policy", "/findings"):
            assert client.get(path).status_code == 200
        assert client.get("/ledger").status_code == 503


def test_one_snapshot_serves_who_asks_again_at_once(silo: AuditedSilo) -> None:
    lookout = Lookout(silo.directory, silo.charter_path)
    assert lookout.look() is lookout.look()


def test_a_missing_extra_says_what_to_install() -> None:
    require_extra("dashboard", "starlette", "uvicorn")
    with pytest.raises(MissingExtraError, match="no_such_module") as caught:
        require_extra("dashboard", "starlette", "no_such_module")
    assert caught.value.remedy == "pip install 'archipel[dashboard]'"
    assert caught.value.exit_code == 7
