"""The dashboard as an ASGI application: routes to pages, HTML or JSON, and what goes wrong said plainly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from privacy.errors import ArchipelError, ExitCode, UsageError
from silo.dashboard import pages
from silo.dashboard.access import COOKIE, FORBIDDEN, OPEN, STYLE, Guard, Session
from silo.dashboard.snapshot import Lookout, Snapshot

MAX_PAGE = 100_000
MAX_ENTRY = 10**9


def make_app(lookout: Lookout, session: Session) -> Guard:
    """The application.

    Args:
        lookout: the silo that is shown.
        session: who may see it.
    """
    desk = _Desk(lookout, session)
    simple = {
        "/": pages.overview_page,
        "/budgets": pages.budgets_page,
        "/jobs": pages.jobs_page,
        "/policy": pages.policy_page,
        "/findings": pages.findings_page,
    }
    routes = [Route(path, desk.shows(make), methods=["GET"]) for path, make in simple.items()]
    routes += [
        Route("/ledger", desk.ledger, methods=["GET"]),
        Route("/jobs/{job}", desk.job, methods=["GET"]),
        Route(OPEN, desk.open, methods=["GET"]),
        Route(STYLE, desk.style, methods=["GET"]),
    ]
    handlers = {ArchipelError: desk.trouble, HTTPException: _plain}
    # Outermost, so that an answer of 500 has the headers too.
    return Guard(Starlette(routes=routes, exception_handlers=handlers), session)


class _Desk:
    """Answers requests; plain functions, which starlette runs beside its loop."""

    def __init__(self, lookout: Lookout, session: Session) -> None:
        self._lookout = lookout
        self._session = session
        self._drawing = pages.Drawing()

    def shows(self, make: Callable[[Snapshot], pages.Page]) -> Callable[[Request], Response]:
        """An endpoint for one page."""

        def endpoint(request: Request) -> Response:
            now = self._lookout.look()
            return self._answer(request, make(now), now)

        return endpoint

    def ledger(self, request: Request) -> Response:
        """Entries are read anew each time, whatever the age of the snapshot that the header is from."""
        number = _number(request, "page", MAX_PAGE) or 1
        upto = _number(request, "upto", MAX_ENTRY)
        page = pages.ledger_page(self._lookout.directory, request.query_params, number, upto)
        return self._answer(request, page, replace(self._lookout.latest(), at=datetime.now(UTC)))

    def job(self, request: Request) -> Response:
        now = self._lookout.look()
        page = pages.job_page(now, request.path_params["job"])
        if page is None:
            raise HTTPException(404)
        return self._answer(request, page, now)

    def open(self, request: Request) -> Response:
        """Exchange the token for the cookie; the redirect leaves the token behind."""
        # A HEAD request (a preview of the link) must not use the token up.
        token = request.query_params.get("token", "") if request.method == "GET" else ""
        secret = self._session.take(token)
        if secret is None:
            return PlainTextResponse(FORBIDDEN, status_code=403)
        answer = RedirectResponse("/", status_code=303)
        answer.set_cookie(COOKIE, secret, httponly=True, samesite="strict", path="/")
        return answer

    def style(self, _: Request) -> Response:
        return Response(self._drawing.style, media_type="text/css")

    def trouble(self, request: Request, error: Exception) -> Response:
        """What cannot be read now, or was asked wrongly."""
        assert isinstance(error, ArchipelError)  # noqa: S101  only these are registered
        is_asked_wrongly = error.exit_code is ExitCode.USAGE
        status = 400 if is_asked_wrongly else 503
        if _wants_json(request):
            body = {
                "code": error.code,
                "message": error.message,
                "where": error.where,
                "remedy": error.remedy,
            }
            return JSONResponse(body, status)
        title = "This cannot be shown" if is_asked_wrongly else "This cannot be read now"
        return HTMLResponse(self._drawing.trouble(title, error), status)

    def _answer(self, request: Request, page: pages.Page, now: Snapshot) -> Response:
        return (
            JSONResponse(page.data) if _wants_json(request) else HTMLResponse(self._drawing.page(page, now))
        )


def _plain(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  only these are registered
    return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)


def _wants_json(request: Request) -> bool:
    asked = request.query_params.get("format")
    if asked is not None:
        return asked == "json"
    return request.headers.get("accept", "").split(",")[0].split(";")[0].strip() == "application/json"


def _number(request: Request, name: str, highest: int) -> int | None:
    text = request.query_params.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= highest):
        raise UsageError(f"there is no such {name}", where=name, remedy=f"a number from 1 to {highest}")
    return int(text)
