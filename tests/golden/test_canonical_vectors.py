"""Bytes that were signed once must stay these bytes for ever; a field added later must not change them.

Sources: RFC 8785 section 3.2.2-3.2.3 (canonical JSON), RFC 8032 section 7.1 (Ed25519, test 1). The files
below were frozen with version 0.1.0. When one of these tests fails, the change breaks every
signature made so far: give the new field a default that means what its absence meant, and leave the vector
alone.
"""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from policies.canonical import canonical_bytes, digest, sha256_hex, signed_bytes
from policies.charters.charter import Card, Charter
from policies.plans.plan import Plan
from policies.signing import DetachedSignatures, PrivateKey, PublicKey, verify_threshold
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml

RFC8032_SECRET = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
RFC8032_PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = PrivateKey(Ed25519PrivateKey.from_private_bytes(RFC8032_SECRET))

POLICY = """
kind: SiloPolicy
schema_version: 1
version: 7
silo: shop-a
expires: 2027-06-30
datasets:
  purchases:
    source: {parquet: data/purchases/*.parquet}
    columns: {user_id: customer, item_id: sku, timestamp: bought_at, weight: quantity}
    max_interactions_per_user: 200
    population: customers
    max_silos_per_user: 1
    exclude_users: opt-outs.csv
budgets:
  customers: {epsilon: 8.0, delta: 1.0e-6, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: purchases}
  with_members: [shop-b, shop-c]
  max_epsilon_per_plan: 4.0
  min_silos: 3
  min_colluding_silos: 1
  require: {encryption: true, masks: true, unit: user}
  metrics: noised
  verify_sums: 0.1
alignment: {capacity: 20000, min_intersection: 1000, reveal: none, max_runs_per_30_days: 2}
serving: {mode: own_features_only}
"""
POLICY_BYTES = (
    b'{"accepts":{"max_epsilon_per_plan":4,"metrics":"noised","min_colluding_silos":1,"min_silos":3,'
    b'"purposes":{"product-recommendation":"purchases"},"require":{"encryption":true,"masks":true,'
    b'"unit":"user"},"verify_sums":0.1,"with_members":["shop-b","shop-c"]},"alignment":{"capacity":20000,'
    b'"max_runs_per_30_days":2,"min_intersection":1000,"reveal":"none"},"budgets":{"customers":{'
    b'"delta":0.000001,"epsilon":8,"filter":"zcdp","scope":"lifetime"}},"datasets":{"purchases":{"columns":{'
    b'"item_id":"sku","timestamp":"bought_at","user_id":"customer","weight":"quantity"},'
    b'"exclude_users":"opt-outs.csv","max_interactions_per_user":200,"max_silos_per_user":1,'
    b'"population":"customers","source":{"parquet":"data/purchases/*.parquet"}}},"expires":"2027-06-30",'
    b'"kind":"SiloPolicy","schema_version":1,"serving":{"mode":"own_features_only"},"silo":"shop-a","version":7}'
)

KEY_TEXT = "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
CHARTER = f"""
kind: Charter
schema_version: 1
name: nordic-retail
coordinator:
  {{name: hub, identity_key: "{KEY_TEXT}", host: hub.example.org, port: 8443, certificate: YQ==,
   certificate_sha256: ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb}}
members:
  - silo: shop-a
    identity_key: "ed25519:PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw="
    certificate: Yg==
    certificate_sha256: 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d
    administrators: {{threshold: 1, keys: ["{KEY_TEXT}"]}}
  - silo: shop-b
    identity_key: "ed25519:/FHNjmIYoaONpH7QAjDwWAgW7RO6MwOsXeuRFUiQgCU="
    certificate: Yw==
    certificate_sha256: 2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6
    administrators: {{threshold: 1, keys: ["{KEY_TEXT}"]}}
amendments: {{threshold: 2}}
expires: 2027-11-30
"""

