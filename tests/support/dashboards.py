"""The dashboard over a real silo's directory, its session open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.testclient import TestClient

from silo.dashboard.access import Session
from silo.dashboard.app import make_app
from silo.dashboard.snapshot import Lookout
from tests.contracts.audited_silo import AuditedSilo


def browser(lookout: Lookout, session: Session) -> TestClient:
    return TestClient(make_app(lookout, session), base_url="http://127.0.0.1:8440")


@contextmanager
def shown(silo: AuditedSilo) -> Iterator[tuple[TestClient, Session]]:
    session = Session()
    client = browser(Lookout(silo.directory, silo.charter_path), session)
    assert client.get("/open", params={"token": session.token}).status_code == 200
    yield client, session
