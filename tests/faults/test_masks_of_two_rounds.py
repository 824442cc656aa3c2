"""A mask that is used in two rounds: real processes of a build whose pairs mask rounds 1 and 2 with one key.

Nothing in the protocol breaks: masks cancel, tags fit, every sum opens and every ledger is right. Only who
keeps the streams of both rounds sees it, and `audit attack` does.
"""

from __future__ import annotations

import pytest

from privacy.encryption.keyholder import KeyHolder
from privacy.packing import PLAIN_MODULUS
from silo.audit.attack import keys
from silo.audit.attack.recording import Place, Recording
from silo.audit.attack.statistics import BY_CHANCE, p_uniform
from silo.audit.attack.streams import open_streams
from silo.audit.verify import verify
from silo.site import utc_now
from tests.support.recordings import SAME_MASKS, codes, record_from_tree
from tests.support.small_set import write_set

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    root = tmp_path_factory.mktemp("same-masks")
    options = ("--data", str(write_set(root / "set")), "--silos", "3", "--canaries", "64")
    options += ("--model", "autoencoder", "--rounds", "3")
    return Recording(record_from_tree(root, options, SAME_MASKS))


def difference(recording: Recording, one: Place, other: Place) -> float:
    """p-value that two rounds of an honest silo differ by uniform slots."""
    holder = KeyHolder.from_secret(bytes.fromhex(recording.secrets(recording.manifest.colluders[0]).secret))
    silo = recording.honest[0]
    slots = [open_streams(recording.stream(place, silo), holder)[:-1] for place in (one, other)]
    length = min(map(len, slots))
    return p_uniform((slots[0][:length] - slots[1][:length]) % PLAIN_MODULUS)


def test_the_attack_finds_it_and_names_the_rounds(recording: Recording) -> None:
    attacked = keys.attack(recording, lambda _: None)
    assert codes(attacked) == {"mask_reused"}
    (found,) = attacked.findings
    assert "a mask repeats: rounds 1 and 2 of" in found.text


def test_rounds_that_were_masked_anew_are_told_from_them(recording: Recording) -> None:
    first, second, third, *_ = recording.manifest.streams
    assert [place.round for place in (first, second, third)] == [1, 2, 3]
    assert difference(recording, first, second) < BY_CHANCE
    assert difference(recording, first, third) > BY_CHANCE
    assert difference(recording, second, third) > BY_CHANCE


def test_no_record_of_any_silo_shows_it(recording: Recording) -> None:
    """That is why the attack is needed."""
    for silo in recording.plan.silos:
        path = recording.directory / "silos" / silo
        assert verify(path, recording.directory / "charter.yaml", now=utc_now()).findings == ()
