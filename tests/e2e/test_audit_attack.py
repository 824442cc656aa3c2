"""Attacks on a recording of real processes: an honest job stands, every sabotage is caught by its attack.

Sabotage is made here: in a copy of the source tree, or in a copy of the honest recording. No product code can
make any of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typing_extensions import override

from privacy.encryption.frames import write_stream
from privacy.encryption.keyholder import KeyHolder
from privacy.masking import Masks
from privacy.packing import PLAIN_MODULUS, SLOTS_PER_FRAME
from silo.audit.attack import canary, collusion, keys, membership, tampering
from silo.audit.attack.recording import MANIFEST, Recording, RecordingError
from silo.audit.attack.run import ATTACKS, attack
from silo.audit.attack.streams import open_streams
from silo.audit.findings import MEANINGS
from silo.data.interactions import Interactions
from silo.models.base import Integers, State
from silo.models.item_graph import ItemGraph, exact_ease, symmetric_gram
from tests.support.errorless import encrypt_without_error, key_of
from tests.support.recordings import codes, copied, record, replace_array

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def quiet(_: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("honest"), has_noise=True)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest job with a small epsilon: a claim that half as good an attack refutes."""
    return record(tmp_path_factory.mktemp("strict"), has_noise=True, epsilon=1.0)


@pytest.fixture
def altered_strict(strict: Path, tmp_path: Path) -> Recording:
    return copied(strict, tmp_path / "recording")


@pytest.fixture
def altered(honest: Path, tmp_path: Path) -> Recording:
    return copied(honest, tmp_path / "recording")


# ── an honest job ──


