"""``tune --kind local-private``: allowed by the policy, paid for before it is made, and one name leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

import cli
from policies.canonical import digest
from policies.decisions.history import count_alignments
from policies.decisions.selections import Selection, is_selection
from policies.files import load_yaml
from policies.plans.plan import Plan
from privacy.errors import BudgetExceededError, DataError, ExitCode, UsageError
from privacy.events import EventCount, PureEvent
from privacy.ledger.chain import LogReader
from privacy.ledger.fold import Fold
from privacy.selection import SCORE_GRID
from silo.audit.accountant import SecondAccountant
from silo.audit.receipts import unwitnessed
from silo.data.interactions import Interactions
from silo.rows import load_rows
from silo.site import Site, utc_now
from silo.tuning import selection as selecting
from silo.tuning.selection import ask, choose, draw, judge
from tests.support.joined_silo import BAD, GOOD, make_joined_silo


def run(directory: Path, *words: str) -> Result:
    return CliRunner().invoke(cli.app, ["tune", "--kind", "local-private", *words, "--dir", str(directory)])


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_joined_silo(tmp_path_factory.mktemp("joined"))


@pytest.fixture
def silo(joined: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(joined, tmp_path / "shop-a"))


def charges(directory: Path) -> dict[str, Any]:
    with Site(directory) as site:
        state = site.ledger.state()
        return {
            "jobs": [job for job in state.jobs if is_selection(job)],
            "committed": [
                (item.event, item.count) for account in state.accounts.values() for item in account.committed
            ],
            "outstanding": [item for account in state.accounts.values() for item in account.outstanding],
        }


def test_the_better_model_is_chosen_paid_for_and_proposed(silo: Path) -> None:
    done = run(silo, "--epsilon", "0.5", "--json", "-")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["winner"] == GOOD
    assert load_yaml(silo / "plan-tuned.yaml", Plan) == load_yaml(silo / "jobs" / GOOD / "plan.yaml", Plan)
    spent = charges(silo)
    assert spent["jobs"] == [found["name"]]
    assert spent["committed"] == [(PureEvent(epsilon=0.5), 1)]
    assert spent["outstanding"] == []


def test_no_figure_of_a_candidate_is_shown_or_kept(silo: Path) -> None:
    done = run(silo, "--epsilon", "0.5", "--json", "-")
    found = json.loads(done.stdout)
    kept = json.loads(next((silo / "selections").glob("*.json")).read_text())
    numbers = {value for shown in (found, kept) for value in shown.values() if isinstance(value, float)}
    assert numbers == {0.5}
    assert set(kept) == {"kind", "selection", "name", "epsilon", "account", "winner", "family"}
    assert set(found) == {*kept, "plan"}


def test_the_price_is_shown_before_and_nothing_is_charged_by_looking(silo: Path) -> None:
    done = run(silo, "--epsilon", "0.25", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "charged to customers before the choice" in done.output
    assert charges(silo)["committed"] == []
    assert not (silo / "plan-tuned.yaml").exists()


def test_a_policy_that_does_not_speak_of_selections_denies_them(tmp_path: Path) -> None:
    directory = make_joined_silo(tmp_path, extra="")
    done = run(directory, "--epsilon", "0.01")
    assert done.exit_code == ExitCode.DENIED
    assert "max_epsilon_per_selection" in done.output
    assert charges(directory) == {"jobs": [], "committed": [], "outstanding": []}


def test_more_than_the_ceiling_is_denied(silo: Path) -> None:
    assert run(silo, "--epsilon", "0.6").exit_code == ExitCode.DENIED
    assert charges(silo)["committed"] == []


def test_an_account_that_cannot_pay_refuses_before_a_row_is_read(
    silo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selecting, "load_rows", lambda *_: pytest.fail("rows were read"))
    with Site(silo) as site:
        question = ask(site, [], 0.5)
        site.ledger_state(question.policy)
        while True:
            name = f"job-{len(site.ledger.state().jobs)}"
            try:
                site.ledger.reserve(
                    account="customers", job=name, dataset="purchases", plan_sha256="0" * 64,
                    policy_sha256=site.ledger.state().accounts["customers"].policy_sha256,
                    requested_by="shop-a", events=[(PureEvent(epsilon=0.5), 1)],
                )  # fmt: skip
            except BudgetExceededError:
                break
        with pytest.raises(BudgetExceededError):
            choose(site, question, silo / "plan-tuned.yaml")


def test_rows_that_cannot_be_read_cost_nothing(silo: Path) -> None:
    (silo / "rows.parquet").write_bytes(b"broken")
    with Site(silo) as site, pytest.raises(DataError):
        choose(site, ask(site, [], 0.5), silo / "plan-tuned.yaml")
    spent = charges(silo)
    assert (spent["committed"], spent["outstanding"]) == ([], [])


def test_a_crash_after_the_charge_leaves_it_spent(silo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selecting, "draw", crash)
    with Site(silo) as site, pytest.raises(KeyboardInterrupt):
        choose(site, ask(site, [], 0.5), silo / "plan-tuned.yaml")
    assert charges(silo)["committed"] == [(PureEvent(epsilon=0.5), 1)]


def test_what_a_kill_left_reserved_is_given_back_by_the_next_choice(silo: Path) -> None:
    with Site(silo) as site:
        killed = ask(site, [], 0.5)
        site.ledger_state(killed.policy)
        site.ledger.reserve(
            account=killed.account,
            job=killed.selection.name,
            dataset=killed.selection.dataset,
            plan_sha256=digest(killed.selection),
            policy_sha256=digest(killed.policy),
            requested_by=site.name,
            events=[EventCount(PureEvent(epsilon=0.5), 1)],
        )
        choose(site, ask(site, [], 0.25), silo / "plan-tuned.yaml")
    spent = charges(silo)
    assert (spent["committed"], spent["outstanding"]) == ([(PureEvent(epsilon=0.25), 1)], [])


def test_what_the_ledger_names_can_be_opened_after_a_crash(
    silo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(selecting, "draw", crash)
    with Site(silo) as site, pytest.raises(KeyboardInterrupt):
        choose(site, ask(site, [], 0.5), silo / "plan-tuned.yaml")
    (kept,) = [json.loads(path.read_text()) for path in (silo / "selections").glob("*.json")]
    assert kept["winner"] is None
    with Site(silo) as site:
        assert kept["name"] in site.ledger.state().jobs


def test_a_charge_pays_for_its_own_selection_only(silo: Path) -> None:
    with Site(silo) as site:
        question = ask(site, [], 0.5)
        choose(site, question, silo / "one.yaml")
        other = ask(site, [], 0.5).selection
        assert other.name != question.selection.name
        charge = site.ledger.commit(question.selection.name, round=0, attempt=0, event=PureEvent(epsilon=0.5))
        with pytest.raises(UsageError, match="not paid for"):
            draw(charge, other, np.array([0, SCORE_GRID]))


def test_nobody_moves_what_another_person_s_rows_say(silo: Path) -> None:
    with Site(silo) as site:
        question = ask(site, [], 0.5)
    rows = load_rows(silo, question.source.plan, question.source.dataset)
    models = [one.recommender for one in question.candidates]
    everybody = list(judge(models, rows.train, rows.held_out))
    kept = [user for user in range(rows.train.num_users) if user != 5]
    fewer = list(judge(models, *(part.select(kept) for part in (rows.train, rows.held_out))))
    with_rows = np.unique(rows.held_out.frame["user_index"].to_numpy()).tolist()
    without = [scores for user, scores in zip(with_rows, everybody, strict=True) if user != 5]
    assert np.array_equal(np.array(without), np.array(fewer))
    assert all(((scores >= 0) & (scores <= 1)).all() for scores in everybody)
    assert isinstance(rows.train, Interactions)


def test_a_selection_is_no_alignment_and_audits_add_up(silo: Path) -> None:
    assert run(silo, "--epsilon", "0.5").exit_code == 0
    assert count_alignments(silo / "ledger.db", utc_now().replace(year=2020)) == 0
    with Site(silo) as site:
        account = site.ledger.state().accounts["customers"]
        opinion = SecondAccountant().opinion(
            {PureEvent(epsilon=0.5).model_dump_json(): 1}, account.budget.delta
        )
        assert opinion.epsilon <= account.epsilon_spent


def test_an_auditor_reads_that_a_choice_waits_for_its_witnesses(silo: Path) -> None:
    assert run(silo, "--epsilon", "0.5").exit_code == 0
    fold = Fold()
    with LogReader.open(silo / "ledger.db") as reader:
        for entry in reader.entries():
            assert not list(fold.apply(entry))
    (found,) = unwitnessed(fold, 0, "ledger.db")
    assert "the private choice selection-" in found.text
    assert "when the next job ends" in found.text
    assert not list(unwitnessed(fold, fold.last_charge_seq, "ledger.db"))


def test_one_model_is_no_choice(silo: Path) -> None:
    shutil.rmtree(silo / "jobs" / BAD)
    done = run(silo, "--epsilon", "0.5")
    assert done.exit_code == ExitCode.DATA
    assert "needs two" in done.output


def test_the_statement_is_fixed_before_the_rows_and_never_the_same_twice(silo: Path) -> None:
    with Site(silo) as site:
        one, two = (ask(site, [], 0.5).selection for _ in range(2))
    assert isinstance(one, Selection)
    assert one.candidates == two.candidates == (BAD, GOOD)
    assert one.name != two.name


@pytest.mark.parametrize("words", [(), ("--epsilon", "0"), ("--epsilon", "0.1", "--keep")])
def test_what_means_nothing_is_refused(silo: Path, words: tuple[str, ...]) -> None:
    assert run(silo, *words).exit_code == ExitCode.USAGE
