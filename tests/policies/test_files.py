"""Files: every problem at once, with line and fix; nothing half written; text that reads back as it was."""

from __future__ import annotations

import errno
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.charters.charter import Charter
from policies.documents import MAX_DEPTH, MAX_FILE_BYTES, OversizeError, PolicyFileError, parse_document
from policies.files import (
    dump_yaml,
    load_card,
    load_signatures,
    load_yaml,
    read_signed,
    save_card,
    save_signatures,
    save_yaml,
    signature_path,
    write_atomically,
)
from policies.plans.plan import Plan
from policies.signing import DetachedSignatures, PrivateKey
from policies.silo_policy import SiloPolicy
from policies.trust import UnsignedError
from policies.validation import parse_yaml, validate_values
from privacy.errors import DataError, ExitCode
from tests.contracts.policy_scene import make_scene, policy_text, read_policy

SCENE = make_scene()

FULL_OF_MISTAKES = """\
kind: SiloPolicy
schema_version: 1
version: 7
silo: Shop A
expires: 2027-13-30
datasets:
  purchases:
    source: {parquet: data/purchases/*.parquet, csv: x}
    colums: {user_id: customer}
    max_interactions_per_user: "200"
    population: customers
    max_silos_per_user: 1
budgets:
  customers: {epsilon: -8, delta: 1e-6, scope: lifetme, filter: zcdp}
  Bad Name: {epsilon: yes, delta: 1, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: purchases}
  max_epsilon_per_plan: 4
  min_silos: 1.5
  with_members: shop-b
  require: {encryption: false, unit: users}
"""


def problems(text: str, model: type = SiloPolicy) -> dict[str, tuple[int, str, str]]:
    with pytest.raises(PolicyFileError) as caught:
        parse_yaml(text.encode(), model, "policy.yaml")
    found = caught.value.problems
    assert list(found) == sorted(found, key=lambda item: item.line)
    return {item.field: (item.line, item.message, item.remedy) for item in found}


class TestProblems:
    def test_all_are_told_at_once_with_line_and_fix(self):
        found = problems(FULL_OF_MISTAKES)
        lines = {field: line for field, (line, _, _) in found.items()}
        assert lines == {
            "silo": 4,
            "expires": 5,
            "datasets.purchases.source": 8,
            "datasets.purchases.colums": 9,
            "datasets.purchases.max_interactions_per_user": 10,
            "budgets.customers.epsilon": 14,
            "budgets.customers.scope": 14,
            "budgets.Bad Name": 15,
            "budgets.Bad Name.epsilon": 15,
            "budgets.Bad Name.delta": 15,
            "accepts.min_colluding_silos": 16,
            "accepts.min_silos": 19,
            "accepts.with_members": 20,
            "accepts.require.encryption": 21,
            "accepts.require.unit": 21,
        }
        assert all(remedy for _, _, remedy in found.values())
        assert found["datasets.purchases.colums"][1:] == ("unknown field", "did you mean columns?")
        assert found["budgets.customers.scope"][2] == "did you mean lifetime?"
        assert found["accepts.min_colluding_silos"][1:] == ("missing", "add min_colluding_silos here")
        assert found["expires"][2] == "write a date such as 2027-06-30"

    def test_the_message_names_file_line_and_field(self):
        with pytest.raises(PolicyFileError) as caught:
            read_policy(policy_text().replace("epsilon: 8.0", "epsilon: -8"))
        error = caught.value
        line = (
            policy_text().splitlines().index(next(x for x in policy_text().splitlines() if "epsilon: 8" in x))
            + 1
        )
        assert error.where == f"policy.yaml:{line}"
        assert error.message == "budgets.customers.epsilon: -8 is not above 0"
        assert error.remedy == "write a value above 0"
        assert error.exit_code is ExitCode.DATA

    def test_an_unknown_field_without_a_twin_names_those_there_are(self):
        found = problems(policy_text() + "zebra: 1\n")
        assert found["zebra"][1] == "unknown field"
        assert "budgets" in found["zebra"][2]

    @pytest.mark.parametrize("value", ["yes", "0", '"true"'])
    def test_only_true_is_true(self, value):
        assert "accepts.require.masks" in problems(policy_text().replace("masks: true", f"masks: {value}"))

    def test_rules_across_fields_are_told_at_their_fields(self):
        text = policy_text().replace("population: customers", "population: clients")
        text = text.replace("with_members: [shop-b, shop-c]", "with_members: [shop-a, shop-a]")
        found = {problem.field: problem.line for problem in _caught(text).problems}
        lines = text.splitlines()
        assert found == {
            "datasets.purchases.population": 1 + next(i for i, x in enumerate(lines) if "clients" in x),
            "accepts.with_members": 1 + next(i for i, x in enumerate(lines) if "with_members" in x),
        }

    def test_a_list_element_is_named_by_its_index(self):
        values = SCENE.charter.model_dump(mode="json")
        values["members"][1]["silo"] = "Shop B"
        values["members"][2]["administrators"]["threshold"] = 9
        with pytest.raises(PolicyFileError) as caught:
            validate_values(values, Charter, "charter")
        fields = [problem.field for problem in caught.value.problems]
        assert fields == ["members[1].silo", "members[2].administrators.threshold"]

    def test_branches_of_a_union_that_nobody_meant_are_not_told(self):
        found = problems(
            "kind: Plan\nmodel: {family: item-grph}\nreleases: {model: members, metrics: {noised: true}}",
            Plan,
        )
        assert found["model.family"][1:] == (
            '"item-grph" is not one of: popularity, item-graph, linear, autoencoder, language, sequence, '
            "cross-moments, private-encoder",
            "did you mean item-graph?",
        )
        assert found["releases.metrics.epsilon"][1] == "missing"
        assert "releases.metrics" not in found
        found = problems("kind: Plan\nreleases: {model: members, metrics: nois}", Plan)
        assert found["releases.metrics"][1].endswith("is not one of: none")

    def test_one_problem_survives_the_way_back_from_a_worker(self):
        import pickle

        error = _caught(FULL_OF_MISTAKES)
        again = pickle.loads(pickle.dumps(error))
        assert (again.problems, str(again)) == (error.problems, str(error))


