"""What an outsider's review of training over many rounds found: each test fails until its hole is closed."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from typing_extensions import override

from federation.absences import GIVE_UP_FACTOR, Patience
from federation.messages import Denial, PostKind
from federation.rounds import JobState, Phase, advance
from policies.canonical import digest
from policies.decisions.decision import authorize
from policies.plans.price import committed_events, schedule, spent_epsilon
from policies.plans.shapes import USERS_OF_FLOAT_ERROR
from privacy.dpsgd import USERS_AT_BASE_PRICE, PerUserGradients
from privacy.dpsgd import gradients as gradients_module
from privacy.errors import ArchipelError, DataError, UsageError
from privacy.events import EventCount, GaussianEvent
from privacy.securesum import SumRejectedError
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.jobs import close, contribute, recover, start
from silo.jobs.context import JOB_SECRETS, JobContext
from silo.jobs.records import charge_what_left
from silo.model_card import model_card
from silo.models.base import get_family
from silo.models.trainer import MAX_WEIGHT, TrainingDivergedError
from silo.session import end_session
from silo.site import RecordLostError, Site
from silo.tasks import Built, ContributionTask, OpenTask, PrepareTask, draw_contribution, prepare
from silo.worker import Worker
from tests.contracts import small_federation
from tests.contracts.board_scene import ROUND_MINUTES, Scene, patient_plan
from tests.contracts.family_contract import make_catalogue, make_interactions, random_histories
from tests.contracts.small_federation import SmallFederation, make_small_federation
from tests.support.small_silo import SILOS, small_plan, small_silo

ME = "shop-a"
LIMIT = ROUND_MINUTES * 60


# ── what a number called epsilon covers ──────────────────────────────────────────────────────────────────


def test_an_absent_silos_card_covers_a_person_who_was_released_by_another_silo(tmp_path: Path) -> None:
    stage = Stage(tmp_path, rounds=6, max_silos_per_user=2)
    plan, scene = stage.federation.plan, stage.board
    lost, rest = ME, ("shop-b", "shop-c", "shop-d")
    state = scene.until(scene.start, Phase.EXCHANGING, round=2)
    while lost not in state.absent:
        due = scene.due(state, without=(lost,))
        state = advance(state, due[0] if due else scene.absence(state, lost))
    state = scene.until(state, Phase.EXCHANGING, round=6, attempt=1, without=(lost,))
    state = advance(state, scene.back(state, lost))
    state = scene.until(state, Phase.CLOSING)
    contributed = {
        silo: [
            (at.round, at.attempt)
            for at in state.posts
            if at.kind is PostKind.EPHEMERAL and at.sender == silo and at.round
        ]
        for silo in (lost, *rest)
    }
    charge_what_left(stage.context(state))
    mine = stage.charged()
    built = Built(facts={}, checkpoint_sha256=None, epsilon_pld=0.0, metrics=None)
    card = model_card(state, "a federation", built, mine, num_opened=6)
    assert card["privacy"]["max_silos_per_user"] == 2
    # The least such a person loses: where one of their two silos was away, half the sensitivity is left.
    event = schedule(plan)[0].event
    assert isinstance(event, GaussianEvent)
    half = event.model_copy(update={"noise_multiplier": 2 * event.noise_multiplier})
    elsewhere = len(set(contributed["shop-b"]) - set(contributed[lost]))
    assert elsewhere >= 4
    here = committed_events(plan, contributed[lost])
    lost_by_them = spent_epsilon(plan, [*here, EventCount(half, elsewhere)])
    assert card["privacy"]["epsilon"] >= lost_by_them
    assert mine == committed_events(plan, contributed["shop-b"])


@pytest.mark.parametrize("max_silos_per_user", [1, 2])
def test_a_silo_charges_what_others_released_before_it_takes_part_again(
    tmp_path: Path, max_silos_per_user: int
) -> None:
    stage = Stage(tmp_path, worker=CountingWorker(), max_silos_per_user=max_silos_per_user)
    board, lost = stage.board, (ME,)
    state = board.until(stage.state, Phase.COLLECTING)  # all four are in the first attempt
    while ME not in state.absent:
        due = board.due(state, without=lost)
        state = advance(state, due[0] if due else board.absence(state, ME))
    state = board.until(state, Phase.COLLECTING, round=3, without=lost)
    with pytest.raises(ArchipelError):  # nothing was in the sums that this board announces
        asyncio.run(recover.come_back(stage.context(state)))
    places = {1: [(1, 1)], 2: [(1, 1), (1, 2), (2, 1), (3, 1)]}[max_silos_per_user]
    charged = committed_events(stage.federation.plan, places)
    asyncio.run(close.finish(stage.context(advance(state, board.ended("expired", "too long")))))
    assert stage.charged() == charged


def test_a_lowered_budget_that_cannot_cover_others_rounds_leaves_no_model_and_ends(tmp_path: Path) -> None:
    """A card would claim too little; that no more can be charged keeps neither secrets nor the rest."""
    stage = Stage(tmp_path, max_silos_per_user=2)
    board, lost = stage.board, (ME,)
    state = board.until(stage.state, Phase.EXCHANGING)
    state = board.until(advance(state, board.absence(state, ME)), Phase.COLLECTING, round=2, without=lost)
    status = stage.site.ledger.status("customers")
    lowered = status.budget.model_copy(update={"epsilon": 1e-3})
    stage.site.ledger.open_account("customers", lowered, "e" * 64, status.policy_version + 1)
    ended = advance(state, board.ended("expired", "too long"))
    asyncio.run(close.finish(stage.context(ended)))
    assert stage.charged() == ()
    assert stage.site.ledger.status("customers").outstanding == ()
    assert stage.site.outbox.jobs_with_secrets() == []
    assert not list((stage.site.directory / "jobs" / state.job).glob("model*"))


def test_noise_drawn_for_four_silos_is_never_posted_for_three(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    start = stage.state
    begun = stage.board.until(start, Phase.EXCHANGING)
    burned = advance(begun, stage.board.burn(begun, "shop-d"))
    without = advance(begun, stage.board.absence(begun, "shop-d"))
    assert (burned.attempt, without.attempt) == (2, 2)
    assert (len(burned.contributors), len(without.contributors)) == (4, 3)
    stage.crashes_before_the_key_is_made(burned)
    drawn = stage.site.outbox.contribution(burned.job, 1, 2)
    assert drawn is not None
    try:
        asyncio.run(contribute.contribute(stage.context(without)))
    except RecordLostError:
        return
    posted = stage.site.outbox.contribution(burned.job, 1, 2)
    assert posted is not None
    assert not np.array_equal(posted.levels, drawn.levels)


def test_a_plan_for_more_users_than_the_float_bound_covers_is_refused_or_priced() -> None:
    few = small_plan(max_users_per_silo=USERS_AT_BASE_PRICE // 2)
    try:
        many = small_plan(max_users_per_silo=64 * USERS_AT_BASE_PRICE, expected_batch_size=100.0)
    except ArchipelError:
        return
    relative = [
        (shape.sensitivity - shape.values**0.5) / shape.grid
        for shape in (schedule(few)[-1], schedule(many)[-1])
    ]
    assert relative[1] > relative[0]


# ── what depends on rows and shows ───────────────────────────────────────────────────────────────────────


def test_no_number_of_users_is_an_error_at_contribution_time() -> None:
    """The float bound holds for 2^17 users at its base price; a plan for more pays for them."""
    assert USERS_OF_FLOAT_ERROR == USERS_AT_BASE_PRICE
    gradients = PerUserGradients(torch.nn.Linear(1, 1, dtype=torch.float64), _squares, 1.0)
    crowd = torch.ones(USERS_AT_BASE_PRICE + 1, 1, dtype=torch.float64)
    assert np.isfinite(gradients.clipped_sum(crowd)).all()


def _squares(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    scores: torch.Tensor = model(inputs)
    return (scores**2).sum(dim=1)


def test_a_check_of_rows_never_keeps_a_contribution_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of which the check would trip are refused before, in public and in every silo alike."""
    plan, catalogue = small_plan(learning_rate=1e9, optimizer="sgd"), make_catalogue()
    family, shape = get_family(plan)(plan, catalogue), schedule(plan)[0]
    rows = make_interactions(random_histories(0), catalogue)
    state = family.initial_state()
    family.contribute(rows, state, 0, shape)  # the self-test is done
    with pytest.raises(TrainingDivergedError):
        family.absorb(state, np.full(shape.values, shape.grid), 0, shape, len(SILOS))
    signs = np.random.default_rng(0)
    for name in ("encoder.weight", "encoder.bias", "decoder.weight"):
        state[name] = MAX_WEIGHT * signs.choice((-1.0, 1.0), state[name].shape)

    class Watching:
        """Looks at one user after the other, where the product looks at a random one."""

        user = 0

        def randbelow(self, bound: int) -> int:
            return self.user % bound

    watching = Watching()
    monkeypatch.setattr(gradients_module, "secrets", watching)
    for user in range(rows.num_users):
        watching.user = user
        assert family.contribute(rows, state, 0, shape).shape == (shape.values,)


