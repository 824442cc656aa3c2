"""Keys, signatures and thresholds."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from policies.signing import (
    DetachedSignatures,
    KeyFileError,
    KeySignature,
    PrivateKey,
    PublicKey,
    SignatureError,
    ThresholdError,
    verify_threshold,
)
from privacy.errors import ExitCode, HostError

KEYS = tuple(PrivateKey.generate() for _ in range(4))
PUBLIC = tuple(key.public_key for key in KEYS)
PAYLOAD = b"archipel/silo-policy/v1\0{}"


def signed_by(*keys: PrivateKey, payload: bytes = PAYLOAD) -> DetachedSignatures:
    signatures = DetachedSignatures.over(payload)
    for key in keys:
        signatures = signatures.signed_by(key, payload)
    return signatures


class TestKeys:
    def test_text_form_round_trips(self):
        key = PUBLIC[0]
        assert str(key).startswith("ed25519:")
        assert PublicKey.parse(str(key)) == key == PublicKey.parse(key)
        assert len(key.key_id) == 16
        assert len({*PUBLIC, PublicKey.parse(str(key))}) == 4

    @pytest.mark.parametrize(
        "text",
        ["", "rsa:AAAA", "ed25519:", "ed25519:AAAA", "ed25519:" + "A" * 43, "ed25519:!" + "A" * 42 + "="],
    )
    def test_other_text_is_refused(self, text):
        with pytest.raises(ValueError, match=r"public key|base64"):
            PublicKey.parse(text)

    def test_a_key_has_one_spelling_only(self):
        # The last base64 digit of 32 bytes has unused bits: the same key could be spelt in several ways.
        text = "ed25519:" + base64.b64encode(bytes(32)).decode()
        twin = text[:-2] + "B="
        assert base64.b64decode(twin.removeprefix("ed25519:")) == bytes(32)
        with pytest.raises(ValueError, match="not the base64"):
            PublicKey.parse(twin)

    def test_a_pydantic_field_reads_text_and_writes_text(self):
        class Entry(BaseModel):
            key: PublicKey

        entry = Entry.model_validate_json(f'{{"key": "{PUBLIC[0]}"}}', strict=True)
        assert entry.key == PUBLIC[0]
        assert Entry(key=PUBLIC[0]).model_dump(mode="json") == {"key": str(PUBLIC[0])}
        with pytest.raises(ValidationError):
            Entry.model_validate({"key": "ed25519:nonsense"})

    def test_repr_shows_no_secret(self):
        assert repr(KEYS[0]) == f"PrivateKey({KEYS[0].key_id})"

    def test_file_is_private_and_never_overwritten(self, tmp_path):
        path = tmp_path / "keys" / "identity.pem"
        KEYS[0].save(path)
        assert path.stat().st_mode & 0o777 == 0o600
        assert PrivateKey.load(path).public_key == PUBLIC[0]
        with pytest.raises(KeyFileError, match="never overwritten"):
            KEYS[1].save(path)
        assert PrivateKey.load(path).public_key == PUBLIC[0]

    def test_a_key_that_others_can_read_is_not_used(self, tmp_path):
        path = tmp_path / "identity.pem"
        KEYS[0].save(path)
        path.chmod(0o640)
        with pytest.raises(HostError) as caught:
            PrivateKey.load(path)
        assert caught.value.remedy == f"chmod 600 {path}"

    def test_missing_or_foreign_files_are_explained(self, tmp_path):
        with pytest.raises(KeyFileError, match="no such key") as caught:
            PrivateKey.load(tmp_path / "none.pem")
        assert caught.value.exit_code is ExitCode.DATA
        path = tmp_path / "other.pem"
        path.touch(mode=0o600)
        path.write_bytes(b"not a key")
        with pytest.raises(KeyFileError, match="PEM"):
            PrivateKey.load(path)
        exchange = X25519PrivateKey.generate()
        path.write_bytes(exchange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with pytest.raises(KeyFileError, match="Ed25519"):
            PrivateKey.load(path)


class TestSignatures:
    @settings(max_examples=25)
    @given(st.binary(max_size=64), st.integers(0, 63), st.integers(1, 255))
    def test_any_change_of_the_signature_is_refused(self, data, position, change):
        raw = bytearray(base64.b64decode(KEYS[0].sign(data)))
        PUBLIC[0].verify(data, base64.b64encode(raw).decode())
        raw[position] ^= change
        with pytest.raises(SignatureError):
            PUBLIC[0].verify(data, base64.b64encode(raw).decode())

    def test_other_data_and_other_keys_are_refused(self):
        signature = KEYS[0].sign(b"one")
        with pytest.raises(SignatureError):
            PUBLIC[0].verify(b"two", signature)
        with pytest.raises(SignatureError):
            PUBLIC[1].verify(b"one", signature)

    @pytest.mark.parametrize("text", ["", "AAAA", "nonsense!"])
    def test_text_that_is_no_signature_is_refused(self, text):
        with pytest.raises(SignatureError):
            PUBLIC[0].verify(b"one", text)


class TestThreshold:
    def test_enough_different_signers_are_accepted_and_named(self):
        assert verify_threshold(PAYLOAD, signed_by(*KEYS[:2]), PUBLIC[:3], 2) == frozenset(PUBLIC[:2])

    def test_one_key_counts_once_however_often_it_stands_there(self):
        entry = signed_by(KEYS[0]).signatures[0]
        doubled = DetachedSignatures(
            payload_sha256=signed_by(KEYS[0]).payload_sha256, signatures=(entry, entry)
        )
        with pytest.raises(ThresholdError, match="1 of 2"):
            verify_threshold(PAYLOAD, doubled, (PUBLIC[0], PUBLIC[0], PUBLIC[1]), 2)

    def test_strangers_and_forgeries_count_for_nothing(self):
        forged = KeySignature(key_id=PUBLIC[1].key_id, signature=KEYS[3].sign(PAYLOAD))
        good = signed_by(KEYS[0], KEYS[3])
        signatures = good.model_copy(update={"signatures": (*good.signatures, forged)})
        assert verify_threshold(PAYLOAD, signatures, PUBLIC[:2], 1) == {PUBLIC[0]}
        with pytest.raises(ThresholdError) as caught:
            verify_threshold(PAYLOAD, signatures, PUBLIC[:2], 2)
        assert PUBLIC[1].key_id in str(caught.value.remedy)

    def test_a_relabelled_signature_does_not_make_a_second_signer(self):
        entry = signed_by(KEYS[0]).signatures[0]
        relabelled = KeySignature(key_id=PUBLIC[1].key_id, signature=entry.signature)
        signatures = DetachedSignatures.over(PAYLOAD).model_copy(update={"signatures": (entry, relabelled)})
        with pytest.raises(ThresholdError):
            verify_threshold(PAYLOAD, signatures, PUBLIC[:2], 2)

    def test_a_signature_under_another_keys_id_counts_for_nobody(self):
        entry = KeySignature(key_id=PUBLIC[1].key_id, signature=KEYS[0].sign(PAYLOAD))
        signatures = DetachedSignatures.over(PAYLOAD).model_copy(update={"signatures": (entry,)})
        with pytest.raises(ThresholdError, match="0 of 1"):
            verify_threshold(PAYLOAD, signatures, PUBLIC[:2], 1)

    def test_signatures_of_other_content_say_so(self):
        with pytest.raises(SignatureError, match="not what was signed"):
            verify_threshold(PAYLOAD + b" ", signed_by(KEYS[0]), PUBLIC, 1)

    @pytest.mark.parametrize("threshold", [0, -1])
    def test_a_threshold_below_one_is_a_bug(self, threshold):
        with pytest.raises(ValueError, match="nothing is trusted"):
            verify_threshold(PAYLOAD, signed_by(KEYS[0]), PUBLIC, threshold)


class TestUnion:
    def test_is_the_same_in_any_order_and_idempotent(self):
        one, two = signed_by(KEYS[0]), signed_by(KEYS[1])
        assert one.united(two) == two.united(one) == one.united(two).united(two)
        assert signed_by(KEYS[0], KEYS[0]) == one

    def test_of_different_contents_is_refused(self):
        with pytest.raises(SignatureError, match="different contents"):
            signed_by(KEYS[0]).united(signed_by(KEYS[1], payload=b"other"))
