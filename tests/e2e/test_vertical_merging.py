"""A list merged on a person's device through real processes, each with its own party's files alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from silo.vertical.artefacts import load_label_model
from tests.support.nursery import typed
from tests.support.serving_scene import (
    CATALOGUE,
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    PURPOSE,
    make_serving_scene,
)

pytestmark = pytest.mark.e2e


@contextmanager
def away(*paths: Path) -> Iterator[None]:
    """Nobody can read these meanwhile."""
    for path in paths:
        path.rename(path.with_name(f"{path.name}-away"))
    try:
        yield
    finally:
        for path in paths:
            path.with_name(f"{path.name}-away").rename(path)


@pytest.mark.timeout(300)
def test_each_process_has_its_own_partys_files_alone(tmp_path: Path) -> None:
    scene = make_serving_scene(tmp_path / "parties")
    shop, platform, network = (scene.directory(name) for name in (LABEL, FEATURE, OTHER))
    scene.sign(LABEL, mode="user_side_merge")
    scene.sign(FEATURE, mode="user_side_merge", answers={LABEL: [PURPOSE]})
    device = tmp_path / "device"
    device.mkdir()
    for name in ("charter.yaml", "charter.sig.json"):
        shutil.copy(shop / name, device)
    key, ticket, own, others = (
        device / name for name in ("key", "ticket.json", "shop.part", "platform.part")
    )
    made = json.loads(typed("merge", "key", "--out", key, "--json", "-").stdout)["device"]

    with away(platform, network, key):
        begun = typed("merge", "start", "anna", "--device", made, "--out", own, "--ticket", ticket,
                      "--job", JOB, "--dir", shop)  # fmt: skip
        assert begun.returncode == 0, begun.stderr
    give = ("merge", "give", "anna", "--ticket", ticket, "--out", others, "--dir", platform, "--device")
    with away(shop, network, key, own):
        swapped = typed(*give, made[:-4] + "AAAA")
        assert (swapped.returncode, "error[merge_trust]" in swapped.stderr) == (8, True), swapped.stderr
        given = typed(*give, made)
        assert given.returncode == 0, given.stderr
    with away(shop, platform, network):
        listed = typed("merge", "list", own, others, "--key", key, "--charter", device / "charter.yaml",
                       "-k", "5", "--json", "-")  # fmt: skip
        assert listed.returncode == 0, listed.stderr

    found = json.loads(listed.stdout)
    assert found["serving_mode"] == "user_side_merge"
    assert found["partners"] == {FEATURE: "merged", OTHER: "no part"}
    numbers = {FEATURE: scene.numbers(FEATURE, "anna")}
    expected = load_label_model(shop, JOB).recommend(scene.items_of(LABEL, "anna"), numbers, top=5)
    ids = [CATALOGUE.items[item].item_id for item, _ in expected]
    assert [row["item_id"] for row in found["items"]] == ids
    assert "anna" not in ticket.read_text() + begun.stdout + given.stdout
