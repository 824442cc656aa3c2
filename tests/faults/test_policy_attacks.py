"""Attacks on the files that administrators live in. Each is refused, for its own reason."""

from __future__ import annotations

import json
from datetime import date, timedelta

import pytest

from policies.canonical import digest, signed_bytes
from policies.charters.charter import Charter
from policies.documents import MAX_FILE_BYTES, PolicyFileError
from policies.files import dump_yaml
from policies.signing import PrivateKey, SignatureError
from policies.trust import (
    MAX_VERSION_STEP,
    ExpiredError,
    FastForwardError,
    OversizeError,
    RollbackError,
    ThresholdError,
    UnsignedError,
    WrongSiloError,
    trust_charter,
    trust_policy,
)
from privacy.errors import EquivocationError, ExitCode, TrustError
from tests.contracts.policy_scene import (
    NOW,
    certificate,
    make_scene,
    pinned,
    policy_text,
    read_policy,
    sign,
)

SCENE = make_scene()
ADMINISTRATORS = SCENE.administrators()
OLD_DAY = date(2026, 5, 31)


def accept(text: str, signatures: bytes | None = None, **changes: object) -> object:
    """What shop-a's agent does at its start; version 6 was trusted before."""
    if signatures is None:
        signatures = sign(read_policy(text).signed_bytes(), *ADMINISTRATORS[:2])
    arguments = {"charter": SCENE.charter, "silo": "shop-a", "previous_version": 6, "now": NOW, **changes}
    return trust_policy(text.encode(), signatures, **arguments)  # type: ignore[arg-type]


def accept_charter(charter: Charter, *signers: PrivateKey) -> Charter:
    return trust_charter(dump_yaml(charter).encode(), sign(charter.signed_bytes(), *signers), NOW)


def everybody() -> list[PrivateKey]:
    return [silo.identity for silo in SCENE.silos.values()]


def charter_with(**changes: object) -> Charter:
    values = {**SCENE.charter.model_dump(mode="json"), **changes}
    return Charter.model_validate_json(json.dumps(values))


def test_the_untouched_files_are_accepted():
    accept(policy_text())
    accept_charter(SCENE.charter, *everybody())


class TestPolicy:
    def test_rollback_to_an_older_signed_version(self):
        with pytest.raises(RollbackError, match="version 5 is older than version 6") as caught:
            accept(policy_text(version=5))
        assert caught.value.exit_code is ExitCode.TRUST

    def test_rollback_to_the_same_version_with_other_content(self):
        looser = policy_text(version=7).replace("epsilon: 8.0", "epsilon: 9.0")
        with pytest.raises(EquivocationError, match="other content"):
            accept(looser, previous_version=7, previous_sha256=digest(read_policy(policy_text(version=7))))

    def test_fast_forward_so_that_no_newer_version_can_follow(self):
        accept(policy_text(version=6 + MAX_VERSION_STEP))
        for version in (6 + MAX_VERSION_STEP + 1, 2**31 - 1):
            with pytest.raises(FastForwardError):
                accept(policy_text(version=version))
        with pytest.raises(PolicyFileError, match="version"):
            accept(policy_text(version=2**31), b"{}")

    def test_expired(self):
        with pytest.raises(ExpiredError, match="2026-05-31"):
            accept(policy_text(expires=OLD_DAY))

    def test_indefinite_freeze_by_setting_the_clock_back_needs_the_clock(self):
        """Trust follows the one reference time it is given; the same bytes pass before and fail after."""
        text = policy_text(expires=OLD_DAY)
        accept(text, now=NOW - timedelta(days=2))
        with pytest.raises(ExpiredError):
            accept(text, now=NOW)

    def test_one_signature_short(self):
        text = policy_text()
        with pytest.raises(ThresholdError, match="1 of 2"):
            accept(text, sign(read_policy(text).signed_bytes(), ADMINISTRATORS[0]))

    def test_wrong_signer(self):
        text = policy_text()
        payload = read_policy(text).signed_bytes()
        strangers = [PrivateKey.generate() for _ in range(3)]
        others = SCENE.administrators("shop-b")
        identity = SCENE.silos["shop-a"].identity
        for keys in (strangers, (*others, identity), (ADMINISTRATORS[0], identity)):
            with pytest.raises(ThresholdError):
                accept(text, sign(payload, *keys))

    def test_a_signature_of_one_administrator_twice(self):
        text = policy_text()
        file = json.loads(sign(read_policy(text).signed_bytes(), ADMINISTRATORS[0]))
        file["signatures"] *= 2
        with pytest.raises(ThresholdError, match="1 of 2"):
            accept(text, json.dumps(file).encode())

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("epsilon: 8.0", "epsilon: 9.0"),
            ("min_silos: 3", "min_silos: 2"),
            ("version: 7", "version: 8"),
            ("[shop-b, shop-c]", "[shop-b, shop-c, shop-d]"),
            ("expires: 2027", "expires: 2028"),
            ("max_silos_per_user: 1", "max_silos_per_user: 1\n    unit: user_row"),
        ],
    )
    def test_changed_after_signing(self, old, new):
        signatures = sign(read_policy(policy_text()).signed_bytes(), *ADMINISTRATORS)
        altered = policy_text().replace(old, new)
        assert altered != policy_text()
        with pytest.raises(SignatureError, match="not what was signed"):
            accept(altered, signatures)

    def test_changed_after_signing_with_the_hash_corrected(self):
        file = json.loads(sign(read_policy(policy_text()).signed_bytes(), *ADMINISTRATORS))
        altered = policy_text().replace("epsilon: 8.0", "epsilon: 9.0")
        fresh = json.loads(sign(read_policy(altered).signed_bytes()))
        with pytest.raises(ThresholdError, match="0 of 2"):
            accept(altered, json.dumps({**file, "payload_sha256": fresh["payload_sha256"]}).encode())

    def test_signatures_of_another_kind_over_the_same_content(self):
        policy = read_policy(policy_text())
        with pytest.raises(SignatureError):
            accept(policy_text(), sign(signed_bytes("charter", policy), *ADMINISTRATORS))

    def test_another_silos_policy(self):
        text = policy_text("shop-b")
        with pytest.raises(WrongSiloError, match="policy of shop-b"):
            accept(text, sign(read_policy(text).signed_bytes(), *ADMINISTRATORS))

    def test_unsigned(self):
        for signatures in (b"", b"null", b"[]", b'{"signatures": []}', b"\xff"):
            with pytest.raises(UnsignedError):
                accept(policy_text(), signatures)

    def test_oversize(self):
        padding = b"#" * MAX_FILE_BYTES
        signatures = sign(read_policy(policy_text()).signed_bytes(), *ADMINISTRATORS)
        with pytest.raises(OversizeError):
            trust_policy(policy_text().encode() + padding, signatures, charter=SCENE.charter, silo="shop-a",
                         previous_version=None, now=NOW)  # fmt: skip
        with pytest.raises(OversizeError):
            accept(policy_text(), signatures + b" " * MAX_FILE_BYTES)

    def test_unknown_field(self):
        """A field this version does not know could be a limit: ignoring it would loosen what was signed."""
        text = policy_text() + "max_models_per_year: 1\n"
        signatures = sign(read_policy(policy_text()).signed_bytes(), *ADMINISTRATORS)
        with pytest.raises(PolicyFileError, match="unknown field"):
            accept(text, signatures)

    def test_a_field_twice_so_that_two_readers_see_two_policies(self):
        signatures = sign(read_policy(policy_text()).signed_bytes(), *ADMINISTRATORS)
        with pytest.raises(PolicyFileError, match="twice"):
            accept(policy_text() + "version: 7\n", signatures)

    def test_a_newer_schema(self):
        with pytest.raises(PolicyFileError, match="schema_version"):
            accept(policy_text().replace("schema_version: 1", "schema_version: 2"), b"{}")

    def test_a_billion_laughs(self):
        lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
        with pytest.raises(PolicyFileError, match="alias"):
            accept("\n".join(lines), b"{}")

    def test_refusals_are_trust_errors_with_a_way_out(self):
        for text in (policy_text(version=5), policy_text(version=5000), policy_text(expires=OLD_DAY)):
            with pytest.raises(TrustError) as caught:
                accept(text)
            assert caught.value.remedy


