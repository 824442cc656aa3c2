from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from policies.canonical import digest, sha256_hex
from policies.files import load_yaml
from policies.plans.commands import CatalogueFileError, plan_app, read_catalogue
from policies.plans.plan import Plan
from policies.plans.price import plan_epsilon
from privacy.errors import ExitCode
from tests.contracts.decision_scene import ORDERS, refusals

ITEMS = "".join(
    f'{{"attributes":["genre-{number % 3}"],"item_id":"i{number:03}","text":"","title":""}}\n'
    for number in range(40)
)
ROSTER = "shop-a,shop-b,shop-c,shop-d"


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text(ITEMS)
    return path


def new(items: Path | str, out: Path, /, *extra: str, **changes: str) -> Result:
    options = {
        "--silos": ROSTER,
        "--catalogue": str(items),
        "--epsilon": "4",
        "--delta": "1e-6",
        "--max-users-per-silo": "2000",
        "--max-silos-per-user": "1",
        "--out": str(out),
    } | {f"--{name.replace('_', '-')}": value for name, value in changes.items()}
    return CliRunner().invoke(plan_app, ["new", *(part for pair in options.items() for part in pair), *extra])


def written(items: Path | str, out: Path, /, *extra: str, **changes: str) -> Plan:
    result = new(items, out, *extra, **changes)
    assert result.exit_code == 0, result.output
    return load_yaml(out, Plan)


def test_new_writes_a_commented_plan_that_every_silo_can_accept(catalogue: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.yaml"
    plan = written(catalogue, out)
    assert plan.catalogue.sha256 == sha256_hex(ITEMS.encode())
    assert plan.catalogue.items == 40
    assert plan_epsilon(plan) <= 4.0
    assert refusals(plan) == set()
    text = out.read_text()
    assert "# yaml-language-server: $schema=plan.schema.json" in text
    assert "may pool what they know with the coordinator" in text


def test_json_on_standard_output_is_only_json(catalogue: Path, tmp_path: Path) -> None:
    result = new(catalogue, tmp_path / "plan.yaml", "--json", "-")
    found: dict[str, Any] = json.loads(result.stdout)
    plan = load_yaml(tmp_path / "plan.yaml", Plan)
    assert found["plan_sha256"] == digest(plan)
    assert found["epsilon"] <= 4.0
    assert found["epsilon_pld"] <= found["epsilon"] * 1.001
    assert (found["values"], found["bits"], found["values_per_slot"]) == (820, 21, 2)
    assert "epsilon" in result.stderr


def test_the_scope_of_epsilon_is_printed_beside_it(catalogue: Path, tmp_path: Path) -> None:
    one = new(catalogue, tmp_path / "one.yaml").output
    assert "unit user, add or remove one, per person, who is in one silo" in one
    assert "over up to 4 silos" in new(catalogue, tmp_path / "four.yaml", max_silos_per_user="4").output


def test_a_catalogue_can_be_named_by_its_digest(tmp_path: Path) -> None:
    sha256 = sha256_hex(ITEMS.encode())
    folder = tmp_path / "catalogues"
    folder.mkdir()
    (folder / f"{sha256}.jsonl").write_text(ITEMS)
    assert written(sha256, tmp_path / "plan.yaml", "--dir", str(tmp_path)).catalogue.sha256 == sha256


@pytest.mark.parametrize("family", ["popularity", "linear"])
def test_other_families(catalogue: Path, tmp_path: Path, family: str) -> None:
    plan = written(catalogue, tmp_path / "plan.yaml", family=family)
    assert plan.model.family == family
    if family == "linear":
        assert plan.model.model_dump()["features"] == 3
        assert plan.training.expected_batch_size == 8000


def test_everything_else_can_be_said(catalogue: Path, tmp_path: Path) -> None:
    plan = written(
        catalogue,
        tmp_path / "plan.yaml",
        holdout="random",
        holdout_seed="9",
        metrics_epsilon="0.25",
        colluding_silos="3",
        orders=",".join(f"{order:g}" for order in ORDERS),
        max_interactions_per_user="50",
        max_burned_rounds="1",
        purpose="research",
        rank="8",
    )
    assert plan.holdout.seed == 9
    assert plan.privacy.noise_placement == "silo"
    assert plan.privacy.orders == ORDERS
    assert plan.training.max_burned_rounds == 1
    assert plan.purpose == "research"


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"epsilon": "0"}, ExitCode.DATA, "privacy.target_epsilon: 0.0 is not above 0"),
        ({"epsilon": "nan"}, ExitCode.DATA, "privacy.target_epsilon"),
        ({"delta": "2"}, ExitCode.DATA, "privacy.target_delta"),
        ({"silos": "shop-a"}, ExitCode.DATA, "silos"),
        ({"silos": "shop-a,shop-a"}, ExitCode.DATA, "twice"),
        ({"colluding_silos": "4"}, ExitCode.DATA, "write at most 3"),
        ({"max_silos_per_user": "9"}, ExitCode.DATA, "at most the 4 silos"),
        ({"orders": "0.5,2"}, ExitCode.USAGE, "no Rényi orders"),
        ({"orders": "two"}, ExitCode.USAGE, "no Rényi orders"),
        ({"catalogue": "nowhere.jsonl"}, ExitCode.DATA, "there is no such catalogue"),
        ({"metrics_epsilon": "0.2"}, ExitCode.DATA, "need a holdout"),
        ({"epsilon": "1e-9"}, ExitCode.USAGE, "how to mend"),
    ],
)
def test_what_makes_no_plan_is_one_clear_message(
    catalogue: Path, tmp_path: Path, changes: dict[str, str], code: ExitCode, words: str
) -> None:
    result = new(catalogue, tmp_path / "plan.yaml", **changes)
    assert result.exit_code == code
    assert words in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "plan.yaml").exists()


