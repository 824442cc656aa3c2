"""Attacks on the dashboard: from a website, from the network, from another account, and from the record."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from privacy.errors import UsageError
from silo.dashboard.access import COOKIE, Session
from silo.dashboard.app import make_app
from silo.dashboard.server import listen
from silo.dashboard.snapshot import Lookout
from tests.contracts.audited_silo import AuditedSilo, make_audited_silo
from tests.support.dashboards import browser, shown

PAGES = ("/", "/budgets", "/ledger", "/jobs", "/policy", "/findings")
MARKUP = "<script>alert(1)</script><b onmouseover=x>'\""


@pytest.fixture(scope="module")
def silo(tmp_path_factory: pytest.TempPathFactory) -> AuditedSilo:
    return make_audited_silo(tmp_path_factory.mktemp("silo"))


@pytest.fixture
def client(silo: AuditedSilo) -> Iterator[TestClient]:
    with shown(silo) as (client, _):
        yield client


def stranger(silo: AuditedSilo) -> tuple[TestClient, Session]:
    session = Session()
    return browser(Lookout(silo.directory, silo.charter_path), session), session


@pytest.mark.parametrize("path", [*PAGES, "/jobs/x", "/nowhere", "/style.css/../ledger", "//ledger"])
def test_nothing_is_shown_without_the_session(silo: AuditedSilo, path: str) -> None:
    client, _ = stranger(silo)
    answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "shop-a" not in answer.text


@pytest.mark.parametrize("token", ["", "x", "é", "\ud800", "0" * 43])
def test_a_guessed_token_opens_nothing_and_does_not_use_the_true_one_up(
    silo: AuditedSilo, token: str
) -> None:
    client, session = stranger(silo)
    assert session.take(token) is None
    assert client.get("/open", params={"token": token.encode("utf-8", "replace").decode()}).status_code == 403
    assert client.get("/open", params={"token": session.token}, follow_redirects=False).status_code == 303


def test_a_guessed_cookie_opens_nothing(silo: AuditedSilo) -> None:
    client, session = stranger(silo)
    for value in ("", "x", session.token, '"', "a; b=c"):
        assert client.get("/", headers={"Cookie": f"{COOKIE}={value}"}).status_code == 403


def test_a_link_found_in_a_history_is_worth_nothing(silo: AuditedSilo) -> None:
    client, session = stranger(silo)
    link = f"/open?token={session.token}"
    assert client.get(link).status_code == 200
    thief, _ = stranger(silo)
    thief = TestClient(client.app, base_url="http://127.0.0.1:8440")
    answer = thief.get(link, follow_redirects=False)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_a_preview_of_the_link_does_not_use_it_up(silo: AuditedSilo) -> None:
    client, session = stranger(silo)
    assert client.head(f"/open?token={session.token}").status_code == 403
    assert client.get(f"/open?token={session.token}").status_code == 200


def test_the_token_leaves_the_address_bar_and_the_cookie_is_for_this_site_and_no_script(
    silo: AuditedSilo,
) -> None:
    client, session = stranger(silo)
    answer = client.get(f"/open?token={session.token}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert session.token not in answer.headers["set-cookie"]


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8440", "127.0.0.1.evil.example", "localhost.evil.example:8440", "",
     "127.0.0.1@evil.example", "evil.example@127.0.0.1", "127.0.0.1:x", "10.0.0.1", "[::2]", "127.0.0.1/x"],
)  # fmt: skip
def test_a_name_rebound_to_this_machine_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8440", "localhost:9000", "[::1]:8440", "LOCALHOST"])
def test_this_machine_by_any_of_its_own_names_is_answered(client: TestClient, host: str) -> None:
    cookie = f"{COOKIE}={client.cookies[COOKIE]}"
    assert client.get("/", headers={"Host": host, "Cookie": cookie}).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "X"])
def test_a_request_that_would_change_something_is_refused(client: TestClient, method: str) -> None:
    for path in (*PAGES, "/nowhere"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize("path", [*PAGES, "/style.css", "/open", "/nowhere", "/ledger?page=x"])
def test_every_answer_forbids_script_frames_storing_and_embedding(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["style-src"] == "'self'"
    assert not {"script-src", "img-src", "connect-src"} & set(policy)
    assert headers["cache-control"] == "no-store"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


def test_no_page_fetches_anything_from_elsewhere(client: TestClient) -> None:
    for path in PAGES:
        text = client.get(path).text
        assert re.findall(r'(?:src|href|action)="(?!/|#)[^"]*"', text) == []
        assert not re.search(r"<script|\sstyle=|\son\w+=", text)
    assert not re.search(r"url\((?!#)|@import", client.get("/style.css").text)


def test_markup_in_the_record_stays_text(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    job = "a" * 32
    kept = silo.directory / "jobs" / job
    kept.mkdir()
    note = {"job": job, "phase": MARKUP, "round": 1, "num_rounds": 2, "outcome": MARKUP, "problem": MARKUP}
    (kept / "state.json").write_text(json.dumps(note))
    card = {"purpose": MARKUP, MARKUP: MARKUP, "privacy": {"statement": MARKUP, MARKUP: [MARKUP]}}
    (kept / "model-card.json").write_text(json.dumps(card))
    with silo.log() as log:
        log.append("reserved", {"job": MARKUP, "account": MARKUP})
    with shown(silo) as (client, _):
        pages = [client.get(path) for path in (*PAGES, f"/jobs/{job}", "/ledger", "/findings")]
        asked = client.get("/ledger", params={"job": MARKUP, "since": MARKUP})
    assert [answer.status_code for answer in pages] == [200] * len(pages)
    assert asked.status_code == 400
    assert sum("&lt;script&gt;" in answer.text for answer in pages) >= 3
    for answer in (*pages, asked):
        assert "<script" not in answer.text
        assert "<b onmouseover" not in answer.text


@pytest.mark.parametrize("name", ["../../card", "..%2f..%2fkeys%2fidentity", "%2e%2e", "0123"])
def test_the_name_of_a_job_is_no_path(client: TestClient, name: str) -> None:
    assert client.get(f"/jobs/{name}").status_code == 404


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "127.0.0.2"])
def test_the_network_is_never_listened_on(host: str) -> None:
    with pytest.raises(UsageError, match="this machine only"):
        listen(host, 0)


def test_what_listens_has_a_loopback_address() -> None:
    with listen("localhost", 0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert listening.family == socket.AF_INET


def test_looking_writes_nothing(tmp_path: Path) -> None:
    silo = make_audited_silo(tmp_path)
    (silo.directory / "policies").rename(tmp_path / "gone")

    def files() -> dict[str, bytes]:
        return {
            str(path): path.read_bytes()
            for path in silo.directory.rglob("*")
            if path.is_file() and not path.name.endswith(("-wal", "-shm"))
        }

    before = files()
    with shown(silo) as (client, _):
        for path in PAGES:
            assert client.get(path).status_code == 200
    assert files() == before


def test_a_fault_of_ours_has_the_headers_and_tells_nothing(silo: AuditedSilo) -> None:
    lookout = Lookout(silo.directory, silo.charter_path)
    session = Session()
    app = make_app(lookout, session)
    lookout.directory = None  # type: ignore[assignment]
    client = TestClient(app, base_url="http://127.0.0.1:8440", raise_server_exceptions=False)
    secret = session.take(session.token)
    answer = client.get("/ledger", headers={"Cookie": f"{COOKIE}={secret}"})
    assert answer.status_code == 500
    assert answer.text == "Internal Server Error"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
