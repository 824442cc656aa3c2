"""Who wants to know more of an alignment than it says, and what they get."""

from __future__ import annotations

import numpy as np
import pytest

from privacy.alignment.blinding import Blinding, BlindingReuseError
from privacy.alignment.identifiers import pseudonyms
from privacy.alignment.points import ORDER, POINT_BYTES, multiplied
from privacy.alignment.spine import NO_SLOT, find_common, unveiled
from privacy.errors import UsageError
from privacy.randomness import WordSource

PEPPER, OTHER_PEPPER = bytes(range(32)), bytes(32)
SHOP, CLINIC = ["anna", "ben", "cem"], ["ben", "cem", "dora", "emil"]
CAPACITY, RUN = 6, "ab" * 16


def words(people: list[str], pepper: bytes = PEPPER) -> tuple[str, ...]:
    return pseudonyms(people, "exact", pepper).words


def split(points: bytes) -> set[bytes]:
    return {points[start : start + POINT_BYTES] for start in range(0, len(points), POINT_BYTES)}


def final_lists(shop: Blinding, clinic: Blinding) -> tuple[bytes, bytes]:
    of_shop = clinic.blind(shop.own_list(words(SHOP), CAPACITY), CAPACITY)
    of_clinic = shop.blind(clinic.own_list(words(CLINIC), CAPACITY), CAPACITY)
    return taken_off(of_shop, shop), taken_off(of_clinic, clinic)


def taken_off(points: bytes, owner: Blinding) -> bytes:
    """What the coordinator compares."""
    return unveiled(points, CAPACITY, owner.veil()).tobytes()


def test_the_coordinator_tries_out_every_id() -> None:
    """It has both final lists and knows everybody's ids; without the silos' secrets no id is a point."""
    lists = final_lists(Blinding.generate(RUN), Blinding.generate(RUN))
    tried = split(Blinding.generate(RUN).own_list(words(sorted({*SHOP, *CLINIC})), CAPACITY))
    own_layers = Blinding.generate(RUN).blind(b"".join(sorted(tried)), CAPACITY)
    assert not (tried | split(own_layers)) & (split(lists[0]) | split(lists[1]))


def test_the_coordinator_and_one_silo_learn_who_of_that_silo_is_elsewhere_and_no_more() -> None:
    """The documented limit, exactly: the silo's own people found; nobody else has a name."""
    shop, clinic = Blinding.generate(RUN), Blinding.generate(RUN)
    of_shop, of_clinic = final_lists(shop, clinic)
    places = Blinding(shop.secret_bytes(), RUN).places(len(SHOP), CAPACITY)
    mine = [of_shop[place * POINT_BYTES : (place + 1) * POINT_BYTES] for place in places]
    elsewhere = split(of_clinic)
    assert [name for name, point in zip(SHOP, mine, strict=True) if point in elsewhere] == ["ben", "cem"]
    guesses = split(Blinding(shop.secret_bytes(), RUN).own_list(words(["dora", "emil", "fay"]), CAPACITY))
    assert not guesses & elsewhere, "without the clinic's secret an id of somebody else gives no point"


def test_a_silo_alone_learns_nothing_of_the_list_it_blinds() -> None:
    """The shop sees the clinic's list under the clinic's secret: as many points as declared, no id."""
    shop, clinic = Blinding.generate(RUN), Blinding.generate(RUN)
    seen = clinic.own_list(words(CLINIC), CAPACITY)
    assert len(split(seen)) == CAPACITY
    guesses = split(shop.own_list(words(CLINIC), CAPACITY))
    assert not guesses & split(seen)


def test_two_runs_of_which_one_person_is_new() -> None:
    """Sizes and points of both runs: nothing shows whether anybody came."""
    before = Blinding.generate(RUN).own_list(words(CLINIC), CAPACITY)
    after = Blinding.generate(RUN).own_list(words([*CLINIC, "fay"]), CAPACITY)
    assert len(before) == len(after)
    assert not split(before) & split(after)