PLAN = """
kind: Plan
schema_version: 1
purpose: product-recommendation
partition: horizontal
silos: [shop-a, shop-b, shop-c]
catalogue: {kind: shared, items: 3883,
            sha256: 2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6}
max_users_per_silo: 4096
max_interactions_per_user: 200
holdout: {kind: random, fraction: 0.2, seed: 7}
model: {family: item-graph, rank: 64}
training: {rounds: 1, max_burned_rounds: 0}
privacy:
  unit: user
  neighboring_relation: add_or_remove_one
  target_epsilon: 4.0
  target_delta: 1.0e-6
  filter: zcdp
  noise_multiplier: 1.25
  contribution_norm: 1.0
  grid: 8192
  noise_placement: federation
  colluding_silos: 1
  max_silos_per_user: 1
protection: {encryption: bfv, masks: pairwise, min_silos: 3, max_failed_opens: 2}
releases: {model: members, metrics: {noised: true, epsilon: 0.2}}
"""

SIGNATURES = """
{"payload_sha256": "385e36c6a8d45e691ed68f5cdd3693175402346bdbb3b4f6695dcd4fb61ca774",
 "signatures": [{"key_id": "21fe31dfa154a261",
   "signature": "2JRDnTaLXmKfukuyvnR3vbncEFSEbR6WeAmqejVFN4PBBzOyG4+JoEjKWHzdMCOm8fwQ1KW5dRFF5OokU7sFDQ=="}]}
"""

DIGESTS: dict[str, tuple[str, type[BaseModel], str]] = {
    "policy": (POLICY, SiloPolicy, "a5f7eccb2a93bbb7caed51e7afdcccfa5497c39c49fee580fcbd8053785910df"),
    "charter": (CHARTER, Charter, "beb62047b32d070dd247820ca0a09b6e61cf4bb31e3069c0cec4c10dd617ce06"),
    "plan": (PLAN, Plan, "fd3ba6ecb4a344c3835ce3762dd9542ab2aac5e2ee25f0af1887347c02c1e123"),
}


def test_rfc_8785_sample():
    """Section 3.2.2, input as parsed JSON; section 3.2.3, output."""
    value = json.loads(
        r"""{"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
             "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}"""
    )
    value["numbers"].remove(1e30)  # beyond 2**53 one JSON number has several readings: refused here
    assert canonical_bytes(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_rfc_8785_sorts_by_utf_16():
    """Section 3.2.3: the order of the sample's property names."""
    names = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = list(json.loads(canonical_bytes(dict.fromkeys(names, 0))))
    assert ordered == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


def test_rfc_8032_key_and_signature():
    assert KEY.public_key == PublicKey(RFC8032_PUBLIC)
    assert str(KEY.public_key) == KEY_TEXT
    assert KEY.key_id == sha256_hex(RFC8032_PUBLIC)[:16] == "21fe31dfa154a261"
    assert KEY.sign_raw(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )


def test_the_policys_canonical_bytes():
    policy = parse_yaml(POLICY.encode(), SiloPolicy, "policy.yaml")
    assert canonical_bytes(policy) == POLICY_BYTES
    assert policy.signed_bytes() == b"archipel/silo-policy/v1\0" + POLICY_BYTES


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_of_old_files(name):
    text, model, expected = DIGESTS[name]
    assert digest(parse_yaml(text.encode(), model, name)) == expected


@pytest.mark.parametrize("name", DIGESTS)
def test_a_field_added_later_changes_no_old_byte(name):
    text, model, expected = DIGESTS[name]

    class Newer(model):  # type: ignore[misc, valid-type]
        added_later: int = 3

    assert digest(parse_yaml(text.encode(), Newer, name)) == expected


def test_a_signature_made_under_0_1_0_still_counts():
    policy = parse_yaml(POLICY.encode(), SiloPolicy, "policy.yaml")
    signatures = DetachedSignatures.model_validate_json(SIGNATURES)
    assert verify_threshold(policy.signed_bytes(), signatures, [KEY.public_key], 1) == {KEY.public_key}
    assert DetachedSignatures.over(policy.signed_bytes()).signed_by(KEY, policy.signed_bytes()) == signatures


def test_a_card_signed_under_0_1_0_has_these_signed_bytes():
    card = Card.issue(
        KEY, role="coordinator", name="hub", certificate_der=b"a", host="hub.example.org", port=8443
    )
    content = card.model_dump(mode="json", exclude_unset=True, exclude={"signature"})
    assert (
        sha256_hex(signed_bytes("card", content))
        == "33135c9127ca59956c1f3cc9b1d0995759faf07db1f1b2038bc657c57b946189"
    )