def _caught(text: str) -> PolicyFileError:
    with pytest.raises(PolicyFileError) as caught:
        read_policy(text)
    return caught.value


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("a: 1\na: 2\n", 2, "twice, first on line 1"),
            ("a: &x {b: 1}\nc: *x\n", 2, "alias"),
            ("a: {b: 1}\n<<: {c: 2}\n", 2, "merge"),
            ("a: 1\n---\nb: 2\n", 2, "second document"),
            ("a: !python/object:os.system x\n", 1, "tag"),
            ("a: !!python/name:os.system x\n", 1, "tag"),
            ("a: !!binary aGk=\n", 1, "tag"),
            ("1: 2\n", 1, "not a word"),
            ("? [a]\n: 2\n", 1, "not a word"),
            ("a: .nan\n", 1, "finite"),
            ("a: -.inf\n", 1, "finite"),
            ("a: 1e999\n", 1, "too large"),
            ("a: 0x1f\n", 1, "decimal"),
            ("a: 1_000\n", 1, "decimal"),
            ("a: [1\n", 2, "not YAML"),
            ("a: b: c\n", 1, "not YAML"),
            ("a: 1\n\tb: 2\n", 2, "not YAML"),
            ("", 0, "empty"),
            ("# only a comment\n", 0, "empty"),
            ("a: \x07\n", 0, "character"),
        ],
    )
    def test_what_a_reader_would_not_see_is_refused(self, text, line, said):
        with pytest.raises(PolicyFileError) as caught:
            parse_document(text.encode(), "x.yaml")
        assert said in caught.value.problems[0].message
        assert caught.value.problems[0].line == line
        assert caught.value.problems[0].remedy

    @pytest.mark.parametrize("text", ["[" * 10_000, "{a: " * 5_000, "- " * 5_000 + "x", "[" * 40 + "]" * 40])
    def test_depth_is_limited(self, text):
        with pytest.raises(PolicyFileError, match=f"more than {MAX_DEPTH} deep|not YAML"):
            parse_document(text.encode(), "x.yaml")

    def test_words_numbers_and_dates_are_what_they_look_like(self):
        text = "{a: 1e-6, b: 2027-06-30, c: yes, d: ~, e: True, f: '12', g: 007, h: -1.5, i: off, j: 1.0e-6}"
        assert parse_document(text.encode(), "x").value == {
            "a": 1e-6, "b": "2027-06-30", "c": "yes", "d": None, "e": True,
            "f": "12", "g": 7, "h": -1.5, "i": "off", "j": 1e-6,
        }  # fmt: skip

    def test_an_old_yaml_directive_does_not_change_what_words_mean(self):
        assert parse_document(b"%YAML 1.1\n---\na: yes\n", "x").value == {"a": "yes"}

    def test_other_encodings_are_refused(self):
        with pytest.raises(PolicyFileError, match="UTF-8"):
            parse_document("a: ä".encode("latin-1"), "x")
        assert parse_document("\ufeffa: ä".encode(), "x").value == {"a": "ä"}

    @settings(max_examples=150, deadline=None)
    @given(st.text(max_size=60) | st.text("{}[]:,&*!|>'\"%#-? \nab1.", max_size=60))
    def test_any_text_is_read_or_refused(self, text):
        try:
            document = parse_document(text.encode(errors="surrogatepass"), "x")
        except PolicyFileError:
            return
        json.dumps(document.value, allow_nan=False)


