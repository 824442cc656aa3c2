"""``archipel policy freeze | verify | key | administrators`` as administrators type them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from federation.identity import make_party
from policies.charters.charter import Charter
from policies.files import dump_yaml, load_card, load_yaml, save_signatures
from policies.freezing import Freeze
from policies.policy_commands import policy_app
from policies.signing import DetachedSignatures, PrivateKey
from tests.contracts.policy_scene import Scene, make_scene, policy_text

LATER = (datetime.now(UTC) + timedelta(days=400)).date()
SECRET = b"correct horse battery\n"


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(policy_app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def machine(*arguments: object, code: int = 0) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json", "-", code=code).stdout))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Three silos that have joined; none of their policies is signed."""
    made = make_scene()
    made.write(tmp_path)
    values = made.charter.model_dump(mode="json") | {"expires": LATER.isoformat()}
    made.charter = Charter.model_validate_json(json.dumps(values))
    payload = made.charter.signed_bytes()
    signatures = DetachedSignatures.over(payload)
    for silo in made.silos.values():
        signatures = signatures.signed_by(silo.identity, payload)
    for name in made.silos:
        path = tmp_path / name / "charter.yaml"
        path.write_text(dump_yaml(made.charter))
        save_signatures(path, signatures)
        (tmp_path / name / "policy.yaml").write_text(policy_text(name, version=3, expires=LATER))
    return made


def phrase(tmp_path: Path, content: bytes = SECRET) -> Path:
    path = tmp_path / "phrase"
    path.write_bytes(content)
    path.chmod(0o600)
    return path


class TestVerify:
    def test_counts_the_administrators_who_signed(self, scene, tmp_path):
        silo = tmp_path / "shop-a"
        assert machine("verify", "--dir", silo, code=8)["problem"] == "unsigned"
        run("sign", "--dir", silo)
        found = machine("verify", "--dir", silo, code=8)
        assert (len(found["signers"]), len(found["missing"]), found["threshold"]) == (1, 2, 2)
        assert (found["trusted"], found["problem"]) == (False, "signatures_missing")
        run("sign", "--dir", silo, "--key", silo / "keys" / "administrator2.pem")
        found = machine("verify", "--dir", silo)
        assert (found["trusted"], found["version"], found["problem"]) == (True, 3, None)
        assert "2 of 2 signatures" in run("verify", "--dir", silo).output

    def test_an_edit_after_signing_leaves_nobodys_signature(self, scene, tmp_path):
        silo = tmp_path / "shop-b"
        run("sign", "--dir", silo)
        (silo / "policy.yaml").write_text((silo / "policy.yaml").read_text().replace("8.0", "9.0"))
        found = machine("verify", "--dir", silo, code=8)
        assert (found["signers"], found["problem"]) == ([], "signature")

    def test_an_older_version_than_the_agent_took(self, scene, tmp_path):
        silo = tmp_path / "shop-b"
        run("sign", "--dir", silo)
        (silo / "policies").mkdir()
        (silo / "policies" / "4.yaml").write_text("")
        found = machine("verify", "--dir", silo, code=8)
        assert (found["version_in_force"], found["problem"]) == (4, "rollback")

    def test_the_verifiers_own_charter_is_the_root_of_trust(self, scene, tmp_path):
        """A charter in the silo's directory may list anybody as its administrator."""
        silo, own = tmp_path / "shop-b", tmp_path / "own" / "charter.yaml"
        run("sign", "--dir", silo)
        other = make_scene()
        own.parent.mkdir()
        values = scene.charter.model_dump(mode="json")
        values["members"][1]["administrators"] = (
            other.silos["shop-b"].card.as_member().administrators.model_dump(mode="json")
        )
        mine = Charter.model_validate_json(json.dumps(values))
        own.write_text(dump_yaml(mine))
        signatures = DetachedSignatures.over(mine.signed_bytes())
        for member in scene.silos.values():
            signatures = signatures.signed_by(member.identity, mine.signed_bytes())
        save_signatures(own, signatures)
        run("verify", "--dir", silo)
        assert machine("verify", "--dir", silo, "--charter", own, code=8)["problem"] == "signatures_missing"

    def test_says_that_it_is_frozen_and_by_which_version_it_thaws(self, scene, tmp_path):
        silo = tmp_path / "shop-b"
        run("sign", "--dir", silo)
        run("freeze", "--dir", silo)
        assert machine("verify", "--dir", silo)["freeze"]["policy_version"] == 3
        assert "a version above 3" in run("verify", "--dir", silo).output


