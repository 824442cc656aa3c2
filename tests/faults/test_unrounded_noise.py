"""Noise that is real-valued and not rounded, at every place that it would have to pass.

Mironov (2012): the low bits of floating-point noise tell what it was added to. So only integers leave,
noised by a sampler that an event names; whoever lies about the sampler is left with no way for real numbers.
That a silo's build draws rounded noise of a worse generator under the promised event, no sum can show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from privacy.errors import ArchipelError
from privacy.events import SAMPLER, GaussianEvent
from privacy.packing import LayoutError
from silo import tasks
from silo.audit.accountant import UnknownEventError, read_event
from silo.outbox import Outbox
from tests.contracts.audited_silo import JOB, AuditedSilo, make_audited_silo
from tests.contracts.family_contract import make_catalogue, make_plan
from tests.support import sabotage

CONTINUOUS = "continuous-gaussian/v1"


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(make_catalogue(), {"family": "popularity"})


@pytest.fixture(scope="module")
def shape(plan: Plan) -> RoundShape:
    return schedule(plan)[0]


@pytest.fixture(scope="module")
def unrounded(plan: Plan, shape: RoundShape) -> Any:
    found = sabotage.noise_that_is_not_rounded(np.zeros(shape.values, np.int64), shape, plan.num_silos)
    assert found.event == shape.event  # the lie that a ledger would believe
    assert (np.asarray(found.values) % 1 != 0).any()
    return found.values


def test_it_adds_up_to_no_contribution(
    plan: Plan, shape: RoundShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "add_noise", sabotage.noise_that_is_not_rounded)
    exact = np.zeros(shape.values, np.int64)
    family: Any = None  # asked only between local steps, and there is one step
    with pytest.raises(TypeError, match="same_kind"):
        tasks._noised_steps(lambda _: exact, family, {}, shape, plan.num_silos)


def test_it_is_not_kept_rounded_off_in_the_outbox(unrounded: Any, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    with pytest.raises(TypeError, match="safe"):
        outbox.store_contribution("job", 1, 1, unrounded, ("a", "b"))
    assert outbox.contribution("job", 1, 1) is None
    outbox.close()


def test_it_is_not_packed(unrounded: Any, shape: RoundShape) -> None:
    with pytest.raises(LayoutError):
        shape.layout.pack(unrounded)


class TestAnEventThatNamesAnotherSampler:
    """A build that says what it draws is not believed to be what was promised."""

    @pytest.fixture
    def silo(self, tmp_path: Path) -> AuditedSilo:
        """Its owner has charged such an event, signed and in its place in the chain."""
        silo = make_audited_silo(tmp_path)
        with silo.log() as log:
            (committed,) = [entry for entry in log.entries() if entry.kind == "committed"]
            event = dict(committed.payload["event"]) | {"sampler": CONTINUOUS}
            log.append("committed", dict(committed.payload) | {"job": JOB, "round": 9, "event": event})
        return silo

    def test_is_no_event(self) -> None:
        assert GaussianEvent(noise_multiplier=1.0, sampler=SAMPLER)
        with pytest.raises(ValidationError, match="sampler"):
            GaussianEvent(noise_multiplier=1.0, sampler=CONTINUOUS)  # type: ignore[arg-type]

    def test_is_found_by_verify(self, silo: AuditedSilo) -> None:
        assert "entry_unknown" in silo.codes()

    def test_ends_the_second_accountant(self, silo: AuditedSilo) -> None:
        from silo.audit.evidence import open_evidence
        from silo.audit.replay import replay

        with open_evidence(silo.directory) as evidence, pytest.raises(ArchipelError) as caught:
            replay(evidence)
        assert caught.value.code in {"unknown_event", "unknown_record"}
        honest = GaussianEvent(noise_multiplier=1.0, sampler=SAMPLER).model_dump(mode="json")
        assert read_event(honest, 1)
        with pytest.raises(UnknownEventError):
            read_event(honest | {"sampler": CONTINUOUS}, 1)
