"""Charters and cards: who is who, said once."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from policies.charters.charter import Administrators, Card, Charter, Member, check_certificate
from policies.signing import PrivateKey, SignatureError
from tests.contracts.policy_scene import certificate, make_hub, make_scene, make_silo, pinned

SCENE = make_scene()


def altered(**changes: object) -> dict[str, object]:
    return {**SCENE.charter.model_dump(mode="json"), **changes}


def members() -> list[dict[str, object]]:
    return SCENE.charter.model_dump(mode="json")["members"]


class TestCharter:
    def test_finds_parties_by_name(self):
        charter = SCENE.charter
        assert charter.member("shop-b") == charter.members[1]
        assert charter.member("hub") is None
        assert charter.member("stranger") is None
        assert [party.name for party in charter.parties()] == ["hub", "shop-a", "shop-b", "shop-c"]
        assert charter.identity_keys()["hub"] == SCENE.hub.identity.public_key

    def test_survives_json(self):
        again = Charter.model_validate_json(SCENE.charter.model_dump_json(exclude_unset=True), strict=True)
        assert again.signed_bytes() == SCENE.charter.signed_bytes()

    def test_a_name_key_or_certificate_stands_for_one_party_only(self):
        first, second = members()[:2]
        for field in ("silo", "identity_key"):
            with pytest.raises(ValidationError, match="stands for two parties"):
                Charter.model_validate(altered(members=[first, {**second, field: first[field]}]))
        same_tls = {name: first[name] for name in ("certificate", "certificate_sha256")}
        with pytest.raises(
            ValidationError, match=r"one certificate stands for two parties \(shop-a, shop-b\)"
        ):
            Charter.model_validate(altered(members=[first, {**second, **same_tls}]))

    def test_the_coordinator_is_no_member(self):
        first, second = members()[:2]
        with pytest.raises(ValidationError, match=r"one name .*\(hub, hub\)"):
            Charter.model_validate(altered(members=[first, {**second, "silo": "hub"}]))

    def test_a_pinned_certificate_must_have_its_hash(self):
        first, second = members()[:2]
        with pytest.raises(ValidationError, match="certificate_sha256"):
            Charter.model_validate(altered(members=[{**first, "certificate_sha256": "0" * 64}, second]))

    def test_thresholds_can_be_reached(self):
        with pytest.raises(ValidationError, match=r"amendments\.threshold"):
            Charter.model_validate(altered(amendments={"threshold": 4}))
        key = PrivateKey.generate().public_key
        with pytest.raises(ValidationError, match="never be reached"):
            Administrators(threshold=2, keys=(key,))
        with pytest.raises(ValidationError, match="twice"):
            Administrators(threshold=1, keys=(key, key))

    @pytest.mark.parametrize("name", ["", "Shop", "-a", "a_b", "a" * 64, "a b", "../a"])
    def test_names_are_safe_everywhere(self, name):
        with pytest.raises(ValidationError):
            Charter.model_validate(altered(name=name))

    def test_one_member_is_no_federation(self):
        with pytest.raises(ValidationError):
            Charter.model_validate(altered(members=members()[:1]))


class TestCard:
    def test_becomes_the_charters_entry(self):
        card = SCENE.silos["shop-a"].card.verify()
        assert card.as_member() == SCENE.charter.member("shop-a")
        assert SCENE.hub.card.verify().as_coordinator() == SCENE.charter.coordinator

    def test_roles_are_not_mixed_up(self):
        with pytest.raises(SignatureError, match="a coordinator's"):
            make_hub().card.as_member()
        with pytest.raises(SignatureError, match="a silo's"):
            make_silo("shop-x").card.as_coordinator()

    @pytest.mark.parametrize("field", ["name", "administrators", "certificate", "identity_key"])
    def test_an_altered_card_is_refused(self, field):
        other = make_silo("shop-b").card.model_dump(mode="json", exclude_unset=True)
        values = SCENE.silos["shop-a"].card.model_dump(mode="json", exclude_unset=True)
        values[field] = other[field]
        if field == "certificate":
            values["certificate_sha256"] = other["certificate_sha256"]
        with pytest.raises(SignatureError, match="altered"):
            Card.model_validate(values).verify()

    def test_a_silo_names_administrators_and_is_never_dialled(self):
        keys = Administrators(threshold=1, keys=(PrivateKey.generate().public_key,))
        with pytest.raises(ValidationError, match="administrators"):
            Card.issue(PrivateKey.generate(), role="silo", name="a", certificate_der=b"x")
        with pytest.raises(ValidationError, match="host"):
            Card.issue(
                PrivateKey.generate(),
                role="silo",
                name="a",
                certificate_der=b"x",
                administrators=keys,
                host="a.example",
                port=1,
            )


class TestCertificate:
    def entry(self, der: bytes) -> Member:
        values = SCENE.charter.members[0].model_dump(mode="json")
        return Member.model_validate({**values, **pinned(der)})

    def test_in_another_name_is_refused(self):
        with pytest.raises(SignatureError, match="in the name of shop-b"):
            check_certificate("shop-a", self.entry(certificate("shop-b")))

    def test_with_another_curve_is_refused(self):
        key = ec.generate_private_key(ec.SECP384R1())
        with pytest.raises(SignatureError, match="P-256"):
            check_certificate("shop-a", self.entry(certificate("shop-a", key)))

    def test_that_is_none_is_refused(self):
        with pytest.raises(SignatureError, match=r"X\.509"):
            check_certificate("shop-a", self.entry(b"not a certificate"))

    def test_pem_is_what_openssl_writes(self):
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        entry = SCENE.charter.members[0]
        parsed = x509.load_pem_x509_certificate(entry.certificate_pem)
        assert parsed.public_bytes(Encoding.PEM) == entry.certificate_pem
