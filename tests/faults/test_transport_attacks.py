"""Who may speak to the coordinator, and what it takes from them: a real coordinator on real TLS, attacked."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from federation import client
from federation.coordinator import Coordinator
from federation.identity import make_party
from federation.messages import (
    MAX_POST_BYTES,
    Acceptance,
    BlobKind,
    BlobRef,
    Cancel,
    proposal_id,
    seal,
)
from federation.store import Store
from federation.transport.base import MAX_MESSAGE_BYTES
from federation.transport.codec import Method, UploadHeader, encode_upload
from federation.transport.connection import CHUNK_BYTES, Patience, WireConnection
from federation.transport.grpc_client import GrpcWire, connect
from federation.transport.grpc_server import GrpcServer
from federation.transport.handshake import Endpoint, check_own_certificate
from federation.transport.tls import PinnedCertificates, TlsIdentity
from policies.canonical import digest
from policies.trust import ExpiredError
from privacy.errors import EquivocationError, HostError, ProtocolError, TrustError
from tests.contracts.federation_directories import Federation, make_federation, popularity_plan
from tests.contracts.transport_contract import some_bytes

NOW = datetime.now(UTC)
IMPATIENT = Patience(total_seconds=1.0, call_seconds=10.0, first_pause_seconds=0.05)
CATALOGUE = some_bytes(2 * CHUNK_BYTES + 333)


@dataclass
class Running:
    """A coordinator that serves, and how to call it."""

    federation: Federation
    coordinator: Coordinator
    server: GrpcServer

    def endpoint(self, party: str, **changes: object) -> Endpoint:
        return replace(self.federation.endpoint(party, self.server.port), **changes)  # type: ignore[arg-type]

    @asynccontextmanager
    async def connected(self, party: str) -> AsyncIterator[WireConnection]:
        connection = connect(self.endpoint(party), patience=IMPATIENT)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def wired(self, endpoint: Endpoint) -> AsyncIterator[GrpcWire]:
        """Without the checks that an honest client makes of itself."""
        wire = GrpcWire(endpoint)
        try:
            yield wire
        finally:
            await wire.close()

    async def board_of(self, party: str) -> list[tuple[int, bytes]]:
        return await self.coordinator.handle_posts(party, 0, 0)


@asynccontextmanager
async def running(
    federation: Federation,
    *,
    pinned: PinnedCertificates | None = None,
    clock: Callable[[], datetime] = lambda: NOW,
) -> AsyncIterator[Running]:
    coordinator = Coordinator(federation.hub.directory, federation.hub, federation.charter, clock=clock)
    await coordinator.start()
    server = await GrpcServer.start(
        coordinator,
        identity=federation.hub.tls,
        pinned=pinned or federation.pinned,
        host="127.0.0.1",
        port=0,
    )
    try:
        yield Running(federation, coordinator, server)
    finally:
        await server.stop(0.1)
        await coordinator.stop()


def certificate_that_may_sign(name: str) -> TlsIdentity:
    """What a member who plans to issue certificates would put into its card: no restriction at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _certificate(key, cn=name, issuer_name=name, signer=key)


