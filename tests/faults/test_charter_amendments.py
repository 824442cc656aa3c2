"""Amending a charter: m of n, by consent, forwards only; and who tries otherwise.

shop-a's policy needs two of three administrators; amendments need two of the three members.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import app
from federation.identity import Party, make_party
from policies.administration import name_administrators
from policies.canonical import digest
from policies.charters.administration import adopt_charter, amend_charter
from policies.charters.amendments import AmendmentError, lacking, trust_amendment
from policies.charters.charter import Charter
from policies.files import dump_yaml, load_charter, load_charters, load_yaml, save_signatures, save_yaml
from policies.signing import DetachedSignatures, PrivateKey, SignatureError, ThresholdError
from policies.trust import ExpiredError, RollbackError
from privacy.errors import DataError, TrustError
from silo.joining import join
from silo.site import Site
from tests.contracts.federation_directories import make_federation
from tests.contracts.policy_scene import policy_text

NOW = datetime.now(UTC)
LATER = (NOW + timedelta(days=300)).date()
SILOS = ("shop-a", "shop-b", "shop-c")


class World:
    """Directories of a federation that has joined its first charter; two of three may amend it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made = make_federation(root, silos=SILOS, expires=LATER)
        values = self.made.charter.model_dump(mode="json", exclude_unset=True) | {
            "amendments": {"threshold": 2}
        }
        self.made.charter = Charter.model_validate_json(json.dumps(values))
        self.made.install_charter()
        for name in SILOS:
            (self.dir(name) / "policy.yaml").write_text(policy_text(name, version=1, expires=LATER))
            join(self.dir(name), self.dir("hub") / "charter.yaml")

    def dir(self, name: str) -> Path:
        return self.made.parties[name].directory

    def key(self, name: str) -> PrivateKey:
        return self.made.parties[name].identity

    def draft(self, **changes: Any) -> Path:
        out = self.root / "draft" / "charter.yaml"
        amend_charter(self.dir("shop-a"), out, NOW, **changes)
        return out

    def sign(self, path: Path, *names: str) -> None:
        amended = load_yaml(path, Charter)
        payload = amended.signed_bytes()
        signatures = DetachedSignatures.over(payload)
        for name in names:
            signatures = signatures.signed_by(self.key(name), payload)
        save_signatures(path, signatures)

    def rotate(self, name: str = "shop-a") -> tuple[Path, PrivateKey]:
        """shop-a's administrator key is lost: a new one, in a new card, in an amendment."""
        fresh = PrivateKey.generate()
        name_administrators(self.dir(name), [str(fresh.public_key)], 1)
        return self.draft(members=[self.dir(name) / "card.json"]), fresh


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def weaken(path: Path) -> None:
    path.write_text(path.read_text().replace("threshold: 2", "threshold: 1"))