@pytest.mark.parametrize("expected_batch_size", [1e-307, 5e-324])
def test_what_was_drawn_is_charged_even_if_the_silos_own_step_leads_nowhere(
    tmp_path: Path, expected_batch_size: float
) -> None:
    plan = small_plan(
        noise_placement="silo",
        colluding_silos=3,
        local_steps=2,
        local_learning_rate=1.0,
        expected_batch_size=expected_batch_size,
    )
    silo = small_silo(tmp_path, plan)
    try:
        drawn = draw_contribution(ContributionTask(silo.course, silo.dataset, len(SILOS)))
    finally:
        end_session(silo.job_directory)
    assert drawn.event == schedule(plan)[0].event


# ── the protocol ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_replayed_sum_is_compared_before_it_is_decrypted(tmp_path: Path) -> None:
    worker = CountingWorker()
    stage = Stage(tmp_path, worker=worker)
    board, lost = stage.board, (ME,)
    state = board.until(stage.state, Phase.EXCHANGING)
    while ME not in state.absent:
        due = board.due(state, without=lost)
        state = advance(state, due[0] if due else board.absence(state, ME))
    state = board.until(state, Phase.EXCHANGING, round=2, without=lost)
    # The keyed hashes on the board (zeros) are of no bytes at all, so surely not of what is served.
    with pytest.raises(ArchipelError):
        asyncio.run(recover.come_back(stage.context(state)))
    assert stage.connection.served == ["sum"]
    assert worker.opened == 0


