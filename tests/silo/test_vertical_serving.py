"""A person in session is scored with what feature silos know of them, and otherwise without."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from privacy.errors import DataError, UsageError
from silo.finished import NoModelError
from silo.tensor_files import Tables, TensorFileError, load_tables, save_tables
from silo.vertical.alignment.people import People
from silo.vertical.artefacts import BASIS_FILE, load_feature_basis, load_label_model
from silo.vertical.encoder.top_files import TOP_FILE, load_top_model, save_top_model
from silo.vertical.encoder.top_model import TopModel
from silo.vertical.serving.asking import ServingDeniedError
from silo.vertical.serving.desk import LabelDesk, ServedList, find_vertical_job
from silo.vertical.serving.tokens import read_tokens
from tests.contracts.federation_directories import free_port
from tests.support.serving_scene import (
    CATALOGUE,
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    ServingScene,
    make_serving_scene,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ServingScene:
    return make_serving_scene(tmp_path_factory.mktemp("serving"), port=free_port())


@pytest.fixture
def fresh(tmp_path: Path) -> ServingScene:
    return make_serving_scene(tmp_path, port=free_port())


def served(scene: ServingScene, play: Callable[[LabelDesk], Awaitable[Any]], *answering: str) -> Any:
    async def whole() -> Any:
        desk = LabelDesk(scene.directory(LABEL), JOB)
        async with scene.over_tls(*answering or (FEATURE, OTHER)), desk:
            return await play(desk)

    return asyncio.run(whole())


def expected(scene: ServingScene, person: str, *partners: str) -> list[str]:
    """The list computed here, from what each silo has in its own files."""
    numbers = {silo: scene.numbers(silo, person) for silo in partners}
    model = load_label_model(scene.directory(LABEL), JOB)
    ranked = model.recommend(scene.items_of(LABEL, person), numbers, top=5)
    return [CATALOGUE.items[item].item_id for item, _ in ranked]


def ids(made: ServedList) -> list[str]:
    return [row.item_id for row in made.rows]


def test_the_numbers_of_exactly_the_person_who_consented_come_back(scene: ServingScene) -> None:
    async def play() -> list[np.ndarray]:
        async with scene.running() as hub:
            return [await scene.ask(hub, scene.issue(person).token) for person in ("anna", "ben", "nobody")]

    anna, ben, nobody = asyncio.run(play())
    assert np.allclose(anna, scene.numbers(FEATURE, "anna"), atol=1e-12)
    assert np.allclose(ben, scene.numbers(FEATURE, "ben"), atol=1e-12)
    assert not np.allclose(anna, ben)
    assert np.array_equal(nobody, np.zeros_like(anna))


def test_one_desk_makes_list_after_list_with_whoever_was_allowed(scene: ServingScene) -> None:
    async def play(desk: LabelDesk) -> list[ServedList]:
        both = {silo: scene.issue("anna", by=silo).token for silo in (FEATURE, OTHER)}
        return [
            await desk.recommend("anna", 5),
            await desk.recommend("anna", 5, both),
            await desk.recommend("anna", 5, both),
            await desk.recommend("ben", 5, {OTHER: scene.issue("ben", by=OTHER).token}),
        ]

    alone, together, spent, other = served(scene, play)
    assert [made.mode for made in (alone, together, spent, other)] == [
        "own_features_only", "consented_session", "own_features_only", "consented_session",
    ]  # fmt: skip
    assert dict(together.partners) == {FEATURE: "answered", OTHER: "answered"}
    assert dict(spent.partners) == {FEATURE: "denied", OTHER: "denied"}
    assert dict(other.partners) == {FEATURE: "no token", OTHER: "answered"}
    assert ids(alone) == ids(spent) == expected(scene, "anna")
    assert ids(together) == expected(scene, "anna", FEATURE, OTHER) != ids(alone)
    assert ids(other) == expected(scene, "ben", OTHER)


def test_many_people_at_once_get_their_own_lists(scene: ServingScene) -> None:
    people = ("anna", "ben", "carla", "dora")

    async def play(desk: LabelDesk) -> list[ServedList]:
        tokens = [{FEATURE: scene.issue(person).token} for person in people]
        asked = [desk.recommend(person, 5, token) for person, token in zip(people, tokens, strict=True)]
        return await asyncio.gather(*asked)

    for person, made in zip(people, served(scene, play, FEATURE), strict=True):
        assert ids(made) == expected(scene, person, FEATURE)


def test_somebody_new_here_is_known_by_what_a_partner_says(scene: ServingScene) -> None:
    async def play(desk: LabelDesk) -> list[ServedList]:
        with_token = await desk.recommend("new", 5, {FEATURE: scene.issue("anna").token})
        return [with_token, await desk.recommend("new", 5)]

    known, unknown = served(scene, play, FEATURE)
    assert (known.fallback, unknown.fallback) == (None, "unknown-user")
    assert ids(known) != ids(unknown)


def test_what_somebody_has_bought_since_is_not_in_the_next_list(fresh: ServingScene) -> None:
    table = fresh.directory(LABEL) / "data" / "rows.parquet"

    async def play(desk: LabelDesk) -> None:
        first = ids(await desk.recommend("anna", 3))
        bought = pl.DataFrame({"user_id": ["anna"], "item_id": [first[0]]})
        pl.concat([pl.read_parquet(table), bought]).write_parquet(table)
        assert first[0] not in ids(await desk.recommend("anna", 3))

    served(fresh, play)


def test_a_label_silo_whose_policy_serves_alone_asks_nobody(fresh: ServingScene) -> None:
    fresh.sign(LABEL, mode="own_features_only")

    async def play(desk: LabelDesk) -> None:
        token = fresh.issue().token
        with pytest.raises(ServingDeniedError, match="own_features_only"):
            await desk.recommend("anna", 5, {FEATURE: token})
        fresh.sign(LABEL, mode="consented_session")
        (fresh.directory(LABEL) / "freeze.yaml").write_text("a freeze that nobody can read holds as well")
        with pytest.raises(ServingDeniedError, match="freeze"):
            await desk.recommend("anna", 5, {FEATURE: token})
        (fresh.directory(LABEL) / "freeze.yaml").unlink()
        assert (await desk.recommend("anna", 5, {FEATURE: token})).mode == "consented_session"

    served(fresh, play)


def leave_top_model(scene: ServingScene) -> Path:
    """A network at the label silo that knows anna and ben."""
    model = load_label_model(scene.directory(LABEL), JOB)
    rng = np.random.default_rng(8)
    shapes = {
        "encoder.weight": (4, 12 + 6),
        "encoder.bias": (4,),
        "decoder.weight": (12, 4),
        "decoder.bias": (12,),
    }
    network = TopModel(model.joint, {name: rng.normal(size=shape) for name, shape in shapes.items()}, 1.0)
    people = People(("anna", "ben"), (0, 1), ("x", "y"))
    path = scene.directory(LABEL) / "jobs" / JOB / TOP_FILE
    save_top_model(path, network, people, rng.normal(size=(2, 6)))
    return path


def rewrite(path: Path, kind: str, change: Callable[[Tables], Tables]) -> None:
    """Readable tables of the right kind, others than the job wrote."""
    tables, about = load_tables(path, kind)
    save_tables(path, kind, change(tables), about)


@pytest.mark.parametrize(
    "missing",
    [
        *("mixing", "numbers", "ids", "ends", "people"),
        *("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias"),
    ],
)
def test_a_top_model_without_one_of_its_tables_is_refused(fresh: ServingScene, missing: str) -> None:
    path = leave_top_model(fresh)
    rewrite(path, "archipel-top-model/v1", lambda tables: {n: t for n, t in tables.items() if n != missing})
    with pytest.raises(TensorFileError, match="not those of a label silo's top model") as refusal:
        load_top_model(fresh.directory(LABEL), JOB)
    assert refusal.value.where == str(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": np.zeros(0)},
        {"people": np.array([0])},
        {"people": np.array([0, 7])},
        {"people": np.array([0, -1])},
        {"numbers": np.zeros(2)},
        {"ids": np.full(7, 255, dtype=np.uint8)},
    ],
    ids=str,
)
def test_a_top_model_that_does_not_say_whose_numbers_are_whose_is_refused(
    fresh: ServingScene, changes: Tables
) -> None:
    """Where it is read, not in the middle of somebody's list."""
    path = leave_top_model(fresh)
    rewrite(path, "archipel-top-model/v1", lambda tables: tables | changes)
    with pytest.raises(TensorFileError, match="not those of a label silo's top model"):
        load_top_model(fresh.directory(LABEL), JOB)