def leaf_issued_by(issuer: TlsIdentity, issuer_name: str, *, cn: str) -> TlsIdentity:
    """A leaf in the name of ``cn`` that the owner of ``issuer``'s key made."""
    signer = load_pem_private_key(issuer.key_pem, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    return _certificate(
        ec.generate_private_key(ec.SECP256R1()), cn=cn, issuer_name=issuer_name, signer=signer
    )


def _certificate(
    key: ec.EllipticCurvePrivateKey, *, cn: str, issuer_name: str, signer: ec.EllipticCurvePrivateKey
) -> TlsIdentity:
    subject, issuer = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (cn, issuer_name)
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=100))
        .sign(signer, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return TlsIdentity(key_pem=pem, certificate_der=certificate.public_bytes(Encoding.DER))


# ── who may speak


def test_a_strangers_certificate_is_refused_and_the_client_explains_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        stranger = make_party(tmp_path / "stranger", "stranger", "silo")
        pinned = federation.pinned
        deluded = replace(pinned, der={**pinned.der, "stranger": stranger.tls.certificate_der})
        async with running(federation) as hub:
            endpoint = Endpoint("127.0.0.1", hub.server.port, "stranger", stranger.tls, deluded)
            connection = connect(endpoint, patience=IMPATIENT)
            with pytest.raises(TrustError, match="does not accept the certificate of stranger") as caught:
                await connection.info()
            await connection.close()
            assert "another charter" in (caught.value.remedy or "")

    asyncio.run(scenario())


def test_a_stranger_who_knows_the_charter_is_told_before_dialling(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    stranger = make_party(tmp_path / "stranger", "stranger", "silo")
    with pytest.raises(TrustError, match="not the one that the charter pins"):
        check_own_certificate(federation.endpoint("shop-a", 1, identity=stranger.tls))


@pytest.mark.parametrize(
    ("may_sign", "message"),
    [(False, "does not accept the certificate of shop-b"), (True, "not pinned by the charter")],
    ids=["by a certificate of ours", "by one that may sign"],
)
def test_a_certificate_issued_by_a_member_in_anothers_name_is_refused(
    tmp_path: Path, may_sign: bool, message: str
) -> None:
    """TLS refuses what our certificates issue. One made for the purpose gets a leaf through TLS; then the
    leaf's fingerprint counts, not its name."""

    async def scenario() -> None:
        federation = make_federation(tmp_path)
        pinned = federation.pinned
        issuer = certificate_that_may_sign("shop-a") if may_sign else federation.parties["shop-a"].tls
        forged = leaf_issued_by(issuer, "shop-a", cn="shop-b")
        server_side = replace(pinned, der={**pinned.der, "shop-a": issuer.certificate_der})
        attacker = replace(pinned, der={**pinned.der, "shop-b": forged.certificate_der})
        async with running(federation, pinned=server_side) as hub:
            with structlog.testing.capture_logs() as logs:
                endpoint = hub.endpoint("shop-b", identity=forged, pinned=attacker)
                connection = connect(endpoint, patience=IMPATIENT)
                with pytest.raises(TrustError, match=message):
                    await connection.post(b"in the name of shop-b")
                await connection.close()
            refused = [(entry["code"], entry["call"]) for entry in logs if entry["event"] == "refused"]
            assert refused == ([("trust", "Post")] if may_sign else []), (
                "TLS refusals never reach server code"
            )
            assert await hub.board_of("shop-a") == []
            async with hub.connected("shop-b") as honest:
                assert (await honest.info()).name == "hub"

    asyncio.run(scenario())


def test_equal_names_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    """Two pinned certificates with one CN both connect, each as the party that pinned it."""

    async def scenario() -> None:
        federation = make_federation(tmp_path)
        twin = TlsIdentity.generate("shop-a")
        pinned = replace(federation.pinned, der={**federation.pinned.der, "shop-b": twin.certificate_der})
        async with running(federation, pinned=pinned) as hub:
            for party, identity in (("shop-a", federation.parties["shop-a"].tls), ("shop-b", twin)):
                endpoint = hub.endpoint(party, identity=identity, pinned=pinned)
                connection = connect(endpoint, patience=IMPATIENT)
                assert (await connection.info()).name == "hub"
                await connection.close()

    asyncio.run(scenario())


def test_an_expired_charter_is_refused_by_the_coordinator(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path, expires=date(2026, 12, 31))
        async with running(federation, clock=lambda: datetime(2027, 1, 1, tzinfo=UTC)) as hub:
            async with hub.connected("shop-a") as connection:
                with pytest.raises(ExpiredError, match="in force until 2026-12-31") as caught:
                    await connection.post(b"x")
                with pytest.raises(ExpiredError):
                    await connection.info()
            assert "later date" in (caught.value.remedy or "")

    asyncio.run(scenario())


def test_a_wrong_clock_or_an_expired_certificate_is_explained(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    endpoint = federation.endpoint("shop-a", 1)
    with pytest.raises(TrustError, match="is valid from"):
        check_own_certificate(endpoint, NOW - timedelta(days=3))
    with pytest.raises(TrustError, match="expired on"):
        check_own_certificate(endpoint, NOW + timedelta(days=4000))
    check_own_certificate(endpoint, NOW)


def test_another_server_in_the_coordinators_place_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path / "one")
        impostor = make_federation(tmp_path / "two")
        both = replace(
            impostor.pinned,
            der={**impostor.pinned.der, "shop-a": federation.parties["shop-a"].tls.certificate_der},
        )
        async with running(impostor, pinned=both) as hub:
            connection = connect(federation.endpoint("shop-a", hub.server.port), patience=IMPATIENT)
            with pytest.raises(TrustError, match="another certificate than the charter's coordinator"):
                await connection.info()
            await connection.close()

    asyncio.run(scenario())


def test_a_post_in_anothers_name_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        envelope = seal(
            Cancel(), job="ab" * 16, sender="shop-b", identity=federation.parties["shop-b"].identity
        )
        async with running(federation) as hub, hub.connected("shop-a") as connection:
            with pytest.raises(ProtocolError, match="shop-a sent a post in the name of shop-b"):
                await connection.post(envelope.to_bytes())

    asyncio.run(scenario())


# ── what is taken from them


@asynccontextmanager
async def with_proposal(tmp_path: Path) -> AsyncIterator[tuple[Running, WireConnection, BlobRef]]:
    """A coordinator to which shop-a has announced, but not sent, a catalogue."""
    federation = make_federation(tmp_path)
    plan = popularity_plan(CATALOGUE)
    proposal = client.make_proposal(federation.parties["shop-a"], plan, len(CATALOGUE), NOW)
    async with running(federation) as hub, hub.connected("shop-a") as connection:
        await connection.post(proposal.to_bytes())
        job = proposal_id(proposal)
        yield hub, connection, BlobRef(job=job, kind=BlobKind.CATALOGUE, sender="shop-a")


def chunk_request(ref: BlobRef, offset: int, chunk: bytes, sha256: str | None = None) -> bytes:
    digest = sha256 or hashlib.sha256(chunk).hexdigest()
    return encode_upload(UploadHeader(ref=ref, offset=offset, sha256=digest), chunk)


def test_an_altered_post_is_refused_and_a_replayed_one_changes_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, connection, ref):
            federation = hub.federation
            cancel = seal(
                Cancel(), job=ref.job, sender="shop-a", identity=federation.parties["shop-a"].identity
            )
            raw = cancel.to_bytes()
            forged = raw.replace(cancel.signature[:8].encode(), b"AAAAAAAA")
            with pytest.raises(TrustError, match="not signed by its charter identity"):
                await connection.post(forged)
            before = await hub.board_of("shop-a")
            [(_, proposal)] = before
            assert await connection.post(proposal) == 1
            assert await hub.board_of("shop-a") == before
            with pytest.raises(ProtocolError, match="no job"):
                await connection.post(
                    seal(
                        Cancel(),
                        job="00" * 16,
                        sender="shop-a",
                        identity=federation.parties["shop-a"].identity,
                    ).to_bytes()
                )

    asyncio.run(scenario())


def test_an_oversize_message_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        async with running(federation) as hub, hub.connected("shop-a") as connection:
            with pytest.raises(ProtocolError, match="at most"):
                await connection.post(bytes(MAX_POST_BYTES + 1))
            with pytest.raises(ProtocolError, match="more than"):
                await connection.post(bytes(MAX_MESSAGE_BYTES + 1))
            assert (await connection.info()).name == "hub", "the coordinator goes on"

    asyncio.run(scenario())


def test_an_altered_chunk_is_refused_and_not_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, _, ref), hub.wired(hub.endpoint("shop-a")) as wire:
            digest = hashlib.sha256(CATALOGUE[:1000]).hexdigest()
            altered = b"!" + CATALOGUE[1:1000]
            with pytest.raises(ProtocolError, match="digest"):
                await wire.call(Method.UPLOAD, chunk_request(ref, 0, altered, digest), deadline_seconds=10)
            assert await hub.coordinator.blob_offset("shop-a", ref) == 0

    asyncio.run(scenario())