def run(*words: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result


class TestRotation:
    def test_a_revoked_key_signs_and_the_new_one_does(self, world):
        draft, fresh = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        join(world.dir("shop-a"), draft)
        with Site(world.dir("shop-a")) as site:
            assert (site.charter.version, len(site.charters)) == (2, 2)
            with pytest.raises(ThresholdError):
                site.trusted_policy()
        old = run("policy", "sign", "--dir", world.dir("shop-a"), code=8)
        assert "none of the administrators" in old.stderr
        fresh.save(world.dir("shop-a") / "keys" / "new.pem")
        run("policy", "sign", "--dir", world.dir("shop-a"), "--key", world.dir("shop-a") / "keys" / "new.pem")
        with Site(world.dir("shop-a")) as site:
            assert site.trusted_policy().version == 1

    def test_a_revoked_administrator_can_neither_sign_nor_freeze(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-c")
        join(world.dir("shop-a"), draft)
        for words in ("sign", "freeze"):
            run("policy", words, "--dir", world.dir("shop-a"), code=8)

    def test_the_coordinator_takes_it_at_its_next_start(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        run("charter", "install", draft, "--dir", world.dir("hub"))
        assert load_charter(world.dir("hub"), NOW).version == 2

    def test_from_the_command_line(self, world):
        fresh = PrivateKey.generate()
        run("policy", "administrators", "--dir", world.dir("shop-a"), "--key", fresh.public_key)
        card = world.dir("shop-a") / "card.json"
        text = run("charter", "amend", "--dir", world.dir("shop-a"), "--member", card).output
        assert "is revoked" in text
        assert "not in force yet; it needs 2 more of" in text
        draft = world.dir("shop-a") / "amendment" / "charter.yaml"
        run("charter", "install", draft, "--dir", world.dir("hub"), code=8)
        run("charter", "sign", draft, "--dir", world.dir("shop-b"))
        assert "it needs 1 more of" in run("charter", "show", draft).output
        copy = world.root / "copy"
        shutil.copytree(draft.parent, copy)
        run("charter", "sign", copy / "charter.yaml", "--dir", world.dir("shop-a"))
        run("charter", "merge", draft, copy / "charter.yaml", "--out", world.root / "out" / "charter.yaml")
        assert "agreed to" in run("charter", "show", world.root / "out" / "charter.yaml").output
        run("silo", "join", world.root / "out" / "charter.yaml", "--dir", world.dir("shop-b"))
        assert load_charter(world.dir("shop-b"), NOW).version == 2


class TestAgreement:
    def test_one_signature_short(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a")
        with pytest.raises(ThresholdError, match="1 more of shop-b, shop-c"):
            load_charters(draft, NOW)

    def test_enough_members_but_not_the_one_it_is_about(self, world):
        """Two others cannot give shop-a new administrators behind its back."""
        draft, _ = world.rotate()
        world.sign(draft, "shop-b", "shop-c")
        with pytest.raises(ThresholdError, match="shop-a, of whom"):
            load_charters(draft, NOW)

    def test_administrators_do_not_sign_charters(self, world):
        draft, fresh = world.rotate()
        amended = load_yaml(draft, Charter)
        signatures = DetachedSignatures.over(amended.signed_bytes())
        for key in (fresh, world.made.parties["shop-b"].administrator, world.key("hub"), world.key("shop-a")):
            signatures = signatures.signed_by(key, amended.signed_bytes())
        save_signatures(draft, signatures)
        with pytest.raises(ThresholdError):
            load_charters(draft, NOW)

    def test_a_new_members_signature_does_not_count_as_a_former_ones(self, world):
        stranger = make_party(world.root / "shop-z", "shop-z", "silo")
        world.made.parties["shop-z"] = stranger
        draft = world.draft(members=[world.root / "shop-z" / "card.json"])
        world.sign(draft, "shop-z", "shop-a")
        with pytest.raises(ThresholdError, match="1 more"):
            load_charters(draft, NOW)
        world.sign(draft, "shop-z", "shop-a", "shop-c")
        assert load_charters(draft, NOW)[-1].member("shop-z") is not None
        join_dir = world.root / "shop-z"
        (join_dir / "policy.yaml").write_text(policy_text("shop-z", version=1, expires=LATER))
        join(join_dir, draft)
        assert load_charter(join_dir, NOW).version == 2

    def test_who_joins_has_to_consent(self, world):
        stranger = make_party(world.root / "shop-z", "shop-z", "silo")
        draft = world.draft(members=[stranger.directory / "card.json"])
        world.sign(draft, *SILOS)
        with pytest.raises(ThresholdError, match="shop-z"):
            load_charters(draft, NOW)

    def test_who_leaves_need_not_agree_and_is_no_party_any_more(self, world):
        draft = world.draft(remove=["shop-c"])
        world.sign(draft, "shop-a", "shop-b")
        join(world.dir("shop-a"), draft)
        with Site(world.dir("shop-a")) as site:
            assert site.charter.member("shop-c") is None
            assert site.identity_of("shop-c") == world.key("shop-c").public_key

    def test_lowering_the_threshold_needs_the_former_one(self, world):
        draft = world.draft(threshold=1)
        world.sign(draft, "shop-a")
        with pytest.raises(ThresholdError):
            load_charters(draft, NOW)

    def test_the_state_says_what_is_missing(self, world):
        draft, _ = world.rotate()
        first, amended = (
            load_charters(world.dir("shop-a") / "charter.yaml", NOW)[0],
            load_yaml(draft, Charter),
        )
        nothing = DetachedSignatures.over(amended.signed_bytes())
        lack = lacking(first, amended, nothing)
        assert lack is not None
        assert (lack.signatures, lack.able, lack.consents) == (2, SILOS, ("shop-a",))


class TestAttacks:
    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"version": 3}, "does not follow"),
            ({"amends": "ab" * 32}, "another charter"),
            ({"name": "other"}, "another federation"),
        ],
    )
    def test_what_does_not_follow(self, world, changes, said):
        draft, _ = world.rotate()
        values = load_yaml(draft, Charter).model_dump(mode="json", exclude_unset=True) | changes
        save_yaml(draft, Charter.model_validate_json(json.dumps(values)))
        if changes.get("version"):
            shutil.copy(draft.parent / "charters" / "1.yaml", draft.parent / "charters" / "2.yaml")
            shutil.copy(draft.parent / "charters" / "1.sig.json", draft.parent / "charters" / "2.sig.json")
        world.sign(draft, *SILOS)
        former = load_charter(world.dir("shop-a"), NOW)
        signed = (draft.parent / "charter.sig.json").read_bytes()
        with pytest.raises(AmendmentError, match=said):
            trust_amendment(former, draft.read_bytes(), signed, NOW)

    def test_another_identity_key_for_a_member_that_stays(self, world):
        draft, _ = world.rotate()
        values = load_yaml(draft, Charter).model_dump(mode="json", exclude_unset=True)
        thief = PrivateKey.generate()
        values["members"][2]["identity_key"] = str(thief.public_key)
        amended = Charter.model_validate_json(json.dumps(values))
        signatures = DetachedSignatures.over(amended.signed_bytes())
        for key in (world.key("shop-a"), world.key("shop-b"), thief):
            signatures = signatures.signed_by(key, amended.signed_bytes())
        with pytest.raises(AmendmentError, match="another identity key"):
            trust_amendment(
                load_charter(world.dir("shop-a"), NOW), dump_yaml(amended).encode(),
                signatures.model_dump_json().encode(), NOW,
            )  # fmt: skip

    def test_rollback_to_the_charter_before_by_restoring_its_files(self, world):
        silo = world.dir("shop-a")
        first = {name: (silo / name).read_bytes() for name in ("charter.yaml", "charter.sig.json")}
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        join(silo, draft)
        for name, content in first.items():
            (silo / name).write_bytes(content)
        with pytest.raises(RollbackError, match="version 1"):
            Site(silo)

    def test_rollback_by_joining_the_charter_before(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        adopt_charter(world.dir("shop-b"), draft, NOW)
        with pytest.raises(RollbackError):
            adopt_charter(world.dir("shop-b"), world.dir("hub") / "charter.yaml", NOW)
        assert load_charter(world.dir("shop-b"), NOW).version == 2

    def test_a_fork_of_another_first_charter(self, world, tmp_path):
        elsewhere = World(tmp_path / "elsewhere")
        draft, _ = elsewhere.rotate()
        elsewhere.sign(draft, "shop-a", "shop-b")
        with pytest.raises(AmendmentError, match="descend"):
            adopt_charter(world.dir("shop-b"), draft, NOW)

    def test_two_second_versions(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        adopt_charter(world.dir("shop-b"), draft, NOW)
        other = world.root / "other" / "charter.yaml"
        amend_charter(world.dir("shop-c"), other, NOW, threshold=3)
        world.sign(other, "shop-a", "shop-b", "shop-c")
        with pytest.raises(TrustError, match="version 2"):
            adopt_charter(world.dir("shop-b"), other, NOW)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda kept: (kept / "1.yaml").unlink(),
            lambda kept: (kept / "1.sig.json").unlink(),
            lambda kept: weaken(kept / "1.yaml"),
            lambda kept: (kept / "1.yaml").write_text("kind: Charter\n"),
        ],
        ids=["predecessor_gone", "its_signatures_gone", "predecessor_altered", "predecessor_malformed"],
    )  # fmt: skip
    def test_without_the_true_charter_before_it_an_amendment_is_nothing(
        self, world, damage: Callable[[Path], Any]
    ):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        damage(draft.parent / "charters")
        with pytest.raises((TrustError, DataError)):
            load_charters(draft, NOW)

    def test_an_amendment_alone_is_not_taken_for_a_first_charter(self, world):
        draft, _ = world.rotate()
        values = load_yaml(draft, Charter).model_dump(mode="json", exclude_unset=True)
        del values["amends"]
        with pytest.raises(ValueError, match="charter amend"):
            Charter.model_validate_json(json.dumps(values))

    def test_signed_for_one_amendment_used_for_another(self, world):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")
        signatures = (draft.parent / "charter.sig.json").read_bytes()
        draft.write_text(draft.read_text().replace("threshold: 2", "threshold: 1"))
        (draft.parent / "charter.sig.json").write_bytes(signatures)
        with pytest.raises(SignatureError, match="not what was signed"):
            load_charters(draft, NOW)


