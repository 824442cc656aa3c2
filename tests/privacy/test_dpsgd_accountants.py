"""Our filter against Opacus' own accountants: never below them by more than their own error."""

from __future__ import annotations

from pathlib import Path

import pytest

from privacy.accounting import epsilon_of, epsilon_pld
from privacy.budget import RenyiFilter, ZcdpFilter
from privacy.calibration import release_event
from privacy.dpsgd import opacus_prv_epsilon, opacus_rdp_epsilon
from privacy.events import EventCount, SelfComposedEvent

ROOT = Path(__file__).parents[2]
EIGHT_ORDERS = RenyiFilter(orders=(2, 3, 4, 6, 8, 16, 32, 64))
RDP_TOLERANCE = 1e-3
"""Relative. Both compute the same divergences; ours are rounded up and spend 1 % of delta elsewhere."""
PRV_ERROR = 0.01
"""Absolute, ``eps_error`` of Opacus' upper bound, which is at most twice that above the truth."""
SCHEDULES = pytest.mark.parametrize(
    ("noise", "rate", "steps"),
    [(1.0, 0.02, 500), (0.8, 0.1, 30), (0.6, 0.01, 200), (3.0, 0.5, 100), (1.2, 0.25, 60), (5.0, 0.9, 20)],
)


@SCHEDULES
def test_the_filter_is_never_below_opacus_renyi_accountant(noise: float, rate: float, steps: int) -> None:
    ours = epsilon_of([EventCount(release_event(noise, sample_rate=rate), steps)], 1e-5, EIGHT_ORDERS)
    theirs = opacus_rdp_epsilon(noise, rate, steps, 1e-5)
    assert theirs <= ours * (1 + RDP_TOLERANCE)
    assert ours <= 1.35 * theirs


@SCHEDULES
def test_the_filter_is_never_below_opacus_prv_accountant(noise: float, rate: float, steps: int) -> None:
    events = [EventCount(release_event(noise, sample_rate=rate), steps)]
    theirs = opacus_prv_epsilon(noise, rate, steps, 1e-5, epsilon_error=PRV_ERROR)
    assert theirs <= epsilon_of(events, 1e-5, EIGHT_ORDERS) + 2 * PRV_ERROR
    assert theirs == pytest.approx(epsilon_pld(events, 1e-5), rel=0.02, abs=3 * PRV_ERROR)


@pytest.mark.parametrize(("noise", "steps"), [(1.158, 1), (2.0, 5), (9.0, 60)])
def test_a_full_batch_is_never_below_either_accountant(noise: float, steps: int) -> None:
    events = [EventCount(release_event(noise), steps)]
    rdp = opacus_rdp_epsilon(noise, 1.0, steps, 1e-5)
    # That accountant has no full batch; one user in a thousand stays away, which costs next to nothing less.
    prv = opacus_prv_epsilon(noise, 0.999, steps, 1e-5, epsilon_error=PRV_ERROR)
    for spec in (ZcdpFilter(), EIGHT_ORDERS):
        ours = epsilon_of(events, 1e-5, spec)
        assert rdp <= ours * (1 + 2e-2 if spec.kind == "zcdp" else 1 + RDP_TOLERANCE)
        assert prv <= ours + 2 * PRV_ERROR


def test_local_steps_are_never_below_the_same_steps_one_by_one() -> None:
    step = release_event(1.5, sample_rate=0.2)
    local = [EventCount(SelfComposedEvent(event=step, count=8), 5)]
    assert opacus_rdp_epsilon(1.5, 0.2, 40, 1e-5) <= epsilon_of(local, 1e-5, EIGHT_ORDERS) * (
        1 + RDP_TOLERANCE
    )


def test_the_accountant_that_under_reports_is_used_nowhere() -> None:
    names = ("GaussianAccountant", "accountants.gdp", "create_accountant", "compute_eps_poisson")
    files = [
        *(
            path
            for room in ("privacy", "policies", "federation", "silo")
            for path in (ROOT / room).rglob("*.py")
        ),
        *(ROOT / "benchmarks").glob("*.py"),
        ROOT / "cli.py",
    ]
    assert len(files) > 100
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in names
        if name in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_that_accountant_does_under_report() -> None:
    """Why: at these steps it promises less than what is lost, by an accountant that bounds from below."""
    from opacus.accountants import GaussianAccountant

    with pytest.warns(UserWarning, match="can underestimate privacy expenditure"):
        accountant = GaussianAccountant()
    accountant.history = [(0.6, 0.01, 200)]
    truth = epsilon_pld([EventCount(release_event(0.6, sample_rate=0.01), 200)], 1e-5)
    assert accountant.get_epsilon(delta=1e-5) < truth - 0.5
