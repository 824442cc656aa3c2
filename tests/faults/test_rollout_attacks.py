"""Attacks on what is in force: rolled back, forged, thawed by too few, expired, or signed by nobody.

The silo's two of three administrators have signed version 7, and its agent has taken it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest

from policies.administration import freeze_policy, sign_policy
from policies.canonical import digest, sha256_hex, signed_bytes
from policies.decisions.decision import PolicyDeniedError, authorize
from policies.files import dump_yaml, load_yaml, save_signatures, save_yaml
from policies.freezing import Freeze, trust_freeze
from policies.signing import DetachedSignatures, PrivateKey, ThresholdError
from policies.trust import MAX_VERSION_STEP
from privacy.errors import TrustError
from privacy.ledger.state import AccountStatus, LedgerState
from silo.law import Law, law_of
from tests.contracts.decision_scene import make_ledger, make_plan
from tests.contracts.policy_scene import NOW, make_scene, policy_text, read_policy, sign

EMPTY = LedgerState({}, {})
SCENE = make_scene()
STRANGERS = SCENE.administrators("shop-b")


@pytest.fixture
def silo(tmp_path: Path) -> Path:
    SCENE.write(tmp_path)
    directory = tmp_path / "shop-a"
    (directory / "charter.yaml").write_bytes(SCENE.charter_bytes())
    put(directory, policy_text(version=7))
    assert law(directory).policy.version == 7
    return directory


def put(directory: Path, text: str, *keys: PrivateKey) -> None:
    """What administrators leave in the silo's directory; signed by two of them unless keys are given."""
    (directory / "policy.yaml").write_text(text)
    signers = keys or SCENE.administrators()[:2]
    (directory / "policy.sig.json").write_bytes(sign(read_policy(text).signed_bytes(), *signers))


def law(directory: Path, *, ledger: LedgerState = EMPTY, **changes: object) -> Law:
    arguments = {"charter": SCENE.charter, "silo": "shop-a", "now": NOW, **changes}
    return law_of(directory, ledger=ledger, **arguments)  # type: ignore[arg-type]


def freeze(directory: Path, *, key: int = 0, **options: object) -> Freeze:
    file = directory / "keys" / f"administrator{key or ''}.pem"
    return freeze_policy(directory, NOW, key_file=file, **options)  # type: ignore[arg-type]