class TestFreeze:
    def test_one_administrator_of_two_needed_is_enough(self, scene, tmp_path):
        silo = tmp_path / "shop-a"
        text = run("freeze", "--dir", silo, "--reason", "we look into a leak").output
        assert "write version: 4" in text
        freeze = load_yaml(silo / "freeze.yaml", Freeze)
        assert (freeze.silo, freeze.policy_version, freeze.stop_jobs) == ("shop-a", 3, False)
        assert freeze.reason == "we look into a leak"

    def test_running_jobs_only_when_asked(self, scene, tmp_path):
        assert machine("freeze", "--dir", tmp_path / "shop-b", "--stop")["stop_jobs"] is True

    def test_nobody_else_can(self, scene, tmp_path):
        key = tmp_path / "shop-b" / "keys" / "administrator.pem"
        assert (
            "error[wrong_signer]" in run("freeze", "--dir", tmp_path / "shop-a", "--key", key, code=8).stderr
        )

    def test_a_missing_key_and_a_read_only_disk_are_told_apart(self, scene, tmp_path, monkeypatch):
        silo = tmp_path / "shop-b"
        result = run("freeze", "--dir", silo, "--key", tmp_path / "none.pem", code=6)
        assert "error[key_file]" in result.stderr

        def read_only(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system", str(silo / "freeze.yaml"))

        monkeypatch.setattr("policies.files.os.fsync", read_only)
        for words in ("freeze", "sign"):
            result = run(words, "--dir", silo, code=7)
            assert "read-only" in result.stderr
        assert not (silo / "freeze.yaml").exists()
        assert not (silo / "policy.sig.json").exists()


class TestKeys:
    def test_a_new_key_can_sign_once_the_card_and_the_charter_name_it(self, tmp_path):
        silo = tmp_path / "shop-x"
        make_party(silo, "shop-x", "silo")
        first = machine("key", "new", tmp_path / "a.pem", "--passphrase-file", phrase(tmp_path))
        second = machine("key", "new", tmp_path / "b.pem", "--no-passphrase")
        run("administrators", "--key", first["public_key"], "--key", second["public_key"],
            "--threshold", 2, "--dir", silo)  # fmt: skip
        listed = load_card(silo / "card.json").administrators
        assert listed is not None
        assert [key.key_id for key in listed.keys] == [first["key_id"], second["key_id"]]
        assert listed.threshold == 2
        (silo / "policy.yaml").write_text(policy_text("shop-x", version=1, expires=LATER))
        result = run("sign", "--dir", silo, "--key", tmp_path / "a.pem", code=8)
        assert "error[passphrase]" in result.stderr
        wrong = phrase(tmp_path, b"not this one\n")
        assert "error[passphrase]" in run(
            "sign", "--dir", silo, "--key", tmp_path / "a.pem", "--passphrase-file", wrong, code=8
        ).stderr  # fmt: skip
        run("sign", "--dir", silo, "--key", tmp_path / "a.pem", "--passphrase-file", phrase(tmp_path))
        assert len(machine("sign", "--dir", silo, "--key", tmp_path / "b.pem")["signers"]) == 2
        assert "none of the administrators" in run("sign", "--dir", silo, code=8).stderr

    def test_an_agents_party_is_loaded_without_the_passphrase(self, tmp_path):
        silo = tmp_path / "shop-x"
        party = make_party(silo, "shop-x", "silo")
        run("key", "protect", silo / "keys" / "administrator.pem", "--passphrase-file", phrase(tmp_path))
        again = type(party).load(silo)
        assert (again.name, again.administrator) == ("shop-x", None)

    def test_a_key_is_never_overwritten(self, tmp_path):
        run("key", "new", tmp_path / "a.pem", "--no-passphrase")
        before = (tmp_path / "a.pem").read_bytes()
        run("key", "new", tmp_path / "a.pem", "--no-passphrase", code=6)
        assert (tmp_path / "a.pem").read_bytes() == before

    def test_without_a_terminal_a_file_is_asked_for(self, tmp_path):
        assert "--passphrase-file" in run("key", "new", tmp_path / "a.pem", code=8).stderr
        assert not (tmp_path / "a.pem").exists()

    @pytest.mark.parametrize("bad", [["ed25519:zzz"], ["rsa:AAAA"], []])
    def test_keys_that_are_none(self, tmp_path, bad):
        silo = tmp_path / "shop-x"
        make_party(silo, "shop-x", "silo")
        keys = [word for key in bad for word in ("--key", key)]
        run("administrators", *keys, "--dir", silo, code=2)

    def test_a_threshold_that_cannot_be_reached(self, tmp_path):
        silo = tmp_path / "shop-x"
        make_party(silo, "shop-x", "silo")
        key = str(PrivateKey.generate().public_key)
        assert (
            "reached" in run("administrators", "--key", key, "--threshold", 2, "--dir", silo, code=2).stderr
        )
        assert os.listdir(silo / "keys")

    def test_a_coordinator_has_none(self, tmp_path):
        make_party(tmp_path / "hub", "hub", "coordinator", host="localhost", port=1)
        key = str(PrivateKey.generate().public_key)
        run("administrators", "--key", key, "--dir", tmp_path / "hub", code=2)
