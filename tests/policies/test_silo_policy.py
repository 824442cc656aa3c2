"""A silo's law: empty denies, contradictions are told, permissive settings are warned about."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from policies.catalog import TEMPLATES, render_template
from policies.documents import PolicyFileError
from policies.serving import serving_words
from policies.silo_policy import AccountBudget, SiloPolicy, Source
from policies.validation import parse_yaml
from privacy.budget import Budget, RenyiFilter, ZcdpFilter
from privacy.errors import UsageError
from tests.contracts.policy_scene import policy_text, read_policy

DESIGN_EXAMPLE = """
kind: SiloPolicy
schema_version: 1
version: 7
silo: shop-a
expires: 2027-06-30
datasets:
  purchases:
    source: {parquet: data/purchases/*.parquet}
    columns: {user_id: customer, item_id: sku, timestamp: bought_at, weight: quantity}
    max_interactions_per_user: 200
    population: customers
    max_silos_per_user: 1
    exclude_users: opt-outs.csv
budgets:
  customers: {epsilon: 8.0, delta: 1.0e-6, scope: lifetime, filter: zcdp}
accepts:
  purposes: {product-recommendation: purchases}
  with_members: [shop-b, shop-c]
  max_epsilon_per_plan: 4.0
  min_silos: 3
  min_colluding_silos: 1
  require: {encryption: true, masks: true, unit: user}
  metrics: noised
  verify_sums: 0.1
alignment: {capacity: 20000, min_intersection: 1000, reveal: none, max_runs_per_30_days: 2}
serving: {mode: own_features_only}
"""


def changed(old: str, new: str) -> SiloPolicy:
    assert old in DESIGN_EXAMPLE
    return read_policy(DESIGN_EXAMPLE.replace(old, new))


def test_the_designs_example_is_a_policy():
    policy = read_policy(DESIGN_EXAMPLE)
    name, dataset = policy.dataset_for("product-recommendation") or pytest.fail("no dataset")
    assert (name, dataset.source.format, dataset.source.path) == (
        "purchases",
        "parquet",
        "data/purchases/*.parquet",
    )
    assert dataset.columns.timestamp == "bought_at"
    assert policy.expires == date(2027, 6, 30)
    assert policy.dataset_for("fraud") is None


def test_empty_means_deny():
    text = (
        "{kind: SiloPolicy, schema_version: 1, version: 1, silo: a, expires: 2027-01-01, "
        "accepts: {max_epsilon_per_plan: 1, min_silos: 2, min_colluding_silos: 1}}"
    )
    policy = read_policy(text)
    assert policy.accepts.purposes == {}
    assert policy.accepts.with_members == ()
    assert policy.accepts.metrics == "none"
    assert policy.accepts.verify_sums == 1.0
    assert sum("every plan is denied" in warning for warning in policy.warnings()) == 2


class TestBudget:
    def test_is_the_ledgers(self):
        zcdp = read_policy(DESIGN_EXAMPLE).budgets["customers"].to_budget()
        assert zcdp == Budget(epsilon=8.0, delta=1e-6, filter=ZcdpFilter(kind="zcdp"))
        renyi = changed("filter: zcdp", "filter: renyi, orders: [2, 4, 8]").budgets["customers"].to_budget()
        assert renyi.filter == RenyiFilter(kind="renyi", orders=(2.0, 4.0, 8.0))

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("filter: zcdp", "filter: renyi", "orders: missing"),
            ("filter: zcdp", "filter: zcdp, orders: [2]", "a zcdp filter has none"),
            ("filter: zcdp", "filter: renyi, orders: [4, 2]", "ascending"),
            ("filter: zcdp", "filter: renyi, orders: [1]", "above 1"),
            ("epsilon: 8.0", "epsilon: 0", "above 0"),
            ("epsilon: 8.0", "epsilon: -1", "above 0"),
            ("delta: 1.0e-6", "delta: 0.5", r"at most 0\.01"),
            ("scope: lifetime", "scope: yearly", "lifetime"),
        ],
    )
    def test_nonsense_is_refused(self, old, new, said):
        with pytest.raises(PolicyFileError, match=said):
            changed(old, new)

    def test_infinite_epsilon_is_refused_from_code_too(self):
        with pytest.raises(ValidationError):
            AccountBudget(epsilon=float("inf"), delta=1e-6, scope="lifetime", filter="zcdp")


class TestAcrossFields:
    @pytest.mark.parametrize(
        ("old", "new", "field"),
        [
            ("population: customers", "population: clients", "datasets.purchases.population"),
            ("recommendation: purchases", "recommendation: sales", "accepts.purposes.product-recommendation"),
            ("[shop-b, shop-c]", "[shop-a, shop-b]", "accepts.with_members"),
            ("[shop-b, shop-c]", "[shop-b, shop-b]", "accepts.with_members"),
            ("encryption: true", "encryption: false", "accepts.require.encryption"),
            ("masks: true", "masks: false", "accepts.require.masks"),
            ("unit: user", "unit: rating", "accepts.require.unit"),
            ("max_silos_per_user: 1", "weight: 1", "datasets.purchases.max_silos_per_user"),
            (
                "max_silos_per_user: 1\n",
                "max_silos_per_user: 1\n    default_region: XX\n",
                "datasets.purchases.default_region",
            ),
        ],
    )
    def test_a_contradiction_is_told_at_its_field(self, old, new, field):
        with pytest.raises(PolicyFileError) as caught:
            changed(old, new)
        assert field in {problem.field for problem in caught.value.problems}
        assert all(problem.line > 0 for problem in caught.value.problems)

    @pytest.mark.parametrize("sources", [{}, {"csv": "a", "parquet": "b"}])
    def test_a_table_has_exactly_one_source(self, sources):
        with pytest.raises(ValidationError, match="exactly one"):
            Source(**sources)


class TestWarnings:
    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ("epsilon: 8.0", "epsilon: 20.0", "weak promise"),
            ("delta: 1.0e-6", "delta: 1.0e-3", "is large"),
            ("verify_sums: 0.1", "verify_sums: 0", "never checks"),
            ("min_silos: 3", "min_silos: 4", "cannot come together"),
            ("max_epsilon_per_plan: 4.0", "max_epsilon_per_plan: 9.0", "denied by the account"),
        ],
    )
    def test_permissive_or_pointless_settings_are_named(self, old, new, said):
        assert not any(said in warning for warning in read_policy(DESIGN_EXAMPLE).warnings())
        assert any(said in warning for warning in changed(old, new).warnings())


class TestTemplates:
    @pytest.mark.parametrize("template", TEMPLATES)
    def test_is_a_policy_that_denies_until_partners_are_named(self, template):
        text = render_template(template, silo="shop-a")
        assert text.startswith("# yaml-language-server: $schema=")
        assert read_policy(text).accepts.with_members == ()
        partners = ["shop-b", "shop-c", "shop-d"]
        named = read_policy(render_template(template, silo="shop-a", with_members=partners))
        assert not any("denied" in warning for warning in named.warnings())

    def test_settings_replace_the_templates_choices(self):
        text = render_template(
            "retailer",
            silo="n7",
            expires=date(2030, 1, 2),
            with_members=["12", "null"],
            source={"csv": "a b/#1, x: y.csv"},
            columns={"user_id": "uid:token", "item_id": "yes"},
            epsilon=1.5,
            delta=3e-7,
            orders=(2, 4.5),
            verify_sums=0.25,
        )
        policy = parse_yaml(text.encode(), SiloPolicy, "policy.yaml")
        assert policy.accepts.with_members == ("12", "null")
        assert policy.datasets["purchases"].source.path == "a b/#1, x: y.csv"
        assert policy.datasets["purchases"].columns.item_id == "yes"
        assert policy.budgets["customers"].to_budget() == Budget(
            epsilon=1.5, delta=3e-7, filter=RenyiFilter(kind="renyi", orders=(2.0, 4.5))
        )
        assert (policy.expires, policy.accepts.verify_sums) == (date(2030, 1, 2), 0.25)

    def test_an_unknown_template_names_those_there_are(self):
        with pytest.raises(UsageError, match="retailer, strict, social-network, vertical-partner, research"):
            render_template("generous", silo="a")

    def test_a_silo_name_cannot_smuggle_fields_in(self):
        with pytest.raises(PolicyFileError, match="silo"):
            read_policy(policy_text().replace("silo: shop-a", 'silo: "a\\nversion: 9"'))


CONSENTED = "serving: {mode: consented_session, answers: {shop-b: [product-recommendation]}}"


class TestServing:
    def test_nobody_is_answered_by_default(self):
        for text in ("serving: {mode: own_features_only}", "serving: {mode: consented_session}"):
            policy = changed("serving: {mode: own_features_only}", text)
            assert not policy.serving.answers_to("shop-b", "product-recommendation")

    def test_who_is_named_is_answered_for_the_purposes_named(self):
        policy = changed("serving: {mode: own_features_only}", CONSENTED)
        assert policy.serving.answers_to("shop-b", "product-recommendation")
        assert not policy.serving.answers_to("shop-b", "credit-scoring")
        assert not policy.serving.answers_to("shop-c", "product-recommendation")
        assert list(policy.serving.unenforced()) == []

    @pytest.mark.parametrize(
        ("serving", "said"),
        [
            ("{mode: own_features_only, answers: {shop-b: [product-recommendation]}}", "answers nobody"),
            ("{mode: user_side_merge, answers: {shop-b: [credit-scoring]}}", "accepts.purposes"),
            (
                "{mode: consented_session, answers: {shop-z: [product-recommendation]}}",
                "accepts.with_members",
            ),
            ("{mode: consented_session, answers: {shop-b: [credit-scoring]}}", "accepts.purposes"),
            ("{mode: consented_session, answers: {shop-b: []}}", "answers"),
            ("{mode: consented_session, token_minutes: 61}", "token_minutes"),
            ("{mode: for_everybody}", "mode"),
        ],
    )
    def test_what_cannot_be_meant_is_told(self, serving, said):
        with pytest.raises(PolicyFileError, match=said):
            changed("serving: {mode: own_features_only}", f"serving: {serving}")

    def test_who_is_answered_is_said_and_warned_about(self):
        policy = changed("serving: {mode: own_features_only}", CONSENTED)
        assert any("no epsilon bounds that" in text for text in policy.warnings())
        words = " ".join(serving_words(policy))
        assert "shop-b is told the numbers of a person who consented" in words
        assert "10 minutes" in words

    def test_a_merge_tells_people_and_no_silo(self):
        policy = changed(
            "serving: {mode: own_features_only}", CONSENTED.replace("consented_session", "user_side_merge")
        )
        serving = policy.serving
        assert serving.merges_with("shop-b", "product-recommendation")
        assert not serving.merges_with("shop-b", "credit-scoring")
        assert not serving.answers_to("shop-b", "product-recommendation")
        assert not serving.answers_anybody
        assert list(serving.unenforced()) == []
        assert any("each person who asks is given their own numbers" in text for text in policy.warnings())
        words = " ".join(serving_words(policy))
        assert "no silo sees another's" in words
        assert "shop-b is told nothing" in words
