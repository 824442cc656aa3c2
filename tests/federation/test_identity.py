from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from federation.identity import Party, PartyFilesError, make_party
from federation.transport.tls import PinnedCertificates, TlsIdentity
from policies.charters.charter import check_certificate
from privacy.errors import ArchipelError, DataError, HostError, TrustError, UsageError
from tests.contracts.federation_directories import make_federation


def test_a_made_party_is_loaded_as_it_was_made(tmp_path: Path) -> None:
    made = make_party(tmp_path / "shop", "shop-a", "silo")
    loaded = Party.load(tmp_path / "shop")
    assert loaded.name == "shop-a"
    assert loaded.role == "silo"
    assert loaded.card == made.card
    assert loaded.tls == made.tls
    assert loaded.identity.public_key == made.identity.public_key
    assert loaded.administrator is not None
    assert loaded.card.administrators is not None
    assert loaded.card.administrators.keys == (loaded.administrator.public_key,)


def test_a_coordinator_says_where_it_is_and_has_no_administrator(tmp_path: Path) -> None:
    make_party(tmp_path, "hub", "coordinator", host="hub.example.org", port=8443)
    loaded = Party.load(tmp_path)
    assert (loaded.card.host, loaded.card.port) == ("hub.example.org", 8443)
    assert loaded.administrator is None
    assert not (tmp_path / "keys" / "administrator.pem").exists()


def test_private_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    make_party(tmp_path, "shop-a", "silo")
    keys = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert keys == ["administrator.pem", "identity.pem", "tls.pem"]
    for path in (tmp_path / "keys").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / "card.json").read_bytes()


@pytest.mark.parametrize("name", ["identity.pem", "administrator.pem", "tls.pem"])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, name: str) -> None:
    make_party(tmp_path, "shop-a", "silo")
    (tmp_path / "keys" / name).chmod(0o640)
    with pytest.raises(HostError, match="read by others") as caught:
        Party.load(tmp_path)
    assert "chmod 600" in str(caught.value)


def test_the_certificate_is_what_the_design_says(tmp_path: Path) -> None:
    party = make_party(tmp_path, "shop-a", "silo")
    certificate = x509.load_der_x509_certificate(party.tls.certificate_der)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp256r1"
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert [attribute.value for attribute in names] == ["shop-a"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not constraints.ca
    assert not usage.key_cert_sign
    check_certificate("shop-a", party.card)


def test_two_parties_of_one_name_have_different_keys(tmp_path: Path) -> None:
    first, second = (make_party(tmp_path / place, "shop-a", "silo") for place in ("one", "two"))
    assert first.identity.public_key != second.identity.public_key
    assert first.tls.certificate_sha256 != second.tls.certificate_sha256


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    made = make_party(tmp_path, "shop-a", "silo")
    with pytest.raises(PartyFilesError, match="lives here already"):
        make_party(tmp_path, "shop-a", "silo")
    (tmp_path / "card.json").unlink()
    with pytest.raises(PartyFilesError, match="lives here already"):
        make_party(tmp_path, "shop-a", "silo")
    assert made.tls.key_pem in (tmp_path / "keys" / "tls.pem").read_bytes()


@pytest.mark.parametrize(
    "name", ["", "Shop", "shop a", "-shop", "../shop", "shop\n", "søk", "s" * 64, "s" * 70]
)
def test_a_name_that_cannot_be_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="name") as caught:
        make_party(tmp_path / "shop", name, "silo")
    assert caught.value.remedy is not None
    assert not (tmp_path / "shop").exists()


@pytest.mark.parametrize(
    ("host", "port"), [("", 1), ("bad host", 1), ("hub", 0), ("hub", 65_536), (None, None)]
)
def test_a_coordinator_needs_an_address(tmp_path: Path, host: str | None, port: int | None) -> None:
    with pytest.raises(UsageError):
        make_party(tmp_path / "hub", "hub", "coordinator", host=host, port=port)
    assert not (tmp_path / "hub").exists()


def test_keys_and_card_of_different_parties_are_refused(tmp_path: Path) -> None:
    for place in ("one", "two"):
        make_party(tmp_path / place, "shop-a", "silo")
    for name, message in (("tls.pem", "another TLS certificate"), ("identity.pem", "another identity key")):
        mine, other = tmp_path / "one" / "keys" / name, tmp_path / "two" / "keys" / name
        kept = mine.read_bytes()
        shutil.copy(other, mine)
        with pytest.raises(TrustError, match=message):
            Party.load(tmp_path / "one")
        mine.write_bytes(kept)
    Party.load(tmp_path / "one")


def test_an_altered_card_is_refused(tmp_path: Path) -> None:
    make_party(tmp_path, "shop-a", "silo")
    card = tmp_path / "card.json"
    card.write_text(card.read_text().replace('"shop-a"', '"shop-b"'))
    with pytest.raises(TrustError, match="altered"):
        Party.load(tmp_path)


@pytest.mark.parametrize("name", ["card.json", "keys/identity.pem", "keys/tls.pem"])
@pytest.mark.parametrize("content", [None, b"", b"nonsense", b"\xff\xfe"])
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    make_party(tmp_path, "shop-a", "silo")
    path = tmp_path / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Party.load(tmp_path)
    assert Path(name).name in (caught.value.where or "")
    assert caught.value.remedy


def test_an_administrator_key_may_be_kept_elsewhere(tmp_path: Path) -> None:
    make_party(tmp_path, "shop-a", "silo")
    (tmp_path / "keys" / "administrator.pem").unlink()
    assert Party.load(tmp_path).administrator is None


def test_a_leaf_belongs_to_whoever_pinned_it_and_to_nobody_else(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    pinned = PinnedCertificates.of(federation.charter)
    for name, party in federation.parties.items():
        assert pinned.party_of(party.tls.certificate_pem) == name
    with pytest.raises(TrustError, match="not pinned"):
        pinned.party_of(TlsIdentity.generate("shop-a").certificate_pem)


def test_secrets_are_not_in_representations(tmp_path: Path) -> None:
    party = make_party(tmp_path, "shop-a", "silo")
    assert "PRIVATE" not in repr(party)
    with pytest.raises(ArchipelError):
        Party.load(tmp_path / "nowhere")
