"""What leaves a worker: clamped, noised for the silos that contribute, with the event of that noise."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from policies.plans.price import RoundShape, schedule
from policies.plans.shapes import PlanImpossibleError
from privacy.encryption.frames import read_stream
from privacy.encryption.frames import write_stream as frames_to_file
from privacy.events import EventCount, SelfComposedEvent
from privacy.noise import NoisedIntegers
from silo import tasks
from silo.checkpoints import load_checkpoint
from silo.models.recommender import Recommender
from silo.progress import PROGRESS_FILE, read_progress
from silo.session import Session, end_session, session_of
from silo.tasks import (
    ContributionTask,
    ModelTask,
    OpenTask,
    ProtectTask,
    add_noise,
    build_model,
    draw_contribution,
    open_stream,
    write_stream,
)
from tests.contracts.secure_roster import Roster, add_streams
from tests.support.small_silo import SmallSilo, small_plan, small_silo

BY_CHANCE = 1e-6


@pytest.fixture
def silo(tmp_path: Path) -> Iterator[SmallSilo]:
    made = small_silo(tmp_path)
    yield made
    end_session(made.job_directory)


def task_of(silo: SmallSilo, contributors: int = 4) -> ContributionTask:
    return ContributionTask(silo.course, silo.dataset, contributors)


def without_noise(signal: NDArray[np.int64], shape: RoundShape, contributors: int) -> NoisedIntegers:
    return NoisedIntegers(np.clip(signal, shape.step_signal_min, shape.step_signal_max), shape.step_event)


def p_of_variance(sample: NDArray[np.int64], std: float) -> float:
    statistic = float(np.square(sample / std).sum())
    return float(2 * min(chi2.cdf(statistic, sample.size), chi2.sf(statistic, sample.size)))


# ── the noise of the silos that are there ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("contributors", [3, 4])
def test_whoever_is_there_adds_shares_that_suffice_without_the_absent(contributors: int) -> None:
    plan = small_plan(min_silos=3, max_burned_rounds=2, colluding_silos=1)
    shape, zeros = schedule(plan)[0], np.zeros(50_000, dtype=np.int64)
    promised = shape.step_event.noise_multiplier * shape.sensitivity
    unknown = sum(
        (add_noise(zeros, shape, contributors).values for _ in range(contributors - 1)), start=zeros
    )
    assert p_of_variance(unknown, promised) > BY_CHANCE
    # With the full roster's shares among fewer it would be too little, and the test would see it.
    assert p_of_variance(unknown, promised * math.sqrt((contributors - 2) / (contributors - 1))) < BY_CHANCE


def test_fewer_silos_than_planned_draw_nothing() -> None:
    plan = small_plan(min_silos=3, max_burned_rounds=2, colluding_silos=1)
    shape = schedule(plan)[0]
    for contributors in (2, 5):
        with pytest.raises(PlanImpossibleError):
            add_noise(np.zeros(shape.values, dtype=np.int64), shape, contributors)


def test_a_contribution_says_the_event_of_its_noise(silo: SmallSilo) -> None:
    drawn = draw_contribution(task_of(silo))
    shape = schedule(silo.plan)[0]
    assert drawn.event == shape.event
    assert drawn.levels.shape == (shape.values,)
    assert not np.array_equal(drawn.levels, draw_contribution(task_of(silo)).levels)
    assert any("30" in remark for remark in drawn.remarks)


@pytest.mark.parametrize("extreme", [-(2**61), 2**61, 0])
def test_whatever_a_signal_is_its_levels_fit_the_layout(
    silo: SmallSilo, extreme: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = schedule(silo.plan)[0]
    family = session_of(silo.job_directory).family(silo.directory, silo.plan)
    monkeypatch.setattr(family, "contribute", lambda *_: np.full(shape.values, extreme))
    levels = draw_contribution(task_of(silo)).levels
    shape.layout.check_levels(levels)
    centre = np.clip(extreme, shape.signal_min, shape.signal_max) - shape.offset
    assert np.abs(levels - centre).max() <= shape.headroom
    assert len(np.unique(levels)) > 1


@pytest.mark.parametrize("contributors", [3, 4])
def test_what_is_opened_is_the_sum_of_what_was_noised_whoever_is_absent(
    tmp_path: Path, contributors: int
) -> None:
    plan = small_plan(min_silos=3, max_burned_rounds=2, colluding_silos=1)
    shape, roster = schedule(plan)[0], Roster(4)
    present = roster.names[:contributors]
    keys = roster.pair_keys(absent=frozenset(roster.names) - set(present))
    secret, expected, paths = roster.holder.secret_bytes(), np.zeros(shape.values, dtype=np.int64), []
    for seed, name in enumerate(present):
        signal = np.random.default_rng(seed).integers(-50, 50, shape.values)
        noised = add_noise(signal, shape, contributors).values
        expected += noised
        paths.append(tmp_path / name)
        write_stream(
            ProtectTask(
                job_directory=tmp_path / name / "job", levels=noised - shape.offset, layout=shape.layout,
                contributors=contributors, me=name, pair_keys=keys[name], tag_key=roster.tag_key(),
                secret=secret, path=paths[-1],
            )
        )  # fmt: skip
    streams = []
    for path in paths:
        with path.open("rb") as file:
            streams.append(list(read_stream(file, shape.layout.num_frames)))
    with (tmp_path / "sum").open("wb") as file:
        frames_to_file(file, add_streams(*streams))
    task = OpenTask(
        job_directory=tmp_path / "job", path=tmp_path / "sum", target=tmp_path / "opened",
        layout=shape.layout, contributors=contributors, offset=shape.offset, tag_key=roster.tag_key(),
        secret=secret,
    )  # fmt: skip
    digest = open_stream(task)
    opened = np.load(tmp_path / "opened")
    np.testing.assert_array_equal(opened, expected)
    assert digest == hashlib.sha256(expected.astype("<i8").tobytes()).digest()
    for job_directory in (tmp_path / "job", *(tmp_path / name / "job" for name in present)):
        end_session(job_directory)


# ── local steps ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_contribution_of_local_steps_is_the_sum_of_what_each_step_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = small_plan(noise_placement="silo", local_steps=3, local_learning_rate=0.5, rounds=2)
    silo = small_silo(tmp_path, plan)
    shape = schedule(plan)[0]
    monkeypatch.setattr(tasks, "add_noise", without_noise)
    drawn = draw_contribution(task_of(silo))
    assert drawn.event == SelfComposedEvent(event=shape.step_event, count=3) == shape.event

    session = Session(silo.job_directory)
    family, state = session.learned(silo.course)
    rows = session.rows(silo.directory, plan, silo.dataset).train
    total, steps = np.zeros(shape.values, dtype=np.int64), []
    for _ in range(3):
        steps.append(family.contribute(rows, state, 0, shape))
        total += steps[-1]
        state = family.step_locally(state, steps[-1], shape)
    np.testing.assert_array_equal(drawn.levels + shape.offset, total)
    assert not np.array_equal(steps[0], steps[1])
    end_session(silo.job_directory)


def test_each_local_step_draws_noise_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(noise_placement="silo", local_steps=3, local_learning_rate=0.5, rounds=2)
    silo, drawn = small_silo(tmp_path, plan), []

    def watched(signal: NDArray[np.int64], shape: RoundShape, contributors: int) -> NoisedIntegers:
        noised = add_noise(signal, shape, contributors)
        drawn.append(noised.values - np.clip(signal, shape.step_signal_min, shape.step_signal_max))
        return noised

    monkeypatch.setattr(tasks, "add_noise", watched)
    draw_contribution(task_of(silo))
    assert len(drawn) == 3
    assert len({noise.tobytes() for noise in drawn}) == 3
    end_session(silo.job_directory)


# ── the silo's own loss ─────────────────────────────────────────────────────────────────────────────────────


def test_the_loss_is_noted_once_a_round_for_the_owner_alone(silo: SmallSilo) -> None:
    draw_contribution(task_of(silo))
    assert read_progress(silo.job_directory) == []  # nothing has been learned yet
    for _ in range(2):
        silo.train(1)
        draw_contribution(task_of(silo))
        draw_contribution(task_of(silo))
    noted = read_progress(silo.job_directory)
    assert [entry["round"] for entry in noted] == [1, 2]
    assert all(0 < entry["local_loss"] < 100 for entry in noted)
    path = silo.job_directory / PROGRESS_FILE
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text() + '{"round": 3, "loc')
    assert read_progress(silo.job_directory) == noted


def test_the_loss_changes_no_contribution(silo: SmallSilo, monkeypatch: pytest.MonkeyPatch) -> None:
    silo.train(2)
    monkeypatch.setattr(tasks, "add_noise", without_noise)
    noted = draw_contribution(task_of(silo)).levels
    end_session(silo.job_directory)
    monkeypatch.setattr(tasks, "note_loss", lambda *_: None)
    np.testing.assert_array_equal(draw_contribution(task_of(silo)).levels, noted)


def test_a_family_without_a_loss_notes_none(tmp_path: Path) -> None:
    plan = small_plan(
        family="popularity", rounds=None, features=None, hidden=None, bias_epsilon=None,
        holdout="random", metrics_epsilon=1.0,
    )  # fmt: skip
    silo = small_silo(tmp_path, plan)
    silo.train(1)
    drawn = draw_contribution(task_of(silo))
    assert drawn.levels.shape == (schedule(plan)[1].values,)
    assert not (silo.job_directory / PROGRESS_FILE).exists()
    end_session(silo.job_directory)


# ── the model ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_of_some_rounds_is_a_model_with_a_checkpoint(silo: SmallSilo) -> None:
    silo.train(3)
    events = (EventCount(schedule(silo.plan)[0].event, 3),)
    task = ModelTask(silo.course, silo.directory / "model", silo.directory / "checkpoint", events)
    built = build_model(task)
    model = Recommender.load(silo.directory / "model")
    assert model.num_items == silo.plan.catalogue.items
    assert built.metrics is None
    assert 0 < built.epsilon_pld < silo.plan.privacy.target_epsilon
    family, state = Session(silo.job_directory).learned(silo.course)
    kept, expected = load_checkpoint(silo.directory / "checkpoint"), family.checkpoint(state)
    assert expected is not None
    assert all(np.array_equal(kept[name], expected[name]) for name in expected)
    assert built.facts["num_bytes"] == (silo.directory / "model").stat().st_size
    before = (silo.directory / "checkpoint").read_bytes()
    end_session(silo.job_directory)
    assert build_model(task).checkpoint_sha256 == built.checkpoint_sha256
    assert (silo.directory / "checkpoint").read_bytes() == before


def test_damage_is_told_once(silo: SmallSilo) -> None:
    silo.train(2)
    tasks.catch_up(silo.course_after(1))
    end_session(silo.job_directory)
    (silo.job_directory / "state.safetensors").write_text(json.dumps({}))
    assert len(tasks.catch_up(silo.course)) == 1
    assert tasks.catch_up(silo.course) == ()
    tasks.forget_state(silo.job_directory)
    assert not (silo.job_directory / "state.safetensors").exists()
    assert tasks.catch_up(replace(silo).course) == ()