def test_a_secret_that_is_used_again() -> None:
    """Two lists under one secret would show who came: their points are equal. So it is an error."""
    used = Blinding.generate(RUN)
    used.own_list(words(CLINIC), CAPACITY)
    with pytest.raises(BlindingReuseError):
        used.own_list(words([*CLINIC, "fay"]), CAPACITY)


def test_a_silo_with_another_pepper_meets_nobody() -> None:
    shop, clinic = Blinding.generate(RUN), Blinding.generate(RUN)
    of_shop = clinic.blind(shop.own_list(words(SHOP, OTHER_PEPPER), CAPACITY), CAPACITY)
    of_clinic = shop.blind(clinic.own_list(words(CLINIC), CAPACITY), CAPACITY)
    assert not split(taken_off(of_shop, shop)) & split(taken_off(of_clinic, clinic))


@pytest.mark.parametrize("shared", [0, 2, 3])
def test_a_hidden_spine_tells_a_silo_nothing_of_the_others(shared: int) -> None:
    """Its slots are distinct places of a spine of public length, whoever else is on it."""
    shop, clinic = Blinding.generate(RUN), Blinding.generate(RUN)
    others = [*SHOP[:shared], *(f"other-{i}" for i in range(4 - shared))]
    of_shop = clinic.blind(shop.own_list(words(SHOP), CAPACITY), CAPACITY)
    of_clinic = shop.blind(clinic.own_list(words(others), CAPACITY), CAPACITY)
    lists = {
        "shop": unveiled(of_shop, CAPACITY, shop.veil()),
        "clinic": unveiled(of_clinic, CAPACITY, clinic.veil()),
    }
    found = find_common(lists, least=-1000, epsilon=1.0, reveal="none", source=WordSource.from_os())
    assert found is not None
    assert found.num_slots == 2 * CAPACITY
    assert len(np.unique(found.slots["shop"])) == CAPACITY
    assert NO_SLOT not in found.slots["shop"]
    assert found.slots["shop"].max() < found.num_slots


def test_two_silos_of_three_pool_what_they_saw_and_all_their_secrets() -> None:
    """Ring a > b > c > a. The second sees a's own list in hop 1 and c's list, under a's layer, in hop 2.

    With c's secrets they strip c's list to a's layer alone. Before there were veils a's own list lay under
    that layer too, and they read whom a and c have in common.
    """
    a, b, c = (Blinding.generate(RUN) for _ in range(3))
    own = a.own_list(words(SHOP), CAPACITY)
    passing = a.blind(c.own_list(words(CLINIC), CAPACITY), CAPACITY)
    to_layer_of_a = layer_of(c) * pow(int.from_bytes(c.veil(), "big"), -1, ORDER) % ORDER
    stripped = multiplied(passing, CAPACITY, pow(to_layer_of_a, -1, ORDER))
    known = {
        multiplied(own, CAPACITY, scalar)
        for scalar in (1, layer_of(b), pow(layer_of(b), -1, ORDER), int.from_bytes(b.veil(), "big"))
    }
    assert all(not split(stripped) & split(one) for one in known)
    without_veil = split(taken_off(own, a))
    places = c.places(len(CLINIC), CAPACITY)
    at = [stripped[place * POINT_BYTES : (place + 1) * POINT_BYTES] for place in places]
    read = [name for name, point in zip(CLINIC, at, strict=True) if point in without_veil]
    assert read == ["ben", "cem"], "the sabotaged variant: the same attack where nobody wears a veil"


def layer_of(silo: Blinding) -> int:
    """A colluder shows its own."""
    return silo._layer


def test_a_secret_that_a_restored_disk_gives_to_another_run() -> None:
    secret = Blinding.generate(RUN).secret_bytes()
    before = Blinding(secret, RUN).own_list(words(CLINIC), CAPACITY)
    after = Blinding(secret, "another job").own_list(words([*CLINIC, "fay"]), CAPACITY)
    assert not split(before) & split(after)


def test_the_secret_does_not_print() -> None:
    secret = Blinding.generate(RUN)
    assert secret.secret_bytes().hex()[:8] not in repr(secret)
    with pytest.raises(UsageError):
        Blinding(secret.secret_bytes()[:-1], RUN)