def test_an_existing_plan_is_not_replaced_unless_told(catalogue: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.yaml"
    first = written(catalogue, out)
    refused = new(catalogue, out, epsilon="2")
    assert refused.exit_code == ExitCode.USAGE
    assert load_yaml(out, Plan) == first
    assert written(catalogue, out, "--force", epsilon="2") != first


@pytest.mark.parametrize(
    "content", ["not json\n", "{}\n", '{"item_id":"a"}\n', "[1]\n", '{"attributes":3}\n']
)
def test_a_file_that_is_no_catalogue_names_its_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(ITEMS + content)
    with pytest.raises(CatalogueFileError) as caught:
        read_catalogue(str(path), tmp_path)
    assert caught.value.where == f"{path}:41"


def test_a_catalogue_whose_bytes_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{sha256_hex(ITEMS.encode())}.jsonl"
    path.write_text(ITEMS.replace("genre-1", "genre-2"))
    with pytest.raises(CatalogueFileError, match="not those its name says"):
        read_catalogue(str(path), tmp_path)


# ── trained models ──


def test_an_autoencoder_takes_nothing_but_its_name(catalogue: Path, tmp_path: Path) -> None:
    plan = written(catalogue, tmp_path / "plan.yaml", family="autoencoder")
    assert plan.model.model_dump()["features"] == 40
    assert plan.popularity is not None
    assert plan.popularity.epsilon == 1.0
    assert (plan.training.rounds, plan.privacy.clipping, plan.privacy.noise_placement) == (
        60,
        "automatic",
        "federation",
    )
    assert refusals(plan) == set()


def test_a_sequence_model_takes_nothing_but_its_name(catalogue: Path, tmp_path: Path) -> None:
    plan = written(catalogue, tmp_path / "plan.yaml", family="sequence")
    model = plan.model.model_dump()
    assert (model["architecture"], model["places"], model["input_dropout"]) == ("transformer", 20, 0.0)
    assert plan.popularity is not None
    masked = written(
        catalogue, tmp_path / "masked.yaml", family="sequence", architecture="masked", layers="2"
    )
    model = masked.model.model_dump()
    assert (model["architecture"], model["layers"], model["input_dropout"]) == ("masked", 2, 0.2)
    assert refusals(plan) == refusals(masked) == set()


def test_everything_about_a_training_can_be_said(catalogue: Path, tmp_path: Path) -> None:
    plan = written(
        catalogue,
        tmp_path / "plan.yaml",
        "--no-bias",
        family="autoencoder",
        features="8",
        hidden="4",
        input_dropout="0.3",
        seed="7",
        start_from="ab" * 32,
        rounds="9",
        sample_rate="0.2",
        expected_batch_size="700",
        optimizer="adam",
        learning_rate="0.1",
        decay="none",
        second_moment_decay="0.95",
        noise_placement="silo",
        local_steps="3",
        local_learning_rate="0.7",
        max_grad_norm="2",
        clipping="flat",
        min_silos="3",
        round_minutes="4",
    )
    assert plan.model.model_dump() == {
        "family": "autoencoder", "features": 8, "hidden": 4, "input_dropout": 0.3, "seed": 7, "bias": "none",
        "start_from": "ab" * 32,
    }  # fmt: skip
    assert plan.training.model_dump() == {
        "rounds": 9, "max_burned_rounds": 1, "sample_rate": 0.2, "expected_batch_size": 700.0,
        "optimizer": "adam", "learning_rate": 0.1, "decay": "none", "second_moment_decay": 0.95,
        "local_steps": 3, "local_learning_rate": 0.7,
    }  # fmt: skip
    assert (plan.privacy.filter, plan.privacy.max_grad_norm, plan.privacy.clipping) == ("renyi", 2.0, "flat")
    assert (plan.protection.min_silos, plan.protection.round_minutes) == (3, 4.0)
    assert plan.privacy.colluding_silos == 3
    assert plan_epsilon(plan) <= 4.0


def test_the_file_comments_what_a_training_is_made_of(catalogue: Path, tmp_path: Path) -> None:
    written(catalogue, tmp_path / "plan.yaml", family="autoencoder", min_silos="3")
    text = (tmp_path / "plan.yaml").read_text()
    for words in (
        "# popularity, counted with noise before the training",
        "# public divisor over all silos; never a count of rows",
        "# flat: longer ones are shortened | automatic: all are scaled to it",
        "# then a round goes on without a silo",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "autoencoder", "local_steps": "2"}, "noise_placement: silo"),
        ({"family": "autoencoder", "local_learning_rate": "2"}, "only learning_rate is used"),
        ({"family": "autoencoder", "optimizer": "sgd", "second_moment_decay": "0.9"}, "sgd keeps no squares"),
        ({"family": "autoencoder", "bias_epsilon": "4"}, "leaves nothing of target_epsilon"),
        ({"family": "autoencoder", "start_from": "abc"}, "64 hexadecimal digits"),
        ({"family": "autoencoder", "features": "41"}, "at most as many columns"),
        ({"family": "autoencoder", "round_minutes": "4"}, "every round waits"),
        ({"family": "autoencoder", "architecture": "gru"}, "known here: family, features, hidden"),
        ({"family": "sequence", "input_dropout": "0.2"}, "asked for every next item and hides none"),
        ({"family": "sequence", "features": "41"}, "at most as many columns"),
        ({"family": "autoencoder", "rank": "4"}, "known here: family, features, hidden"),
        ({"family": "item-graph", "rounds": "4"}, "one secure sum"),
        ({"family": "item-graph", "sample_rate": "0.5"}, "counts every user once"),
        ({"family": "popularity", "clipping": "automatic"}, "no gradients to clip"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(
    catalogue: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    result = new(catalogue, tmp_path / "plan.yaml", **changes)
    assert result.exit_code == ExitCode.DATA
    assert words in result.output
    assert not (tmp_path / "plan.yaml").exists()


def test_a_price_and_no_counts_do_not_go_together(catalogue: Path, tmp_path: Path) -> None:
    result = new(catalogue, tmp_path / "p.yaml", "--no-bias", family="autoencoder", bias_epsilon="0.5")
    assert result.exit_code == ExitCode.USAGE
    assert "leave out --bias-epsilon or --no-bias" in result.output


def test_show_says_of_a_file_what_new_said_of_it(catalogue: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.yaml"
    said = new(catalogue, out, family="autoencoder", max_burned_rounds="2").output
    shown = CliRunner().invoke(plan_app, ["show", str(out), "--json", str(tmp_path / "found.json")])
    assert shown.exit_code == 0
    assert shown.output == said
    assert "popularity, then 60 of the training; up to 2 may fail" in said
    assert "more noise" in said
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    assert [(item["purpose"], item["rounds"]) for item in found["releases"]] == [
        ("popularity", 1),
        ("training", 60),
    ]
    assert found["releases"][0]["epsilon_alone"] <= 1.0
    assert 0 < found["rounding_cost"] < 0.01


def test_show_refuses_what_is_no_plan(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("kind: Plan\n")
    result = CliRunner().invoke(plan_app, ["show", str(tmp_path / "plan.yaml")])
    assert result.exit_code == ExitCode.DATA
    assert "add catalogue here" in result.output


LANGUAGE = {"family": "language", "encoder": "ab" * 32, "adapter": "ffa_lora"}


def test_silos_that_train_fewer_columns_are_named_once_each(catalogue: Path, tmp_path: Path) -> None:
    columns = ("--adapter-columns", "shop-c=2", "--adapter-columns", "shop-d=1")
    plan = written(catalogue, tmp_path / "plan.yaml", *columns, **LANGUAGE)
    assert plan.model.family == "language"
    assert plan.model.adapter is not None
    assert plan.model.adapter.columns == {"shop-c": 2, "shop-d": 1}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("shop-c",), "write SILO=COLUMNS"),
        (("shop-c=0",), "write SILO=COLUMNS"),
        (("shop-c=2", "shop-c=1"), "shop-c stands here twice"),
        (("shop-x=2",), "shop-x is not in the roster"),
    ],
)
def test_columns_that_cannot_be_read_are_refused(
    catalogue: Path, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    options = [part for one in given for part in ("--adapter-columns", one)]
    result = new(catalogue, tmp_path / "plan.yaml", *options, **LANGUAGE)
    assert result.exit_code != 0
    assert words in " ".join(result.output.split())
    assert not (tmp_path / "plan.yaml").exists()