def test_a_silo_that_trickles_its_upload_is_late_at_last() -> None:
    scene = Scene(patient_plan())
    state = scene.until(scene.start, Phase.COLLECTING)
    for silo in state.roster:
        state = advance(state, scene.sealed(scene.stream(state), silo, at=(1, 1)))
    patience = Patience()
    late: tuple[str, ...] = ()
    for number in range(10 * GIVE_UP_FACTOR):
        late = patience.judge(state, {"d": number}, number * 0.9 * LIMIT)
        if late:
            break
    assert late == ("d",)


# ── before anything is spent ─────────────────────────────────────────────────────────────────────────────


def test_a_model_that_cannot_train_is_refused_before_a_round_begins(tmp_path: Path) -> None:
    """Items of which nothing is known publicly give an autoencoder no input."""
    catalogue = Catalogue.from_items(CatalogueItem(item_id=f"i{number:04d}") for number in range(24))
    plan = small_plan(catalogue_sha256=catalogue.sha256, bias_epsilon=0.5)
    silo = small_silo(tmp_path, plan)
    catalogue.save(tmp_path / "catalogues")
    try:
        with pytest.raises((UsageError, DataError)):
            prepare(PrepareTask(silo.directory, silo.job_directory, plan))
    finally:
        end_session(silo.job_directory)