class TestRollOut:
    def test_a_newer_signed_version_is_taken_and_kept(self, silo):
        put(silo, policy_text(version=8))
        found = law(silo)
        assert (found.policy.version, found.refused, found.hold) == (8, None, None)
        assert (silo / "policies" / "8.sig.json").exists()

    @pytest.mark.parametrize(
        ("attack", "code"),
        [
            (lambda silo: put(silo, policy_text(version=8), SCENE.administrators()[0]), "signatures_missing"),
            (lambda silo: put(silo, policy_text(version=8), *STRANGERS), "signatures_missing"),
            (lambda silo: (silo / "policy.sig.json").unlink(), "unsigned"),
            (lambda silo: (silo / "policy.yaml").unlink(), "data"),
            (lambda silo: (silo / "policy.yaml").write_text(policy_text(version=8)), "signature"),
            (lambda silo: (silo / "policy.yaml").write_text("kind: SiloPolicy\n"), "policy_file"),
            (lambda silo: put(silo, policy_text(version=6)), "rollback"),
            (lambda silo: put(silo, policy_text(version=8 + MAX_VERSION_STEP)), "fast_forward"),
            (lambda silo: put(silo, policy_text(version=8, expires=date(2026, 5, 31))), "expired"),
            (lambda silo: put(silo, policy_text("shop-b", version=8)), "wrong_silo"),
        ],
        ids=["one_signature_short", "other_administrators", "unsigned", "removed", "edited_after_signing",
             "malformed", "rollback", "fast_forward", "expired", "another_silos"],
    )  # fmt: skip
    def test_what_is_refused_leaves_the_old_one_in_force(
        self, silo: Path, attack: Callable[[Path], object], code: str
    ):
        attack(silo)
        found = law(silo)
        assert found.policy.version == 7
        assert found.refused is not None
        assert found.refused.code == code

    def test_rollback_to_a_version_that_the_ledger_has_not_seen_is_refused_too(self, silo):
        put(silo, policy_text(version=9))
        law(silo)
        put(silo, policy_text(version=8))
        assert (law(silo).policy.version, law(silo).refused.code) == (9, "rollback")

    def test_rollback_by_removing_what_was_kept_fails_where_the_ledger_knows_better(self, silo):
        put(silo, policy_text(version=8))
        newest = law(silo).policy
        shutil.rmtree(silo / "policies")
        put(silo, policy_text(version=7))
        with pytest.raises(TrustError, match="older"):
            law(silo, ledger=make_ledger(newest))

    def test_rollback_by_letting_the_newest_expire(self, silo):
        put(silo, policy_text(version=8, expires=NOW.date()))
        law(silo)
        put(silo, policy_text(version=7))
        with pytest.raises(TrustError):
            law(silo, now=NOW + timedelta(days=1))

    def test_one_version_with_two_contents_once_the_ledger_names_it(self, silo):
        known = make_ledger(law(silo).policy)
        put(silo, policy_text(version=7).replace("min_silos: 3", "min_silos: 2"))
        found = law(silo, ledger=known)
        assert digest(found.policy) == digest(read_policy(policy_text(version=7)))
        assert found.refused.code == "equivocation"

    def test_a_filter_that_the_account_does_not_have_is_no_law(self, silo):
        """The ledger would refuse every plan; the version before it goes on instead."""
        policy = read_policy(policy_text(version=7))
        account = AccountStatus("customers", policy.budgets["customers"].to_budget(), digest(policy), 7)
        put(silo, policy_text(version=8).replace("filter: zcdp", "filter: renyi, orders: [2, 4]"))
        found = law(silo, ledger=LedgerState({"customers": account}, {}))
        assert (found.policy.version, found.refused.code) == (7, "filter_changed")

    def test_a_kept_version_that_was_altered_is_not_fallen_back_to(self, silo):
        kept = silo / "policies" / "7.yaml"
        kept.write_text(kept.read_text().replace("epsilon: 8.0", "epsilon: 80.0"))
        (silo / "policy.yaml").unlink()
        with pytest.raises(Exception, match="no such file"):
            law(silo)

    def test_a_revoked_administrators_signature_counts_no_more(self, silo):
        """The charter was amended: none of the former keys is listed."""
        values = SCENE.charter.model_dump(mode="json")
        fresh = [PrivateKey.generate() for _ in range(3)]
        values["members"][0]["administrators"]["keys"] = [str(key.public_key) for key in fresh]
        amended = type(SCENE.charter).model_validate_json(json.dumps(values))
        with pytest.raises(ThresholdError):
            law(silo, charter=amended)
        put(silo, policy_text(version=8), *fresh[:2])
        assert law(silo, charter=amended).policy.version == 8