class TestDisk:
    @pytest.mark.parametrize("model", ["charter", "policy"])
    def test_what_is_written_reads_back_with_the_same_signed_bytes(self, tmp_path, model):
        value = SCENE.charter if model == "charter" else read_policy(policy_text())
        path = tmp_path / "file.yaml"
        save_yaml(path, value, header="two\nlines")
        assert path.read_text().startswith("# two\n# lines\nkind: ")
        assert load_yaml(path, type(value)).signed_bytes() == value.signed_bytes()

    @settings(max_examples=60, deadline=None)
    @given(
        epsilon=st.floats(1e-9, 100, allow_subnormal=False),
        column=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20),
        member=st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True).filter(
            lambda name: name != "shop-a"
        ),
    )
    def test_any_policy_reads_back_with_the_same_signed_bytes(self, epsilon, column, member):
        values = read_policy(policy_text()).model_dump(mode="json", exclude_unset=True)
        values["budgets"]["customers"]["epsilon"] = epsilon
        values["datasets"]["purchases"]["columns"] = {"user_id": column}
        values["accepts"]["with_members"] = [member]
        policy = validate_values(values, SiloPolicy, "x")
        assert parse_yaml(dump_yaml(policy).encode(), SiloPolicy, "x").signed_bytes() == policy.signed_bytes()

    def test_comments_and_order_are_not_signed(self):
        text = policy_text()
        moved = "# a remark\n" + "\n".join(line.split("  #")[0] for line in text.splitlines())
        assert read_policy(moved).signed_bytes() == read_policy(text).signed_bytes()

    def test_oversize_is_refused_before_it_is_parsed(self, tmp_path):
        path = tmp_path / "policy.yaml"
        path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
        with pytest.raises(OversizeError):
            load_yaml(path, SiloPolicy)

    @pytest.mark.parametrize("name", ["nothing.yaml", ".", "file/policy.yaml"])
    def test_a_missing_file_is_named(self, tmp_path, name):
        (tmp_path / "file").touch()
        with pytest.raises(DataError, match="no such file") as caught:
            load_yaml(tmp_path / name, SiloPolicy)
        assert str(tmp_path) in str(caught.value.where)

    def test_a_full_disk_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "policy.yaml"
        write_atomically(path, b"old")

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_atomically(path, b"new")
        assert [entry.name for entry in tmp_path.iterdir()] == ["policy.yaml"]
        assert path.read_bytes() == b"old"

    def test_signatures_stand_beside_the_file(self, tmp_path):
        path = tmp_path / "policy.yaml"
        path.write_text(policy_text())
        assert signature_path(path) == tmp_path / "policy.sig.json"
        assert load_signatures(path) is None
        with pytest.raises(UnsignedError, match="nobody has signed") as caught:
            read_signed(path)
        assert "policy sign" in str(caught.value.remedy)
        signatures = DetachedSignatures.over(b"x").signed_by(PrivateKey.generate(), b"x")
        save_signatures(path, signatures)
        assert load_signatures(path) == signatures
        assert read_signed(path).content == path.read_bytes()

    @pytest.mark.parametrize(
        "content", ["", "[]", "{", '{"payload_sha256": "x", "signatures": []}', '{"a": 1}']
    )
    def test_a_file_that_holds_no_signatures_says_so(self, tmp_path, content):
        (tmp_path / "policy.sig.json").write_text(content)
        with pytest.raises(UnsignedError, match="not a file of signatures"):
            load_signatures(tmp_path / "policy.yaml")

    def test_cards_read_back_and_damage_is_found(self, tmp_path):
        path = tmp_path / "card.json"
        save_card(path, SCENE.hub.card)
        assert load_card(path) == SCENE.hub.card
        path.write_text("{")
        with pytest.raises(DataError, match="not JSON"):
            load_card(path)
        path.write_text(json.dumps({"kind": "Card", "nam": "a"}))
        with pytest.raises(PolicyFileError, match="did you mean name"):
            load_card(path)