@pytest.mark.parametrize("tables", [{"other": np.eye(2)}, {"basis": np.ones(3)}])
def test_a_file_without_a_basis_is_refused(fresh: ServingScene, tables: Tables) -> None:
    path = fresh.directory(FEATURE) / "jobs" / JOB / BASIS_FILE
    rewrite(path, "archipel-feature-basis/v1", lambda _: tables)
    with pytest.raises(TensorFileError, match="not those of a feature silo's basis") as refusal:
        load_feature_basis(fresh.directory(FEATURE), JOB)
    assert refusal.value.where == str(path)


def test_numbers_that_a_private_encoder_released_need_no_token(fresh: ServingScene) -> None:
    """Noised and paid for in the job; who was not in it, or brings a token, is served as after any other."""
    path = leave_top_model(fresh)
    assert path.stat().st_mode & 0o077 == 0  # it names people

    async def play(desk: LabelDesk) -> list[ServedList]:
        token = {FEATURE: fresh.issue("anna").token}
        return [
            await desk.recommend("anna", 5),
            await desk.recommend("carla", 5),
            await desk.recommend("anna", 5, token),
            await desk.recommend("anna", 5, token),
        ]

    released, outside, asked, spent = served(fresh, play)
    assert [made.mode for made in (released, outside, asked, spent)] == [
        "dp_release", "own_features_only", "consented_session", "dp_release",
    ]  # fmt: skip
    assert dict(released.partners) == {FEATURE: "released", OTHER: "released"}
    assert dict(spent.partners) == {FEATURE: "denied", OTHER: "released"}
    assert ids(outside) == expected(fresh, "carla")
    assert ids(asked) == expected(fresh, "anna", FEATURE)
    seen = fresh.items_of(LABEL, "anna")
    scores = load_top_model(fresh.directory(LABEL), JOB).scores("anna", seen)
    order = [item for item in np.argsort(-scores, kind="stable") if item not in seen][:5]
    assert ids(released) == ids(spent) == [CATALOGUE.items[item].item_id for item in order]