class TestFreeze:
    def test_one_administrator_stops_new_jobs_at_once(self, silo):
        freeze(silo, key=2, reason="a leak is looked into")
        found = law(silo)
        assert found.policy.version == 7
        assert "a leak is looked into" in found.hold.why
        plan = make_plan(silos=("shop-a", "shop-b", "shop-c"))
        with pytest.raises(PolicyDeniedError) as caught:
            authorize(
                plan, found.policy, make_ledger(found.policy), NOW, charter=SCENE.charter, hold=found.hold
            )
        assert [(reason.code, reason.field) for reason in caught.value.outbound] == [
            ("policy_frozen", "policy")
        ]

    def test_a_newer_policy_of_two_administrators_thaws(self, silo):
        freeze(silo)
        put(silo, policy_text(version=8))
        assert law(silo).hold is None

    def test_unfreeze_by_one_administrator_with_a_newer_policy(self, silo):
        freeze(silo)
        put(silo, policy_text(version=8), SCENE.administrators()[1])
        assert law(silo).hold is not None

    def test_unfreeze_by_one_administrator_with_a_weaker_freeze(self, silo):
        freeze(silo)
        law(silo)
        weaker = Freeze.model_validate(
            {**load_yaml(silo / "freeze.yaml", Freeze).model_dump(), "policy_version": 1}
        )
        self.write(silo, weaker, SCENE.administrators()[0])
        assert law(silo).hold is not None

    def test_unfreeze_by_removing_the_file(self, silo):
        freeze(silo, stop_jobs=True)
        law(silo)
        (silo / "freeze.yaml").unlink()
        (silo / "freeze.sig.json").unlink()
        assert law(silo).hold.stops_jobs

    def test_unfreeze_with_a_policy_signed_before(self, silo):
        """A draft that was signed already, in the directory at that moment, does not lift the freeze."""
        put(silo, policy_text(version=8))
        freeze(silo)
        assert law(silo).policy.version == 8
        assert law(silo).hold is not None

    def test_forged_freeze_holds_until_it_is_removed_but_stops_no_running_job(self, silo):
        for keys in (
            (),
            SCENE.administrators("shop-b"),
            (SCENE.silos["shop-a"].identity, PrivateKey.generate()),
        ):
            self.write(silo, self.made(stop_jobs=True), *keys)
            hold = law(silo).hold
            assert (hold.stops_jobs, hold.problem is None) == (False, False)
        (silo / "freeze.yaml").unlink()
        assert law(silo).hold is None

    def test_fast_forward_so_that_no_policy_could_ever_thaw(self, silo):
        self.write(silo, self.made(policy_version=7 + MAX_VERSION_STEP + 1), SCENE.administrators()[0])
        assert law(silo).hold.problem.code == "fast_forward"
        (silo / "freeze.yaml").unlink()
        assert law(silo).hold is None

    def test_a_signature_of_another_kind_over_the_same_content(self, silo):
        made = self.made()
        other = json.loads(sign(signed_bytes("silo-policy", made), SCENE.administrators()[0]))
        other["payload_sha256"] = sha256_hex(made.signed_bytes())
        with pytest.raises(ThresholdError):
            trust_freeze(
                dump_yaml(made).encode(), json.dumps(other).encode(), charter=SCENE.charter, silo="shop-a"
            )

    def test_another_silos_freeze_holds_only_as_a_damaged_one(self, silo):
        self.write(silo, self.made(silo="shop-b"), SCENE.administrators()[0])
        assert law(silo).hold.problem.code == "wrong_silo"

    def test_only_an_administrator_can_freeze(self, silo, tmp_path):
        with pytest.raises(TrustError, match="none of the administrators"):
            freeze_policy(silo, NOW, key_file=tmp_path / "shop-b" / "keys" / "administrator.pem")
        assert not (silo / "freeze.yaml").exists()

    def test_a_freeze_covers_the_draft_that_is_being_written(self, silo):
        (silo / "policy.yaml").write_text(policy_text(version=11))
        assert freeze(silo).policy_version == 11
        sign_policy(silo, NOW)
        sign_policy(silo, NOW, key_file=silo / "keys" / "administrator1.pem")
        assert law(silo).hold is not None

    @staticmethod
    def made(**changes: object) -> Freeze:
        values = {"kind": "Freeze", "schema_version": 1, "silo": "shop-a", "policy_version": 7,
                  "frozen_at": "2026-06-01T12:00:00Z", **changes}  # fmt: skip
        return Freeze.model_validate(values)

    @staticmethod
    def write(directory: Path, made: Freeze, *keys: PrivateKey) -> None:
        payload = made.signed_bytes()
        signatures = DetachedSignatures.over(payload)
        for key in keys:
            signatures = signatures.signed_by(key, payload)
        save_yaml(directory / "freeze.yaml", made)
        save_signatures(directory / "freeze.yaml", signatures)
