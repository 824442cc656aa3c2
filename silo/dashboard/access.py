"""Who may read the pages: whoever holds the link that was printed at the start, from this machine only.

===========================================  ================================================================
Attack                                       What stands against it
===========================================  ================================================================
another machine                              the server listens on a loopback address, and on no other
a website that resolves to 127.0.0.1         the Host header has to name a loopback address or localhost
another account of this machine              a token of 256 random bits, compared in constant time
a link found in history, logs, a Referer     the token opens one session, once; then it is worth nothing
a website that sends requests here           the cookie is SameSite=Strict; nothing but GET and HEAD exists
a website that frames or embeds a page       frame-ancestors, X-Frame-Options, Cross-Origin-Resource-Policy
markup in a name of the record               everything is escaped, and the policy allows no script at all
===========================================  ================================================================
"""

from __future__ import annotations

import hmac
import secrets
from http.cookies import CookieError, SimpleCookie
from threading import Lock
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "archipel_session"
STYLE = "/style.css"
OPEN = "/open"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Session:
    """The one session that a start of the dashboard gives away, for a token that is used once."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(32)
        self._secret = secrets.token_urlsafe(32)
        self._is_taken = False
        self._lock = Lock()

    def take(self, token: str) -> str | None:
        """The session's secret for its token; None for another token, and after the first time."""
        with self._lock:
            if self._is_taken or not _same(token, self.token):
                return None
            self._is_taken = True
            return self._secret

    def has(self, secret: str) -> bool:
        """Whether this is the session's secret."""
        return _same(secret, self._secret)


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode("ascii"))


class Guard:
    """Lets pass what may be answered, and puts the headers on every answer.

    Args:
        app: the pages.
        session: who may read them.
    """

    def __init__(self, app: ASGIApp, session: Session) -> None:
        self._app = app
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request; nothing but HTTP is spoken."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        if not _is_local(headers.getlist("host")):
            return PlainTextResponse("This is not a name of this machine.\n", status_code=421)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("Nothing can be changed here.\n", 405, headers={"Allow": "GET, HEAD"})
        if scope["path"] in (STYLE, OPEN) or self._session.has(_cookie(headers.getlist("cookie"))):
            return None
        return PlainTextResponse(FORBIDDEN, status_code=403)


FORBIDDEN = (
    "Open the link that `archipel silo dashboard` printed when it started. It works once; "
    "for another browser, stop the command and start it again.\n"
)


def _is_local(hosts: list[str]) -> bool:
    """Whether the one Host header names this machine; any port, so that a tunnel may have its own."""
    if len(hosts) != 1:
        return False
    try:
        parts = urlsplit(f"//{hosts[0]}")
        port = parts.port
    except ValueError:
        return False
    plain = parts.netloc == hosts[0] and not (parts.username or parts.password)
    return plain and parts.hostname in LOOPBACK_NAMES and port != 0


def _cookie(values: list[str]) -> str:
    try:
        found = SimpleCookie("; ".join(values)).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