@pytest.mark.parametrize("k", [0, -1])
def test_a_list_of_no_items_is_refused(scene: ServingScene, k: int) -> None:
    with pytest.raises(UsageError, match="list"):
        asyncio.run(LabelDesk(scene.directory(LABEL), JOB).recommend("anna", k))


class TestWhichJob:
    def test_is_the_newest_that_left_a_model(self, fresh: ServingScene) -> None:
        directory = fresh.directory(LABEL)
        assert find_vertical_job(directory, None) == find_vertical_job(directory, JOB[:4]) == JOB
        (directory / "jobs" / ("cd" * 16)).mkdir()
        (directory / "jobs" / ("cd" * 16) / "model.safetensors").touch()
        assert find_vertical_job(directory, None) is None, "a horizontal job came after it"
        assert find_vertical_job(directory, "ab") == JOB
        assert find_vertical_job(directory, "cd") is None
        with pytest.raises(NoModelError, match="several"):
            find_vertical_job(directory, "")

    def test_of_a_feature_silo_is_none(self, scene: ServingScene) -> None:
        with pytest.raises(NoModelError, match="label silo"):
            find_vertical_job(scene.directory(FEATURE), None)


class TestTokens:
    def test_come_in_files_and_words(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        named, plain = tmp_path / "named.json", tmp_path / "plain"
        named.write_text(json.dumps({"token": "t1", "issuer": "b", "audience": "a"}))
        plain.write_text("t2\n")
        assert read_tokens([str(named)], ["c=t3="], ["b", "c"]) == {"b": "t1", "c": "t3="}
        assert read_tokens([str(plain)], [], ["b"]) == {"b": "t2"}
        monkeypatch.setattr("sys.stdin", io.StringIO("t4"))
        assert read_tokens(["-"], [], ["b"]) == {"b": "t4"}
        assert read_tokens([], [], ["b"]) == {}

    @pytest.mark.parametrize("words", [["t"], ["d=t"], ["b=t", "b=u"]])
    def test_of_nobody_or_twice_of_one_are_refused(self, words: list[str]) -> None:
        with pytest.raises(UsageError, match=r"feature silo|two tokens"):
            read_tokens([], words, ["b", "c"])

    @pytest.mark.parametrize("content", [b"\xff\xfe", b'{"issuer": "b"}', b"[]", None])
    def test_that_are_none_are_refused(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "token"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match="token"):
            read_tokens([str(path)], [], ["b"])