class TestTime:
    def test_an_amendment_that_is_over(self, world):
        draft = world.draft(expires=date(2026, 1, 1))
        world.sign(draft, *SILOS)
        with pytest.raises(ExpiredError):
            load_charters(draft, NOW)

    def test_the_charter_before_may_be_over(self, world):
        later = NOW + timedelta(days=301)
        out = world.root / "next" / "charter.yaml"
        with pytest.raises(ExpiredError):
            load_charter(world.dir("shop-a"), later)
        amend_charter(world.dir("shop-a"), out, later, expires=(later + timedelta(days=300)).date())
        world.sign(out, "shop-a", "shop-b")
        assert load_charters(out, later)[-1].version == 2

    def test_three_versions_in_a_row(self, world):
        for threshold in (3, 2, 1):
            draft = world.draft(threshold=threshold)
            world.sign(draft, *SILOS)
            for name in ("hub", *SILOS):
                adopt_charter(world.dir(name), draft, NOW)
            shutil.rmtree(draft.parent)
        chain = load_charters(world.dir("shop-c") / "charter.yaml", NOW)
        assert [charter.version for charter in chain] == [1, 2, 3, 4]
        assert chain[-1].amends == digest(chain[-2])

    def test_nothing_is_changed_by_a_disk_that_cannot_be_written(self, world, monkeypatch):
        draft, _ = world.rotate()
        world.sign(draft, "shop-a", "shop-b")

        def read_only(*_: object) -> None:
            raise OSError(30, "Read-only file system")

        with monkeypatch.context() as patch:
            patch.setattr("policies.files.os.fsync", read_only)
            with pytest.raises(OSError, match="Read-only"):
                adopt_charter(world.dir("shop-b"), draft, NOW)
        assert load_charter(world.dir("shop-b"), NOW).version == 1
        adopt_charter(world.dir("shop-b"), draft, NOW)

    def test_an_amendment_of_nothing(self, world):
        run("charter", "amend", "--dir", world.dir("shop-a"), code=2)
        run("charter", "amend", "--dir", world.dir("shop-a"), "--remove", "shop-x", code=2)

    def test_the_party_is_still_itself(self, world):
        assert Party.load(world.dir("shop-a")).name == "shop-a"