def test_bytes_beyond_the_declared_size_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, connection, ref):
            longer = tmp_path / "longer"
            longer.write_bytes(CATALOGUE + b"more")
            with pytest.raises(ProtocolError, match="beyond"):
                await connection.upload(ref, longer)
            assert await hub.coordinator.blob_offset("shop-a", ref) <= len(CATALOGUE)

    asyncio.run(scenario())


def test_other_bytes_of_the_declared_size_are_dropped(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, connection, ref):
            other, right = tmp_path / "other", tmp_path / "right"
            other.write_bytes(bytes(len(CATALOGUE)))
            right.write_bytes(CATALOGUE)
            with pytest.raises(ProtocolError, match="signed manifest"):
                await connection.upload(ref, other)
            await connection.upload(ref, right)
            got = tmp_path / "got"
            sha256 = hashlib.sha256(CATALOGUE).hexdigest()
            async with hub.connected("shop-b") as reader:
                await reader.download(ref, got, sha256=sha256, num_bytes=len(CATALOGUE))
            assert got.read_bytes() == CATALOGUE

    asyncio.run(scenario())


def test_bytes_nobody_announced_or_of_another_party_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, _, ref), hub.wired(hub.endpoint("shop-b")) as wire:
            with pytest.raises(ProtocolError, match="may not upload"):
                await wire.call(Method.UPLOAD, chunk_request(ref, 0, b"x"), deadline_seconds=10)
            unannounced = ref.model_copy(update={"kind": BlobKind.STREAM, "sender": "shop-b", "round": 1})
            with pytest.raises(ProtocolError, match="not been announced"):
                await wire.call(Method.UPLOAD, chunk_request(unannounced, 0, b"x"), deadline_seconds=10)

    asyncio.run(scenario())


