"""Why a connection failed, in words.

A refused handshake reads "Socket closed": server code never sees it, and the client is not told the reason.
So the client looks for itself: at its own certificate, at the one the server shows, and at whether the server
hangs up after having seen ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from cryptography import x509

from federation.transport.base import UnreachableError
from federation.transport.tls import PinnedCertificates, TlsIdentity
from privacy.errors import ArchipelError, TrustError

_TIMEOUT_SECONDS = 5.0
_SECOND_LOOK_SECONDS = 1.0


class RefusedCertificateError(TrustError):
    """The coordinator hangs up after it has seen this party's certificate."""

    code: ClassVar[str] = "refused_certificate"


@dataclass(frozen=True)
class Endpoint:
    """Where the coordinator is, who it is, and who asks."""

    host: str
    port: int
    party: str
    identity: TlsIdentity
    pinned: PinnedCertificates

    def __str__(self) -> str:
        return f"{self.pinned.coordinator} at {self.host}:{self.port}"


def check_own_certificate(endpoint: Endpoint, now: datetime | None = None) -> None:
    """Accept the party's own certificate as one that the coordinator can accept.

    Raises:
        TrustError: it is not the pinned one, or not valid now.
    """
    if endpoint.pinned.der.get(endpoint.party) != endpoint.identity.certificate_der:
        raise TrustError(
            f"the TLS certificate of {endpoint.party} is not the one that the charter pins",
            where="keys/tls.pem",
            remedy="restore the key that card.json was made with, or have the charter amended",
        )
    _check_validity(endpoint.identity.certificate_der, f"the TLS certificate of {endpoint.party}", now)


def explain(endpoint: Endpoint) -> ArchipelError:
    """Find out why ``endpoint`` does not answer; blocking, at most a few seconds.

    A server that is killed while it shakes hands looks like one that refuses our certificate, so a refusal is
    believed when it happens twice.

    Returns:
        A :class:`~privacy.errors.TrustError` when no retry can help, else an
        :class:`~federation.transport.base.UnreachableError`.
    """
    found = _look(endpoint)
    if isinstance(found, RefusedCertificateError):
        time.sleep(_SECOND_LOOK_SECONDS)
        found = _look(endpoint)
    return found


def _look(endpoint: Endpoint) -> ArchipelError:
    where = str(endpoint)
    try:
        check_own_certificate(endpoint)
        with _dial(endpoint) as channel:
            if channel.getpeercert(binary_form=True) != endpoint.pinned.coordinator_der:
                return TrustError(
                    "whoever answers there shows another certificate than the charter's coordinator",
                    where=where,
                    remedy="check host and port; if they are right, somebody stands between you and it",
                )
            _check_validity(endpoint.pinned.coordinator_der, "the coordinator's TLS certificate")
            return _after_handshake(channel, endpoint)
    except ArchipelError as error:
        return error
    except ssl.SSLError as error:
        reason = error.reason or "no TLS"
        return UnreachableError(f"the TLS handshake failed ({reason})", where=where, remedy=_CHECK_ADDRESS)
    except OSError as error:
        text = error.strerror or "no answer in time"
        return UnreachableError(
            f"cannot connect: {text}", where=where, remedy="start it with coordinator run, " + _CHECK_ADDRESS
        )


_CHECK_ADDRESS = "check that host and port of the charter are right and reachable from here"


@contextlib.contextmanager
def _dial(endpoint: Endpoint) -> Iterator[ssl.SSLSocket]:
    """A TLS connection with our certificate; the server's is compared by the caller, not by a chain."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    descriptor, name = tempfile.mkstemp(prefix="archipel-tls-")  # 0600; ssl reads keys from files only
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(endpoint.identity.key_pem + endpoint.identity.certificate_pem)
        context.load_cert_chain(name)
    finally:
        Path(name).unlink()
    address = (endpoint.host, endpoint.port)
    with (
        socket.create_connection(address, timeout=_TIMEOUT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=endpoint.pinned.coordinator) as channel,
    ):
        yield channel


def _after_handshake(channel: ssl.SSLSocket, endpoint: Endpoint) -> ArchipelError:
    """With TLS 1.3 a server judges the client's certificate after the client believes to be connected."""
    try:
        greeting = channel.recv(64)
    except TimeoutError:
        greeting = b"?"
    except OSError:
        greeting = b""
    if greeting:
        return UnreachableError("the connection broke", where=str(endpoint), remedy="try again")
    return RefusedCertificateError(
        f"the coordinator does not accept the certificate of {endpoint.party}",
        where=str(endpoint),
        remedy="it may run under another charter than yours (compare charter show on both sides), "
        "or its clock may be wrong",
    )


def _check_validity(der: bytes, what: str, now: datetime | None = None) -> None:
    certificate = x509.load_der_x509_certificate(der)
    moment = now or datetime.now(UTC)
    today = f"{moment:%Y-%m-%d}"
    if moment < certificate.not_valid_before_utc:
        raise TrustError(
            f"{what} is valid from {certificate.not_valid_before_utc:%Y-%m-%d}, and here it is {today}",
            remedy="set this machine's clock",
        )
    if moment > certificate.not_valid_after_utc:
        raise TrustError(
            f"{what} expired on {certificate.not_valid_after_utc:%Y-%m-%d}, and here it is {today}",
            remedy="set this machine's clock, or make new keys and amend the charter",
        )
