from __future__ import annotations

import math
from fractions import Fraction

import pytest
from pydantic import ValidationError

from privacy.events import (
    SAMPLER,
    Event,
    GaussianEvent,
    PoissonSampledGaussianEvent,
    PureEvent,
    SelfComposedEvent,
    UnknownEventError,
    clamp_probability_of,
    parse_event,
    steps_of,
)

EVENTS: list[Event] = [
    GaussianEvent(noise_multiplier=1.158, sampler=SAMPLER, clamp_probability=1e-12),
    PoissonSampledGaussianEvent(
        noise_multiplier=0.9, sample_rate=0.05, max_silos_per_user=2, sampler=SAMPLER
    ),
    PureEvent(epsilon=0.1),
    SelfComposedEvent(
        event=GaussianEvent(noise_multiplier=2.5, sampler=SAMPLER, clamp_probability=1e-12), count=4
    ),
    SelfComposedEvent(
        event=PoissonSampledGaussianEvent(
            noise_multiplier=0.9, sample_rate=0.05, max_silos_per_user=2, sampler=SAMPLER
        ),
        count=1_000,
    ),
]
IDS = ["gaussian", "sampled", "pure", "composed", "composed-sampled"]
STEP = {"kind": "gaussian", "noise_multiplier": 1.0, "sampler": SAMPLER}


@pytest.mark.parametrize("event", EVENTS, ids=IDS)
def test_an_event_reads_back_from_its_json_form(event: Event) -> None:
    assert parse_event(event.model_dump(mode="json")) == event
    assert type(event).model_validate_json(event.model_dump_json()) == event
    assert parse_event(event) is event


@pytest.mark.parametrize("event", EVENTS, ids=IDS)
def test_the_json_form_always_has_every_field(event: Event) -> None:
    assert event.model_dump(exclude_unset=True) == event.model_dump()
    assert "kind" in event.model_dump(exclude_unset=True)


def test_equal_events_are_equal_however_they_were_written() -> None:
    short = GaussianEvent(noise_multiplier=2, sampler=SAMPLER)
    assert short == GaussianEvent(noise_multiplier=2.0, sampler=SAMPLER, clamp_probability=0.0)
    assert hash(short) == hash(parse_event(short.model_dump()))


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        EVENTS[0].noise_multiplier = 9.0  # type: ignore[misc, union-attr]


@pytest.mark.parametrize(
    "obj",
    [
        {},
        {"kind": "gaussian/v2", "noise_multiplier": 1.0},
        {"kind": "gaussian", "noise_multiplier": 1.0},
        {"kind": "gaussian", "noise_multiplier": 1.0, "sampler": "numpy"},
        {"kind": "gaussian", "noise_multiplier": 1.0, "sampler": SAMPLER, "epsilon": 0.1},
        {"kind": "gaussian", "noise_multiplier": 0.0, "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": -1.0, "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": math.nan, "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": math.inf, "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": "1.0", "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": True, "sampler": SAMPLER},
        {"kind": "gaussian", "noise_multiplier": 1.0, "sampler": SAMPLER, "clamp_probability": -1e-9},
        {"kind": "pure", "epsilon": 0.0},
        {
            "kind": "poisson_sampled_gaussian",
            "noise_multiplier": 1.0,
            "sample_rate": 1.5,
            "max_silos_per_user": 1,
            "sampler": SAMPLER,
        },
        {
            "kind": "poisson_sampled_gaussian",
            "noise_multiplier": 1.0,
            "sample_rate": 0.5,
            "max_silos_per_user": 0,
            "sampler": SAMPLER,
        },
        {"kind": "self_composed", "event": STEP},
        {"kind": "self_composed", "event": STEP, "count": 1},
        {"kind": "self_composed", "event": STEP, "count": 0},
        {"kind": "self_composed", "event": STEP, "count": 2.0},
        {"kind": "self_composed", "event": STEP, "count": True},
        {"kind": "self_composed", "event": STEP, "count": 1_000_001},
        {"kind": "self_composed", "event": STEP | {"noise_multiplier": 0.0}, "count": 2},
        {"kind": "self_composed", "event": {"kind": "pure", "epsilon": 0.1}, "count": 2},
        {
            "kind": "self_composed",
            "event": {"kind": "self_composed", "event": STEP, "count": 2},
            "count": 2,
        },
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused(obj: dict[str, object]) -> None:
    with pytest.raises(UnknownEventError, match="privacy event") as caught:
        parse_event(obj)
    assert caught.value.remedy


def test_only_mechanisms_with_clamped_noise_have_a_clamp_probability() -> None:
    assert [clamp_probability_of(event) for event in EVENTS[:3]] == [1e-12, 0.0, 0.0]


@pytest.mark.parametrize(("probability", "count"), [(1e-12, 4), (0.1, 5), (0.3, 3), (0.3, 1_000)])
def test_steps_add_up_their_clamp_probabilities_and_never_round_them_down(
    probability: float, count: int
) -> None:
    step = GaussianEvent(noise_multiplier=1.0, sampler=SAMPLER, clamp_probability=probability)
    found = Fraction(clamp_probability_of(SelfComposedEvent(event=step, count=count)))
    exact = count * Fraction(probability)
    assert min(exact, Fraction(math.nextafter(1.0, 0.0))) <= found < 1
    assert found <= exact * (1 + Fraction(1, 2**51))


def test_steps_without_clamping_have_none_together() -> None:
    assert clamp_probability_of(EVENTS[4]) == 0.0


def test_a_release_is_known_by_its_steps() -> None:
    plain, composed = EVENTS[0], EVENTS[3]
    assert steps_of(plain) == (plain, 1)
    assert isinstance(composed, SelfComposedEvent)
    assert steps_of(composed) == (composed.event, 4)