class TestCharter:
    def test_one_signature_short(self):
        with pytest.raises(ThresholdError, match="not signed by shop-c"):
            accept_charter(SCENE.charter, *everybody()[:2])

    def test_wrong_signer_in_a_members_place(self):
        with pytest.raises(ThresholdError, match="shop-c"):
            accept_charter(SCENE.charter, *everybody()[:2], SCENE.hub.identity, PrivateKey.generate())

    def test_expired(self):
        with pytest.raises(ExpiredError):
            accept_charter(charter_with(expires=OLD_DAY.isoformat()), *everybody())

    def test_an_administrator_added_after_signing(self):
        values = SCENE.charter.model_dump(mode="json")
        values["members"][0]["administrators"]["keys"].append(str(PrivateKey.generate().public_key))
        altered = Charter.model_validate_json(json.dumps(values))
        signatures = SCENE.charter_signatures()
        with pytest.raises(SignatureError, match="not what was signed"):
            trust_charter(dump_yaml(altered).encode(), signatures, NOW)

    def test_a_member_swapped_for_a_stranger(self):
        values = SCENE.charter.model_dump(mode="json")
        values["members"][2]["identity_key"] = str(PrivateKey.generate().public_key)
        altered = Charter.model_validate_json(json.dumps(values))
        with pytest.raises(ThresholdError, match="shop-c"):
            accept_charter(altered, *everybody())

    def test_a_certificate_in_another_partys_name(self):
        """gRPC's chain check passes for any pinned root; the name inside must be the party's own."""
        values = SCENE.charter.model_dump(mode="json")
        values["members"][1] |= pinned(certificate("hub"))
        altered = Charter.model_validate_json(json.dumps(values))
        with pytest.raises(SignatureError, match="in the name of hub"):
            accept_charter(altered, *everybody())

    def test_unknown_field(self):
        text = dump_yaml(SCENE.charter) + "guests: [shop-x]\n"
        with pytest.raises(PolicyFileError, match="unknown field"):
            trust_charter(text.encode(), SCENE.charter_signatures(), NOW)

    def test_oversize(self):
        with pytest.raises(OversizeError):
            trust_charter(b"#" * (MAX_FILE_BYTES + 1), SCENE.charter_signatures(), NOW)
