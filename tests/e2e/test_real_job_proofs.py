"""What a job of real processes summed, drew and kept: exactness, noise, and what is in whose memory."""

from __future__ import annotations

import base64
import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, kstest, norm

from privacy.events import GaussianEvent
from privacy.noise import DiscreteGaussian
from tests.support.captured_job import CapturedJob
from tests.support.recorded_demo import HUB, SILOS, STOPPED, RecordedDemo, recorded_demo
from tests.support.uniformity import BY_CHANCE, correlation_in_stds

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

Integers = NDArray[np.int64]

OPENERS = tuple(silo for silo in SILOS if silo != STOPPED)
FIVE_STDS = 5.0


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> RecordedDemo:
    return recorded_demo(tmp_path_factory)


@pytest.fixture(scope="module")
def job(demo: RecordedDemo) -> CapturedJob:
    return CapturedJob(demo)


@pytest.fixture(scope="module")
def noise(job: CapturedJob) -> dict[str, Integers]:
    """What each silo's process drew: its levels without offset and without the exact contribution."""
    return {name: job.silos[name].levels + job.shape.offset - job.exact(name) for name in job.names}


@pytest.fixture(scope="module")
def residual(job: CapturedJob) -> Integers:
    """The opened aggregate without the exact contributions of all silos."""
    aggregate = job.aggregate(OPENERS[0])
    return aggregate - np.stack([job.exact(name) for name in job.names]).sum(axis=0)


# ── the integer sum ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_opened_sum_is_the_sum_of_all_levels_without_error(job: CapturedJob) -> None:
    levels = np.stack([job.silos[name].levels for name in job.names])
    expected = levels.sum(axis=0) + len(job.names) * job.shape.offset
    for name in OPENERS:
        np.testing.assert_array_equal(job.aggregate(name), expected)


def test_no_level_was_clamped_so_the_sum_is_of_what_was_drawn(job: CapturedJob) -> None:
    for name in job.names:
        levels = job.silos[name].levels
        assert levels.min() > 0
        assert levels.max() < job.shape.layout.max_level


def test_every_silo_took_part_with_rows(job: CapturedJob) -> None:
    for name in job.names:
        assert job.exact(name).sum() > 0
        assert job.exact(name).max() < job.shape.signal_max


# ── the noise in it ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_aggregates_noise_has_the_variance_of_the_shares(job: CapturedJob, residual: Integers) -> None:
    variance = len(job.names) * job.shape.share_std**2
    assert _p_of_variance(residual, variance) > BY_CHANCE
    assert abs(residual.mean()) < FIVE_STDS * math.sqrt(variance / residual.size)


def test_the_noise_that_colluders_do_not_know_is_that_of_the_event(
    job: CapturedJob, noise: dict[str, Integers]
) -> None:
    """Whichever ``c`` silos collude, what the others drew is the noise the ledgers charged for."""
    privacy, event = job.plan.privacy, job.shape.event
    assert isinstance(event, GaussianEvent)
    promised = (event.noise_multiplier * job.shape.sensitivity) ** 2
    num_honest = len(job.names) - privacy.colluding_silos
    for honest in itertools.combinations(job.names, num_honest):
        unknown = np.stack([noise[name] for name in honest]).sum(axis=0)
        assert _p_of_variance(unknown, promised) > BY_CHANCE
    # The bound is sharp enough to mean something: one share more or less does not pass.
    for shares in (num_honest - 1, num_honest + 1):
        assert _p_of_variance(unknown, promised * shares / num_honest) < BY_CHANCE


def test_each_share_is_a_discrete_gaussian(job: CapturedJob, noise: dict[str, Integers]) -> None:
    std = job.shape.share_std
    assert DiscreteGaussian(std).sigma == std
    for drawn in noise.values():
        assert _p_of_variance(drawn, std**2) > BY_CHANCE
        # One grid unit is a thousandth of the std: at this length the continuous law is a fair reference.
        assert kstest(drawn, norm(scale=std).cdf).pvalue > BY_CHANCE
        assert abs(drawn.mean()) < FIVE_STDS * std / math.sqrt(drawn.size)


def test_no_two_processes_drew_the_same_stream(noise: dict[str, Integers]) -> None:
    """A worker forked after seeding would repeat its parent's noise; so would one seed for all."""
    for left, right in itertools.combinations(noise.values(), 2):
        assert abs(correlation_in_stds(left, right)) < FIVE_STDS
        assert np.mean(left == right) < 0.01
    for drawn in noise.values():
        assert abs(correlation_in_stds(drawn[:-1], drawn[1:])) < FIVE_STDS