@pytest.fixture(scope="module")
def attacked(honest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command says of the honest recording."""
    out = tmp_path_factory.mktemp("report") / "report.json"
    words = [sys.executable, "-m", "cli", "audit", "attack", "--recording", str(honest), "--json", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "no attack succeeded" in done.stdout
    return dict(json.loads(out.read_text()))


def test_no_attack_on_an_honest_job_succeeds(attacked: dict[str, Any]) -> None:
    assert attacked["findings"] == []
    assert all(trial["stands"] for trial in attacked["trials"])
    assert {trial["attack"] for trial in attacked["trials"]} == {
        "canaries", "membership", "collusion", "tampering", "key recovery",
    }  # fmt: skip


def test_the_canaries_are_told_apart_better_than_by_chance_but_not_beyond_the_claim(
    attacked: dict[str, Any],
) -> None:
    """A canary audit that always says 0 would pass every job."""
    member, coalition = [trial for trial in attacked["trials"] if trial["attack"] == "canaries"][:2]
    for trial in (member, coalition):
        assert 0.1 < trial["epsilon_lower_bound"] < trial["claimed_epsilon"]


def test_what_was_recorded_is_the_job_that_ran(honest: Path) -> None:
    recording = Recording(honest)
    shape = recording.shape(recording.place)
    levels = [recording.levels(silo) for silo in recording.contributors]
    opened = recording.aggregate(recording.place) - len(levels) * shape.offset
    np.testing.assert_array_equal(np.sum(levels, axis=0), opened)
    assert len(recording.canaries) == 1536
    assert 0.4 < np.mean([coin.is_in for coin in recording.canaries]) < 0.6
    assert {coin.silo for coin in recording.canaries} == set(recording.honest)


def test_the_attack_writes_nothing_into_the_recording(honest: Path, attacked: dict[str, Any]) -> None:
    before = {path: path.stat().st_mtime_ns for path in honest.rglob("*") if path.is_file()}
    attack(honest, quiet, ("tampering", "keys"))
    assert {path: path.stat().st_mtime_ns for path in honest.rglob("*") if path.is_file()} == before


# ── noise and clipping ──


@pytest.fixture(scope="module")
def without_noise(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Real processes of a tree whose noising step draws nothing and reports the promised event.

    At epsilon 1: so few canaries prove about 4.3 at most where some of them overlap.
    """
    return Recording(record(tmp_path_factory.mktemp("no-noise"), has_noise=False, epsilon=1.0))


def test_noise_that_is_off_is_caught_by_the_canaries(without_noise: Recording) -> None:
    assert codes(canary.attack(without_noise, quiet)) == {canary.CODE}


def test_noise_that_is_off_is_caught_by_the_colluders(without_noise: Recording) -> None:
    assert "noise_missing" in codes(collusion.attack(without_noise, quiet))


def with_signal(recording: Recording, signals: dict[str, Integers], noise_factor: float) -> None:
    """Put other contributions, and their sum, in the place of the recorded ones."""
    shape = recording.shape(recording.place)
    total = np.zeros(shape.values, np.int64)
    for silo in recording.contributors:
        noise = recording.levels(silo) + shape.offset - exact(recording, silo)
        drawn = signals[silo] + np.rint(noise_factor * noise).astype(np.int64)
        replace_array(recording, f"truth/levels-{silo}.npy", drawn - shape.offset)
        total += drawn
    replace_array(
        recording, f"members/aggregate-{recording.place.round}-{recording.place.attempt}.npy", total
    )


def exact(recording: Recording, silo: str) -> Integers:
    return collusion._exact(recording, recording.family(), silo, {}, recording.shape(recording.place))


@pytest.mark.parametrize("factor", [0.5, 0.95])
def test_too_little_noise_is_caught_by_the_colluders(altered: Recording, factor: float) -> None:
    with_signal(altered, {silo: exact(altered, silo) for silo in altered.contributors}, factor)
    assert "noise_missing" in codes(collusion.attack(altered, quiet))


class ItemLevelGraph(ItemGraph):
    """Every pair counts in full: clipped by item, not by user."""

    @override
    def contribute(
        self, interactions: Interactions, state: State, round_index: int, shape: Any
    ) -> NDArray[np.int64]:
        matrix = interactions.matrix()
        gram = (matrix.T @ matrix).toarray().astype(np.int64) * shape.grid
        return gram[np.triu_indices(len(gram))]


def test_clipping_by_item_is_caught_by_the_canaries_and_is_not_explained_by_noise(
    altered_strict: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = altered_strict
    honest_signals = {silo: exact(altered, silo) for silo in altered.contributors}
    wrong = ItemLevelGraph(altered.plan, altered.catalogue)
    shape = altered.shape(altered.place)
    monkeypatch.setattr(ItemGraph, "contribute", ItemLevelGraph.contribute)
    signals = {silo: exact(altered, silo) for silo in altered.contributors}
    monkeypatch.undo()
    assert any((signals[silo] != honest_signals[silo]).any() for silo in signals)
    with_signal(altered, signals, 1.0)
    # Seen with the right code, the sum holds what no clipped row explains …
    assert "contribution_unexplained" in codes(collusion.attack(altered, quiet))
    # … and an adversary that knows the wrong code tells its canaries apart.
    monkeypatch.setattr(ItemGraph, "contribute", ItemLevelGraph.contribute)
    assert wrong.contribute(altered.rows("members", altered.honest[0]), {}, 0, shape).any()
    assert codes(canary.attack(altered, quiet)) == {canary.CODE}


def test_a_model_made_of_sums_without_noise_is_caught(altered_strict: Recording) -> None:
    altered = altered_strict
    assert codes(canary.attack(altered, quiet)) == set()
    shape = altered.shape(altered.place)
    signals = np.sum([exact(altered, silo) for silo in altered.contributors], axis=0)
    exact_ease(symmetric_gram(signals, shape.grid), ridge=0.05).save(
        altered.directory / "members" / "model.safetensors"
    )
    found = canary.attack(Recording(altered.directory), quiet)
    assert not found.trials[-1].stands, found.trials[-1]


# ── masks and keys ──


def write_victims_stream(recording: Recording, frames: Iterator[bytes]) -> None:
    path = recording.stream_path(recording.place, recording.honest[0])
    with path.open("wb") as file:
        write_stream(file, frames)


def holder_of(recording: Recording) -> KeyHolder:
    return KeyHolder.from_secret(bytes.fromhex(recording.secrets(recording.manifest.colluders[0]).secret))


def packed_frames(recording: Recording) -> list[Integers]:
    layout = recording.shape(recording.place).layout
    packed = layout.pack(recording.levels(recording.honest[0]))
    return [packed[i : i + SLOTS_PER_FRAME] for i in range(0, layout.total_slots, SLOTS_PER_FRAME)]


def test_a_stream_without_masks_is_caught_by_the_colluders(altered: Recording) -> None:
    holder = holder_of(altered)
    write_victims_stream(altered, (holder.encrypt(slots) for slots in packed_frames(altered)))
    assert "contribution_exposed" in codes(collusion.attack(altered, quiet))


def test_masks_that_begin_anew_in_every_frame_are_caught(altered: Recording) -> None:
    holder, pair_keys = holder_of(altered), {"peer": bytes(range(32)), "other": bytes(range(1, 33))}
    frames = packed_frames(altered)
    assert len(frames) > 1
    write_victims_stream(altered, (holder.encrypt(Masks(pair_keys, "me").apply(slots)) for slots in frames))
    assert "mask_reused" in codes(keys.attack(altered, quiet))


def test_an_encryption_without_error_gives_the_key_away(altered: Recording) -> None:
    holder = holder_of(altered)
    key = key_of(holder.secret_bytes())
    opened = open_streams(altered.stream(altered.place, altered.honest[0]), holder)
    parts = [opened[i : i + SLOTS_PER_FRAME] for i in range(0, len(opened), SLOTS_PER_FRAME)]
    write_victims_stream(altered, (encrypt_without_error(slots % PLAIN_MODULUS, key) for slots in parts))
    assert "key_recovered" in codes(keys.attack(altered, quiet))


@pytest.mark.parametrize("what", ["secret", "group_key", "round_key"])
def test_a_secret_in_a_log_is_caught(altered: Recording, what: str) -> None:
    secret = getattr(altered.secrets(altered.manifest.colluders[0]), what)
    log = altered.directory / "silos" / altered.honest[0] / "logs" / "run.log"
    log.write_text(f'{{"event": "debug", "key": "{secret}"}}\n')
    assert codes(keys.attack(altered, quiet)) == {"secret_in_file"}


# ── tampering, membership, recordings ──


def test_an_opening_that_checks_nothing_is_caught(
    altered: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tampering, "open_sum", lambda *_, **__: np.zeros(1, np.int64))
    assert codes(tampering.attack(altered, quiet)) == {tampering.CODE}


def test_a_record_that_was_altered_before_it_was_recorded_is_caught(altered: Recording) -> None:
    policy = altered.directory / "silos" / altered.honest[0] / "policy.yaml"
    policy.write_bytes(policy.read_bytes().replace(b"epsilon: ", b"epsilon: 1", 1))
    assert "policy_untrusted" in codes(tampering.attack(altered, quiet))


def test_a_model_that_remembers_its_people_is_caught(
    altered: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores that tell members exactly; with people enough, no claimed epsilon allows them."""
    people = [coin for coin in altered.people if coin.is_in][:20] * 50
    people += [coin for coin in altered.people if not coin.is_in][:20] * 50
    monkeypatch.setitem(altered.__dict__, "people", tuple(people))
    monkeypatch.setattr(membership, "_scores", lambda _: np.array([float(coin.is_in) for coin in people]))
    assert codes(membership.attack(altered, quiet)) == {membership.CODE}


def test_what_is_no_recording_is_refused(altered: Recording, tmp_path: Path) -> None:
    with pytest.raises(RecordingError):
        Recording(tmp_path)
    (altered.directory / "truth" / "canaries.json").unlink()
    with pytest.raises(RecordingError):
        attack(altered.directory, quiet, ("canaries",))
    manifest = altered.directory / MANIFEST
    manifest.write_text(manifest.read_text().replace('"Recording"', '"Other"'))
    with pytest.raises(RecordingError):
        Recording(altered.directory)


def test_every_attack_has_its_findings_in_the_reference() -> None:
    assert {"canaries_told_apart", "members_told_apart", "mask_reused", "key_recovered"} <= set(MEANINGS)
    assert set(ATTACKS) == {"canaries", "membership", "collusion", "tampering", "keys"}
