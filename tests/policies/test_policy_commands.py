"""``archipel charter`` and ``archipel policy`` as administrators type them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from policies.administration import sign_policy
from policies.canonical import digest
from policies.charters.charter import Charter
from policies.charters.commands import charter_app
from policies.explain import explain_policy
from policies.files import load_charter, load_yaml, save_yaml, write_atomically
from policies.policy_commands import policy_app
from policies.signing import PrivateKey
from tests.contracts.policy_scene import NOW, SILOS, Scene, make_scene, policy_text, read_policy

app = typer.Typer(pretty_exceptions_enable=False)
app.add_typer(charter_app, name="charter")
app.add_typer(policy_app, name="policy")

FUTURE = (datetime.now(UTC) + timedelta(days=400)).date()
PAST = (datetime.now(UTC) - timedelta(days=1)).date()


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def machine(*arguments: object, code: int = 0) -> dict[str, object]:
    found = json.loads(run(*arguments, "--json", "-", code=code).stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = make_scene()
    made.write(tmp_path)
    for name in SILOS:
        (tmp_path / name / "policy.yaml").write_text(policy_text(name, version=1, expires=FUTURE))
    return made


def new_charter(root: Path, *, out: Path | None = None) -> Path:
    out = out or root / "charter.yaml"
    cards = [argument for name in SILOS for argument in ("--member", root / name / "card.json")]
    run("charter", "new", *cards, "--coordinator", root / "hub" / "card.json", "--name", "nordic",
        "--expires", FUTURE, "--out", out)  # fmt: skip
    return out


class TestCharter:
    def test_new_sign_merge_show(self, scene, tmp_path):
        drafted = new_charter(tmp_path)
        for name in SILOS:
            copy = tmp_path / name / "charter.yaml"
            write_atomically(copy, drafted.read_bytes())
            found = machine("charter", "sign", "--dir", tmp_path / name)
            assert found["missing_signatures"] == [other for other in SILOS if other != name]
        copies = [tmp_path / name / "charter.yaml" for name in SILOS]
        united = tmp_path / "united" / "charter.yaml"
        assert "not signed by shop-c" in run("charter", "merge", *copies[:2], "--out", united).output
        assert machine("charter", "merge", *copies, "--out", united)["missing_signatures"] == []
        charter = load_charter(united.parent, datetime.now(UTC))
        assert [member.silo for member in charter.members] == list(SILOS)
        shown = run("charter", "show", united).output
        assert "signed by all 3 members" in shown
        assert digest(charter) in shown
        for party in charter.parties():
            assert party.identity_key.key_id in shown
            assert party.certificate_sha256 in shown

    def test_signatures_gather_on_one_copy_too(self, scene, tmp_path):
        drafted = new_charter(tmp_path)
        for name in SILOS:
            found = machine("charter", "sign", drafted, "--dir", tmp_path / name)
        assert found["missing_signatures"] == []

    def test_signing_an_edited_charter_starts_over(self, scene, tmp_path):
        drafted = new_charter(tmp_path)
        run("charter", "sign", drafted, "--dir", tmp_path / "shop-a")
        drafted.write_text(drafted.read_text().replace("name: nordic", "name: baltic"))
        run("charter", "show", drafted, code=8)
        found = machine("charter", "sign", drafted, "--dir", tmp_path / "shop-b")
        assert found["missing_signatures"] == ["shop-a", "shop-c"]

    @pytest.mark.parametrize("what", ["administrators", "certificate", "name"])
    def test_a_silo_signs_no_charter_that_misstates_it(self, scene, tmp_path, what):
        drafted = new_charter(tmp_path)
        values = load_yaml(drafted, Charter).model_dump(mode="json")
        if what == "administrators":
            values["members"][1]["administrators"]["keys"] = [str(PrivateKey.generate().public_key)]
        elif what == "certificate":
            other = make_scene().charter.members[1]
            values["members"][1] |= {
                "certificate": other.certificate,
                "certificate_sha256": other.certificate_sha256,
            }
        else:
            del values["members"][1]
            values["amendments"]["threshold"] = 2
        save_yaml(drafted, Charter.model_validate_json(json.dumps(values)))
        result = run("charter", "sign", drafted, "--dir", tmp_path / "shop-b", code=8)
        assert "error[wrong_signer]" in result.stderr
        assert not (tmp_path / "charter.sig.json").exists()
        run("charter", "sign", drafted, "--dir", tmp_path / "shop-a")

    def test_the_coordinator_does_not_sign(self, scene, tmp_path):
        result = run("charter", "sign", new_charter(tmp_path), "--dir", tmp_path / "hub", code=8)
        assert "the members do" in result.stderr

    def test_copies_that_differ_are_not_merged(self, scene, tmp_path):
        one, two = new_charter(tmp_path), new_charter(tmp_path, out=tmp_path / "two.yaml")
        two.write_text(two.read_text().replace("name: nordic", "name: baltic"))
        result = run("charter", "merge", one, two, "--out", tmp_path / "out.yaml", code=8)
        assert "not the same charter" in result.stderr
        assert not (tmp_path / "out.yaml").exists()

    def test_cards_in_the_wrong_place_are_refused(self, scene, tmp_path):
        hub, silo = tmp_path / "hub" / "card.json", tmp_path / "shop-a" / "card.json"
        assert "coordinator's" in run("charter", "new", "--member", hub, "--coordinator", hub, code=8).stderr
        assert "a silo's" in run("charter", "new", "--member", silo, "--coordinator", silo, code=8).stderr

    def test_one_silo_is_no_federation(self, scene, tmp_path):
        cards = (
            "--member",
            tmp_path / "shop-a" / "card.json",
            "--coordinator",
            tmp_path / "hub" / "card.json",
        )
        assert "give at least 2" in run("charter", "new", *cards, "--out", tmp_path / "x", code=6).stderr

    def test_an_expired_charter_is_not_signed(self, scene, tmp_path):
        drafted = new_charter(tmp_path)
        drafted.write_text(drafted.read_text().replace(f"expires: {FUTURE}", f"expires: {PAST}"))
        run("charter", "sign", drafted, "--dir", tmp_path / "shop-a", code=8)
        assert "(over)" in run("charter", "show", drafted).output


class TestPolicyCheck:
    def test_a_good_policy(self, scene, tmp_path):
        found = machine("policy", "check", "--dir", tmp_path / "shop-b")
        assert (found["ok"], found["signed"], found["problems"]) == (True, False, [])
        run("policy", "sign", "--dir", tmp_path / "shop-b")
        assert machine("policy", "check", "--dir", tmp_path / "shop-b")["signed"] is True

    def test_every_problem_at_once_for_people_and_machines(self, scene, tmp_path):
        path = tmp_path / "shop-a" / "policy.yaml"
        path.write_text(
            path.read_text().replace("epsilon: 8.0", "epsilon: -8").replace("metrics:", "metrix:")
        )
        result = run("policy", "check", "--dir", tmp_path / "shop-a", "--json", "-", code=6)
        found = json.loads(result.stdout)
        assert [problem["field"] for problem in found["problems"]] == [
            "budgets.customers.epsilon",
            "accepts.metrix",
        ]
        assert found["ok"] is False
        assert "2 problems" in result.stderr
        assert "did you mean metrics?" in result.stderr

    def test_a_policy_that_is_over_or_of_another_silo(self, scene, tmp_path):
        path = tmp_path / "shop-a" / "policy.yaml"
        path.write_text(policy_text("shop-b", expires=PAST))
        found = machine("policy", "check", "--dir", tmp_path / "shop-a", code=6)
        assert [problem["field"] for problem in found["problems"]] == ["expires", "silo"]

    def test_what_deserves_a_second_look(self, scene, tmp_path):
        directory = tmp_path / "shop-a"
        soon = (datetime.now(UTC) + timedelta(days=5)).date()
        text = policy_text("shop-a", expires=soon).replace("# exclude_users", "exclude_users")
        text = text.replace("[shop-b, shop-c]", "[shop-b, shop-z]").replace("epsilon: 8.0", "epsilon: 50.0")
        (directory / "policy.yaml").write_text(text)
        write_atomically(directory / "charter.yaml", new_charter(tmp_path).read_bytes())
        warnings = "\n".join(machine("policy", "check", "--dir", directory)["warnings"])
        for said in ("weak promise", "opt-outs.csv is not there", "shop-z is no member", "5 days left"):
            assert said in warnings

    def test_a_directory_that_is_none(self, tmp_path):
        assert "no such file" in run("policy", "check", "--dir", tmp_path, code=6).stderr


class TestPolicySign:
    def test_administrators_sign_one_after_the_other(self, scene, tmp_path):
        directory = tmp_path / "shop-a"
        first = machine("policy", "sign", "--dir", directory)
        assert (len(first["signers"]), first["threshold"]) == (1, 2)
        assert machine("policy", "check", "--dir", directory)["signed"] is False
        again = machine("policy", "sign", "--dir", directory)
        assert again["signers"] == first["signers"]
        second = machine(
            "policy", "sign", "--dir", directory, "--key", directory / "keys" / "administrator1.pem"
        )
        assert len(second["signers"]) == 2
        assert machine("policy", "check", "--dir", directory)["signed"] is True

    def test_an_edit_drops_the_old_signatures(self, scene, tmp_path):
        directory = tmp_path / "shop-a"
        run("policy", "sign", "--dir", directory)
        path = directory / "policy.yaml"
        path.write_text(path.read_text().replace("\nversion: 1\n", "\nversion: 2\n"))
        key = directory / "keys" / "administrator1.pem"
        assert len(machine("policy", "sign", "--dir", directory, "--key", key)["signers"]) == 1

    def test_a_stranger_cannot_sign(self, scene, tmp_path):
        for key in (
            tmp_path / "shop-b" / "keys" / "administrator.pem",
            tmp_path / "shop-a" / "keys" / "identity.pem",
        ):
            result = run("policy", "sign", "--dir", tmp_path / "shop-a", "--key", key, code=8)
            assert "none of the administrators" in result.stderr
        assert not (tmp_path / "shop-a" / "policy.sig.json").exists()

    def test_the_charters_administrators_count_not_the_cards(self, scene, tmp_path):
        directory = tmp_path / "shop-b"
        values = load_yaml(new_charter(tmp_path), Charter).model_dump(mode="json")
        values["members"][1]["administrators"]["keys"] = [str(PrivateKey.generate().public_key)]
        save_yaml(directory / "charter.yaml", Charter.model_validate_json(json.dumps(values)))
        run("policy", "sign", "--dir", directory, code=8)

    def test_another_silos_or_an_expired_policy_is_not_signed(self, scene, tmp_path):
        path = tmp_path / "shop-a" / "policy.yaml"
        path.write_text(policy_text("shop-b", expires=FUTURE))
        assert "error[wrong_silo]" in run("policy", "sign", "--dir", tmp_path / "shop-a", code=8).stderr
        path.write_text(policy_text("shop-a", expires=PAST))
        assert "error[expired]" in run("policy", "sign", "--dir", tmp_path / "shop-a", code=8).stderr

    def test_a_coordinator_has_no_policy(self, scene, tmp_path):
        assert "coordinator's directory" in run("policy", "sign", "--dir", tmp_path / "hub", code=2).stderr

    def test_the_same_from_code(self, scene, tmp_path):
        state = sign_policy(tmp_path / "shop-b", NOW)
        assert state.is_complete
        assert {key.key_id for key in state.signers} == {scene.administrators("shop-b")[0].key_id}


class TestExplainAndSchema:
    def test_says_who_what_cost_and_until_when(self, scene, tmp_path):
        text = run("policy", "explain", "--dir", tmp_path / "shop-a").output
        for said in ("shop-a, shop-b and shop-c", "epsilon 4", "epsilon 8", str(FUTURE), "purchases",
                     "At least 3 silos", "own data of that person"):  # fmt: skip
            assert said in text

    def test_empty_policies_are_said_to_deny(self):
        policy = read_policy(policy_text().replace("[shop-b, shop-c]", "[]"))
        words = " ".join(sentence for part in explain_policy(policy, NOW) for sentence in part.sentences)
        assert "every plan is denied" in words

    def test_every_limit_changes_the_words(self):
        """What an administrator would want to know moves the text; nothing is explained from habit."""
        plain = explain_policy(read_policy(policy_text()), NOW)
        for old, new in (
            ("min_silos: 3", "min_silos: 2"),
            ("min_colluding_silos: 1", "min_colluding_silos: 2"),
            ("max_silos_per_user: 1", "max_silos_per_user: 3"),
            ("max_interactions_per_user: 200", "max_interactions_per_user: 50"),
            ("metrics: noised", "metrics: none"),
            ("metrics: noised", "metrics: noised\n  families: [popularity]"),
            ("metrics: noised", "metrics: noised\n  families: []"),
            ("metrics: noised", "metrics: noised\n  max_rounds: 10"),
            ("verify_sums: 1.0", "verify_sums: 0.0"),
            ("epsilon: 8.0", "epsilon: 1.0"),
            ("max_epsilon_per_plan: 4.0", "max_epsilon_per_plan: 2.0"),
            ("filter: zcdp", "filter: renyi, orders: [2, 4]"),
            ("# exclude_users", "exclude_users"),
            ("expires: 2027", "expires: 2025"),
        ):
            altered = policy_text().replace(old, new)
            assert altered != policy_text()
            assert explain_policy(read_policy(altered), NOW) != plain, new

    def test_the_odds_are_those_of_epsilon(self):
        policy = read_policy(policy_text().replace("epsilon: 8.0", "epsilon: 1.0"))
        words = " ".join(sentence for part in explain_policy(policy, NOW) for sentence in part.sentences)
        assert "73.1% sure" in words

    def test_schema_goes_where_the_template_looks(self, scene, tmp_path):
        run("policy", "schema", "--dir", tmp_path / "shop-a")
        line = (tmp_path / "shop-a" / "policy.yaml").read_text().splitlines()[0]
        named = line.partition("$schema=")[2]
        assert json.loads((tmp_path / "shop-a" / named).read_text())["title"] == "SiloPolicy"

    def test_an_unknown_schema(self, tmp_path):
        run("policy", "schema", "--kind", "ledger", "--dir", tmp_path, code=2)


@pytest.mark.parametrize(
    "arguments", [["charter"], ["policy"], ["charter", "new"], ["policy", "sign", "--nonsense"]]
)
def test_usage_errors_exit_with_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2
