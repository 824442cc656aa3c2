"""``tune --kind post-processing``: chosen on some people, measured on others, kept here and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import cli
from privacy.errors import ExitCode
from silo.finished import load_finished
from silo.local.fusion import halves
from silo.rows import load_rows
from silo.site import utc_now
from silo.tuning.postprocessing import ATTRIBUTE_WEIGHTS, POPULARITY_WEIGHTS, load_tuned, tune_released
from tests.support.joined_silo import BAD, GOOD, make_joined_silo
from tests.support.small_set import user_name

SOMEBODY = user_name(3)


def run(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, [*words, "--dir", str(directory)])


def values(directory: Path, *words: str) -> dict[str, Any]:
    done = run(directory, *words, "--json", "-")
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_joined_silo(tmp_path_factory.mktemp("joined"))


@pytest.fixture
def silo(joined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joined, tmp_path / "shop-a"))


def test_a_model_that_ignores_popularity_gains_by_it(silo: Path) -> None:
    found = values(silo, "tune", "--kind", "post-processing")
    assert found["popularity_weight"] > 0
    assert found["gain"] > 2 * found["gain_standard_error"]
    assert found["as_chosen"] - found["as_released"] == pytest.approx(found["gain"])
    assert found["epsilon"] == 0.0


def test_the_model_as_it_is_comes_first_among_equals() -> None:
    assert (POPULARITY_WEIGHTS[0], ATTRIBUTE_WEIGHTS[0]) == (0.0, 0.0)


def test_test_people_choose_nothing(silo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the answers of the test half turned round, the same is chosen."""
    before = tune_released(silo, GOOD, utc_now(), keep=False)
    finished = load_finished(silo, GOOD)
    _, test = halves(load_rows(silo, finished.plan, finished.dataset).held_out)

    def turned(held_out: Any) -> Any:
        validation, others = halves(held_out)
        items = others.frame["item_index"].to_numpy()
        frame = others.frame.with_columns(item_index=np.uint32(139) - items.astype(np.uint32))
        return validation, type(others)(others.user_ids, frame, others.catalogue)

    monkeypatch.setattr("silo.tuning.postprocessing.halves", turned)
    after = tune_released(silo, GOOD, utc_now(), keep=False)
    assert test.num_users == after["test_users"]
    names = ("popularity_weight", "attribute_weight")
    assert [before[name] for name in names] == [after[name] for name in names]
    assert before["as_chosen"] != after["as_chosen"]


def test_lists_are_made_with_it_when_asked(silo: Path) -> None:
    assert run(silo, "recommend", "--user", SOMEBODY, "--model", "tuned").exit_code == ExitCode.DATA
    kept = values(silo, "tune", "--kind", "post-processing", "--keep")["kept"]
    assert Path(kept).parent.stat().st_mode & 0o077 == 0
    plain = values(silo, "recommend", "--user", SOMEBODY)
    tuned = values(silo, "recommend", "--user", SOMEBODY, "--model", "tuned")
    assert tuned["private_parts"]
    assert tuned["jobs"] == [GOOD]
    assert [item["item_id"] for item in tuned["items"]] != [item["item_id"] for item in plain["items"]]


def test_each_job_has_its_own_choice(silo: Path) -> None:
    values(silo, "tune", "--kind", "post-processing", "--job", "bb", "--keep")
    assert run(silo, "recommend", "--user", SOMEBODY, "--model", "tuned").exit_code == ExitCode.DATA
    assert load_tuned(silo, load_finished(silo, BAD)).model.is_fallback is False
    done = run(silo, "recommend", "--user", SOMEBODY, "--model", "tuned", "--job", "bb")
    assert done.exit_code == 0, done.output


def test_it_spends_nothing_and_stays_out_of_bundles(silo: Path) -> None:
    entries = (silo / "ledger.db").read_bytes()
    values(silo, "tune", "--kind", "post-processing", "--keep")
    assert (silo / "ledger.db").read_bytes() == entries
    assert not list((silo / "jobs").rglob("*tun*"))
    assert not (silo / "outbox" / "tuned").exists()


def test_options_of_other_kinds_are_refused(silo: Path) -> None:
    for words in (("--epsilon", "0.1"), ("--trials", "3"), ("--out", "x.yaml")):
        done = run(silo, "tune", "--kind", "post-processing", *words)
        assert done.exit_code == ExitCode.USAGE