def test_a_plan_whose_model_cannot_train_is_denied_with_nothing_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue.from_items(CatalogueItem(item_id=f"i{number:03d}") for number in range(30))
    monkeypatch.setattr(small_federation, "small_catalogue", lambda _: catalogue)
    monkeypatch.setattr(start, "MAX_PROPOSAL_AGE", timedelta.max)  # the scene's proposals have one date
    made = make_small_federation(tmp_path, silos=SILOS, family="autoencoder", features=5, rounds=4)
    catalogue.save(made.directory(ME) / "catalogues")
    with Site(made.directory(ME)) as site:
        state = Scene(made.plan).start
        context = JobContext(site, cast(Any, Serving()), InlineWorker(), state)
        denial = asyncio.run(start.answer(context)).content(Denial)
        end_session(context.directory)
        assert [(reason.code, reason.field) for reason in denial.reasons] == [("model_untrainable", "model")]
        assert site.ledger.state().jobs == {}


def test_a_plan_that_may_go_on_without_a_silo_can() -> None:
    try:
        plan = small_plan(min_silos=3)
    except ArchipelError:
        return
    scene = Scene(plan)
    state = scene.until(scene.start, Phase.EXCHANGING)
    state = advance(state, scene.absence(state, "shop-d"))
    assert state.close is None


# ── one real silo directory among parties whose keys the test holds ──────────────────────────────────────


class InlineWorker(Worker):
    """The worker's tasks in this process."""

    @override
    async def _run(self, function: Any, *args: object) -> Any:
        return function(*args)


class CountingWorker(InlineWorker):
    """Counts decryptions, and says of each that the sum does not open."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    @override
    async def open(self, task: OpenTask) -> bytes:
        self.opened += 1
        raise SumRejectedError


class Serving:
    """A coordinator that serves some bytes for whatever is asked."""

    bytes_sent = bytes_received = 0

    def __init__(self) -> None:
        self.served: list[str] = []

    async def download(self, ref: Any, path: Path, *, sha256: str, num_bytes: int) -> None:
        self.served.append(ref.kind.value)
        path.write_bytes(b"a sum")  # noqa: ASYNC240


class Stage:
    """``shop-a`` for real, up to an accepted job; its board is whatever the test lets happen on it."""

    def __init__(self, root: Path, worker: Worker | None = None, **changes: Any) -> None:
        draft: dict[str, Any] = {
            "silos": SILOS,
            "family": "autoencoder",
            "features": 5,
            "hidden": 3,
            "rounds": 4,
            "bias_epsilon": 0.0,
            "target_epsilon": 3.0,
            "min_silos": 3,
            "max_burned_rounds": 2,
        }
        made = make_small_federation(root, **(draft | changes))
        self.federation: SmallFederation = made
        self.site = Site(made.directory(ME))
        self.worker = worker or InlineWorker()
        self.connection = Serving()
        self.board = Scene(made.plan, {name: party.identity for name, party in made.parties.parties.items()})
        self.state: JobState = self.board.start
        made.catalogue.save(self.site.directory / "catalogues")
        self._accept()

    def _accept(self) -> None:
        site, plan, job = self.site, self.federation.plan, self.state.job
        policy = site.trusted_policy()
        allowed = authorize(
            plan, policy, site.ledger_state(policy), datetime.now(UTC), charter=site.charter, proposer=ME
        )
        site.remember_job(job, plan, policy)
        site.ledger.reserve(
            account=allowed.account,
            job=job,
            dataset=allowed.dataset,
            plan_sha256=digest(plan),
            policy_sha256=allowed.policy_sha256,
            requested_by=ME,
            events=allowed.events,
        )
        site.outbox.store_secret(job, JOB_SECRETS, os.urandom(96))

    def context(self, state: JobState) -> JobContext:
        return JobContext(self.site, cast(Any, self.connection), self.worker, state)

    def charged(self) -> tuple[EventCount, ...]:
        """What the ledger has committed for the job."""
        allowances = self.site.ledger.state().jobs[self.state.job].allowances
        return tuple(EventCount(item.event, item.committed) for item in allowances if item.committed)

    def crashes_before_the_key_is_made(self, state: JobState) -> None:
        """Draw, charge and store the contribution to ``state``; the agent dies while it waits to leave."""
        context = self.context(state)
        asyncio.run(contribute._draw(context))


@pytest.fixture(autouse=True)
def _no_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key agreement is not on trial here: the others' ephemerals belong to no private key."""
    monkeypatch.setattr(contribute, "check_fingerprints", lambda _context: None)