@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
def test_an_upload_goes_on_after_a_cut_at_any_chunk_and_a_restart(tmp_path: Path, chunks: int) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        source = tmp_path / "catalogue"
        source.write_bytes(CATALOGUE)
        proposal = client.make_proposal(
            federation.parties["shop-a"], popularity_plan(CATALOGUE), len(CATALOGUE), NOW
        )
        ref = BlobRef(job=proposal_id(proposal), kind=BlobKind.CATALOGUE, sender="shop-a")
        have = min(chunks * CHUNK_BYTES, len(CATALOGUE))
        async with running(federation) as hub, hub.connected("shop-a") as connection:
            await connection.post(proposal.to_bytes())
            async with hub.wired(hub.endpoint("shop-a")) as wire:
                for offset in range(0, have, CHUNK_BYTES):
                    request = chunk_request(ref, offset, CATALOGUE[offset : offset + CHUNK_BYTES])
                    await wire.call(Method.UPLOAD, request, deadline_seconds=10)
        async with running(federation) as hub, hub.connected("shop-a") as connection:
            assert await connection.post(proposal.to_bytes()) == 1
            sent_before = connection.bytes_sent
            await connection.upload(ref, source)
            assert connection.bytes_sent - sent_before < len(CATALOGUE) - have + 2_000
            got = tmp_path / "got"
            sha256 = hashlib.sha256(CATALOGUE).hexdigest()
            await connection.download(ref, got, sha256=sha256, num_bytes=len(CATALOGUE))
            assert got.read_bytes() == CATALOGUE

    asyncio.run(scenario())


def test_a_coordinator_killed_between_the_last_byte_and_its_check_finishes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, _, ref):
            federation = hub.federation
        store = Store(federation.hub.directory)
        store.append_blob(ref, 0, CATALOGUE, num_bytes=len(CATALOGUE))
        assert not store.is_complete(ref)
        source = tmp_path / "catalogue"
        source.write_bytes(CATALOGUE)
        async with running(federation) as hub, hub.connected("shop-a") as connection:
            await connection.upload(ref, source)
        assert store.is_complete(ref)
        store.close()

    asyncio.run(scenario())


def test_saying_two_things_in_one_place_is_an_equivocation(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with with_proposal(tmp_path) as (hub, connection, ref):
            party = hub.federation.parties["shop-a"]
            plan_sha256 = digest(popularity_plan(CATALOGUE))
            for version in (1, 2):
                body = Acceptance(plan_sha256=plan_sha256, policy_sha256="0" * 64, policy_version=version)
                raw = seal(body, job=ref.job, sender="shop-a", identity=party.identity).to_bytes()
                if version == 1:
                    await connection.post(raw)
                else:
                    with pytest.raises(EquivocationError, match="already said another"):
                        await connection.post(raw)

    asyncio.run(scenario())


def test_a_second_coordinator_on_the_port_does_not_take_half_of_the_calls(tmp_path: Path) -> None:
    async def scenario() -> None:
        federation = make_federation(tmp_path)
        async with running(federation) as hub:
            with pytest.raises(HostError, match="in use"):
                await GrpcServer.start(
                    hub.coordinator,
                    identity=federation.hub.tls,
                    pinned=federation.pinned,
                    host="127.0.0.1",
                    port=hub.server.port,
                )

    asyncio.run(scenario())