def test_the_noise_does_not_depend_on_the_rows(job: CapturedJob, noise: dict[str, Integers]) -> None:
    for name, drawn in noise.items():
        assert abs(correlation_in_stds(drawn, job.exact(name))) < FIVE_STDS


# ── who holds what ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_running_coordinator_holds_no_key_holder(demo: RecordedDemo) -> None:
    modules = demo.modules(HUB)
    assert "federation.coordinator" in modules
    assert not {
        "privacy.encryption.keyholder",
        "privacy.encryption.crossmoments.label",
        "privacy.securesum",
    } & set(modules)
    assert not {"tenseal", "torch", "opacus"} & {name.split(".")[0] for name in modules}
    # The same look at a silo's worker does find it, so the look means something.
    assert {"privacy.encryption.keyholder", "privacy.securesum"} <= set(demo.modules("worker"))


def test_the_running_coordinator_holds_no_code_that_sees_rows(demo: RecordedDemo) -> None:
    assert sorted(name for name in demo.modules(HUB) if name.split(".")[0] == "silo") == []
    assert "silo.agent" in demo.modules("shop-a")


def test_nothing_the_coordinator_stored_holds_a_secret(demo: RecordedDemo, job: CapturedJob) -> None:
    stored = b"".join(
        path.read_bytes()
        for folder in (demo.captured / "coordinator", demo.captured / "spool", demo.run / "coordinator")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    assert job.public_key("shop-a").hex().encode() in stored
    for name, secret in _secrets(job).items():
        for written in _spellings(secret):
            assert written not in stored, name


def test_after_the_job_no_file_of_the_run_holds_its_secrets(demo: RecordedDemo, job: CapturedJob) -> None:
    """Forward secrecy: who takes a disk later opens no recorded stream with it."""
    left = {path: path.read_bytes() for path in sorted(demo.run.rglob("*")) if path.is_file()}
    for name, secret in _secrets(job).items():
        for written in _spellings(secret):
            assert [path for path, content in left.items() if written in content] == [], name
    assert list(demo.run.rglob("aggregate-*.npy")) == []
    assert [path for path in (demo.run / "coordinator" / "spool").rglob("*") if path.is_file()] == []
    for silo in job.names:
        assert [path.name for path in (demo.silo(silo) / "outbox").iterdir()] == ["outbox.db"]


def test_the_search_for_secrets_finds_them_where_they_were(demo: RecordedDemo, job: CapturedJob) -> None:
    for name in job.names:
        outbox = (demo.captured / name / "outbox" / "outbox.db").read_bytes()
        kept = {what: secret for what, secret in _secrets(job).items() if what.startswith(f"{name} ")}
        assert len(kept) == 5
        assert [what for what, secret in kept.items() if secret not in outbox] == []
    carried = base64.b64encode(b"any" + job.silos["shop-a"].secret + b"thing")
    assert any(written in carried for written in _spellings(job.silos["shop-a"].secret))


def _secrets(job: CapturedJob) -> dict[str, bytes]:
    """Every secret of the job by a name, contributions and opened sums among them (a stretch of each)."""
    found: dict[str, bytes] = {"aggregate": job.aggregate(OPENERS[0]).tobytes()[8000:8080]}
    for name, silo in job.silos.items():
        found |= {
            f"{name} BFV key": silo.secret,
            f"{name} group key": silo.group_key,
            f"{name} start key": silo.start_key,
            f"{name} round key": silo.round_key,
            f"{name} levels": silo.levels.astype("<i8").tobytes()[8000:8040],
        }
        for peer in job.names:
            if peer != name:
                found[f"mask key of {name} and {peer}"] = job.pair_key(silo, peer)
    return found


def _spellings(secret: bytes) -> tuple[bytes, ...]:
    """Bytes as they are, in hexadecimal, and as base64 may carry them at any offset."""
    encoded = [base64.b64encode(bytes(shift) + secret)[4:-4] for shift in range(3)]
    return secret, secret.hex().encode(), *encoded


def _p_of_variance(sample: Integers, variance: float) -> float:
    """Two-sided p-value of independent Gaussians of mean 0 having this variance."""
    statistic = float(np.square(sample.astype(np.float64)).sum() / variance)
    return float(2 * min(chi2.cdf(statistic, sample.size), chi2.sf(statistic, sample.size)))
