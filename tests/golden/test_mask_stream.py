"""Published vectors of the primitives, and known answers of what is built of them.

The known answers bind every silo of a federation: a change here is a change of protocol.
"""

from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privacy.agreement import EphemeralKey, Purpose, pair_key, received_mac, round_digest, tag_key
from privacy.masking import Keystream, apply_masks, keystream_mod_t, tag_of

COUNTING_KEY = bytes(range(32))

# RFC 7748, section 6.1
ALICE = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"
ALICE_PUBLIC = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
BOB = "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"
BOB_PUBLIC = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
SHARED = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"

# Own known answers, computed once with this code and, where a test says so, by a second route
STREAM = [80447790944498, 51528511189929, 62992917356016, 72877837383334]
STREAM_SHA256 = "e84c1833ded90c303a5987cb4efc138c34b0c115ce6d689ef3bb18ebdeecf1f0"
REJECTING_SHA256 = "b311bec4c871d3e1d2bf0b3a0469fe6a0bac8bec941baebdd1515dcf2fa7fb94"
MASKED = [131356252095723, 94234434999558, 13732303581541, 10431403420934, 56725219240900, 78763762886148]
TAG = 133170941483050
PAIR_KEY = "79b9793342fdd364cc374aae1d187104ec0cf86aa6294742067b3fe5209fcf46"
TAG_KEY = "cecb0e3fd545114c8901098937eabc07a51641bb462706c08f3c879127a23b62"
ROUND_DIGEST = "b3ef5639c562ee7c3a2935ffb4dda15b1b30210154aff186dfffe5aea2996752"
RECEIVED = "518119aa20728f77c21155443383f0249cd1e9616866c0b6ffdb0562d275dbd6"


def test_aes_256_ctr_of_nist_sp_800_38a_f_5_5() -> None:
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    counter = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
    plaintext = bytes.fromhex(
        "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
        "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
    )
    ciphertext = bytes.fromhex(
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"
    )
    cipher = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    assert cipher.update(plaintext) == ciphertext


def test_the_stream_of_the_zero_key_is_that_of_the_gcm_specification() -> None:
    # McGrew & Viega, "The Galois/Counter Mode of Operation", appendix B, AES-256: H, and the tag of
    # test case 13 and the ciphertext of 14, are the cipher of the counters 0, 1 and 2.
    blocks = (
        "dc95c078a2408989ad48a21492842087",
        "530f8afbc74536b9a963b4f1c4cb738b",
        "cea7403d4d606b6e074ec5d3baf39d18",
    )
    words = np.frombuffer(bytes.fromhex("".join(blocks)), "<u8") & np.uint64((1 << 47) - 1)
    assert keystream_mod_t(bytes(32), 6).tolist() == words.tolist()


def test_x25519_of_rfc_7748() -> None:
    alice, bob = (EphemeralKey.from_bytes(bytes.fromhex(key)) for key in (ALICE, BOB))
    assert alice.public_bytes().hex() == ALICE_PUBLIC
    assert bob.public_bytes().hex() == BOB_PUBLIC
    assert alice.exchange(bob.public_bytes()).hex() == bob.exchange(alice.public_bytes()).hex() == SHARED


@pytest.mark.parametrize(
    ("salt", "info", "output"),
    [
        pytest.param(
            bytes(range(13)),
            bytes(range(0xF0, 0xFA)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            id="A.1",
        ),
        pytest.param(
            None,
            b"",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            id="A.3",
        ),
    ],
)
def test_hkdf_sha256_of_rfc_5869(salt: bytes | None, info: bytes, output: str) -> None:
    assert HKDF(SHA256(), 42, salt, info).derive(b"\x0b" * 22).hex() == output


def test_known_answers_of_the_mask_stream() -> None:
    # Own vectors; the words by a second route (block by block) are compared in tests/privacy/test_masking.py.
    assert keystream_mod_t(COUNTING_KEY, 4).tolist() == STREAM
    long = keystream_mod_t(COUNTING_KEY, 100_000).astype("<i8").tobytes()
    assert hashlib.sha256(long).hexdigest() == STREAM_SHA256
    rejecting = Keystream(COUNTING_KEY, (1 << 46) + 1).take(100_000).astype("<i8").tobytes()
    assert hashlib.sha256(rejecting).hexdigest() == REJECTING_SHA256


def test_known_answers_of_masks_and_tag() -> None:
    slots = np.arange(6)
    masked = apply_masks(slots, {"shop-a": COUNTING_KEY, "shop-c": bytes(32)}, "shop-b")
    assert masked.tolist() == MASKED
    assert tag_of(np.arange(10_000), COUNTING_KEY) == TAG


def test_known_answer_of_a_pair_key_and_its_derivation_by_hand() -> None:
    alice = EphemeralKey.from_bytes(bytes.fromhex(ALICE))
    key = pair_key(
        alice,
        bytes.fromhex(BOB_PUBLIC),
        b"transcript",
        Purpose.MASK,
        round_number=2,
        attempt=1,
        a="shop-b",
        b="shop-a",
    )
    # RFC 5869 with one block: PRK = HMAC(salt, DH), OKM = HMAC(PRK, info ‖ 0x01)
    parts = (b"archipel/agreement/v1", b"mask", (2).to_bytes(8, "little"), (1).to_bytes(8, "little"))
    info = b"".join(len(part).to_bytes(8, "little") + part for part in (*parts, b"shop-a", b"shop-b"))
    extracted = hmac.digest(hashlib.sha256(b"transcript").digest(), bytes.fromhex(SHARED), "sha256")
    assert key == hmac.digest(extracted, info + b"\x01", "sha256")
    assert key.hex() == PAIR_KEY


def test_known_answers_of_the_group_keys() -> None:
    job = "ab" * 32
    assert tag_key(COUNTING_KEY, job, 1, 0).hex() == TAG_KEY
    assert round_digest(COUNTING_KEY, job, 1, b"", b"opened").hex() == ROUND_DIGEST
    assert received_mac(COUNTING_KEY, job, 1, 0, sender="shop-a", sum_sha256=bytes(32)).hex() == RECEIVED
