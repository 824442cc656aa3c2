"""What a second look at vertical jobs found: each test failed before its hole was closed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from federation.legs.legs import Leg, LegPurpose
from federation.legs.matching import Found, TooFew
from federation.legs.spines import find_spine
from policies.files import replacing
from policies.plans.plan import Plan
from policies.plans.vertical.price import gate_terms
from policies.plans.vertical.rules import LEAST_GATE_EPSILON
from policies.plans.vertical.terms import AlignmentTerms
from policies.silo_policy import Dataset
from policies.validation import PolicyFileError
from privacy.alignment.spine import MIN_EPSILON, find_common
from privacy.encryption.crossmoments.frames import SUM_FRAME_BYTES
from privacy.encryption.crossmoments.parameters import MomentsShape
from privacy.encryption.frames import FrameError
from privacy.randomness import WordSource
from silo.agent import _ENDS_JOB
from silo.data.catalogue import Catalogue, CatalogueItem
from silo.data.cleaning import clean
from silo.jobs.context import JobContext
from silo.outbox import Outbox
from silo.rows import known_rows
from silo.vertical.alignment.people import People
from silo.vertical.alignment.tasks import SlotsTask
from silo.vertical.artefacts import LabelModel, save_basis
from silo.vertical.card import promise
from silo.vertical.columns import feature_interactions
from silo.vertical.contents import CONTENTS
from silo.vertical.joint.model import Weights
from silo.vertical.moments.content import MomentsContent
from silo.vertical.moments.feature_tasks import BasisTask, NoBasisError, PublicBasisError, fix_features
from silo.vertical.moments.files import read_moments, write_moments
from tests.contracts.federation_directories import SILOS
from tests.policies.plans.vertical.test_vertical_plan import make_vertical
from tests.silo.test_aligned_moments import DIMENSIONS, federation_of
from tests.support import vertical_federation

DEGREE = 1
GATE_EPSILON = 5.0


def people_of(friends: list[tuple[str, str]]) -> set[str]:
    """Who is in a silo's list, by the rows of its friend graph."""
    rows = pl.DataFrame(friends, schema=["user_id", "item_id"], orient="row")
    items = Catalogue.from_items(CatalogueItem(item_id=item) for item in {friend for _, friend in friends})
    interactions, _ = clean(rows, items, max_interactions_per_user=10)
    return set(People.of(interactions.user_ids, "exact", bytes(32)).user_ids)


def test_a_node_that_goes_takes_its_friends_out_of_the_list() -> None:
    """Why the gate's noise follows the degree: one unit stands behind ``1 + max_degree`` entries."""
    friends = [(f"friend-{n}", "hub") for n in range(DEGREE)] + [("hub", "friend-0"), ("other", "friend-1")]
    without = [(user, friend) for user, friend in friends if "hub" not in (user, friend)]
    assert len(people_of(friends)) - len(people_of(without)) == 1 + DEGREE


def test_nodes_of_two_graphs_add_up() -> None:
    """One person may stand in both, and take others out of the people in common through each."""
    both = make_vertical(features={"content": "user_node:2", "social": "user_node:3"}, alignment_epsilon=0.1)
    assert both.alignment is not None
    assert gate_terms(both).epsilon == both.alignment.epsilon / 2 / (1 + 2 + 3)


def graph_policy(policy: Callable[..., str], name: str, **terms: Any) -> str:
    """The last silo's dataset is a friend graph."""
    text = policy(name, **terms)
    return (
        text if name != SILOS[2] else text.replace("    population:", "    unit: user_node\n    population:")
    )


def only_with_enough_noise(
    lists: Mapping[str, Path], terms: AlignmentTerms, slots: Mapping[str, Path]
) -> Found | TooFew:
    """Match if the noise is that of a node with :data:`DEGREE` friends."""
    return find_spine(lists, terms, slots) if terms.epsilon == GATE_EPSILON / 2 / (1 + DEGREE) else TooFew()


def test_the_gate_of_a_graph_has_the_noise_of_everybody_whom_a_node_takes_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = {SILOS[1]: "user", SILOS[2]: f"user_node:{DEGREE}"}
    in_force = vertical_federation.alignment_policy
    monkeypatch.setattr(vertical_federation, "alignment_policy", partial(graph_policy, in_force))
    federation = federation_of(tmp_path, monkeypatch, features=features, alignment_epsilon=GATE_EPSILON)
    federation.match = only_with_enough_noise
    assert gate_terms(federation.plan).epsilon == GATE_EPSILON / 2 / (1 + DEGREE)
    state = federation.play(lambda board: federation.until(lambda state: state.spine_slots, board))
    assert state.spine_slots


def test_a_plan_whose_gate_would_have_too_small_an_epsilon_is_refused_before_it_runs() -> None:
    assert LEAST_GATE_EPSILON == MIN_EPSILON
    with pytest.raises(PolicyFileError, match=r"alignment\.epsilon"):
        make_vertical(features={"content": "user", "social": "user_node:2000"}, alignment_epsilon=0.1)


def test_a_write_that_a_power_cut_ended_is_erased_with_its_job(tmp_path: Path) -> None:
    """Everybody's numbers, written in part under a scratch name, outlived the job."""
    with closing(Outbox(tmp_path)) as outbox:
        kept, other = (outbox.kept_path(job, "features") for job in ("job-1", "job-11"))
        for path in (kept, other):
            with replacing(path) as file:
                scratch = Path(file.name)
            scratch.write_bytes(b"numbers of everybody")
        outbox.erase_secrets("job-1")
        left = {path.name for path in kept.parent.iterdir() if "features" in path.name}
        assert left == {other.name, scratch.name}


class GarbledSums:
    """Sends a good Gram, and coefficients beyond their primes for sums."""

    def __init__(self, content: MomentsContent, by: str) -> None:
        self._content, self._by = content, by

    async def write(self, context: JobContext, leg: Leg, target: Path) -> None:
        await self._content.write(context, leg, target)
        if context.me == self._by:
            await asyncio.to_thread(_garble, target)

    async def read(self, context: JobContext, leg: Leg, received: Mapping[str, Path]) -> None:
        await self._content.read(context, leg, received)

    async def conclude(self, context: JobContext) -> None:
        await self._content.conclude(context)


def _garble(target: Path) -> None:
    content, start = target.read_bytes(), 8 * DIMENSIONS**2
    target.write_bytes(content[:start] + b"\xff" * (len(content) - start))


def test_sums_that_are_none_end_the_job_and_do_not_hold_the_label_silo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were found in the last step only, which the label silo then tried until the job expired."""
    federation = federation_of(tmp_path, monkeypatch)
    monkeypatch.setitem(CONTENTS, LegPurpose.MOMENTS, GarbledSums(MomentsContent(), SILOS[2]))
    monkeypatch.setattr(vertical_federation, "PATIENCE_SECONDS", 60.0)
    state = federation.play(federation.until_ended)
    assert (state.outcome, state.reason) == ("cancelled", f"cancelled by {SILOS[0]}")


def test_a_no_under_one_spelling_is_heard_under_all(tmp_path: Path) -> None:
    """Ids that an alignment takes for one person are one person when they opt out."""
    (tmp_path / "rows.csv").write_text("user_id,item_id\nAnn@x.org,a\nann@x.org ,b\nbob@x.org,a\n")
    (tmp_path / "no.csv").write_text("user_id\nann@x.org\n")
    dataset = feature_dataset(exclude_users="no.csv")
    by_email = make_vertical(identifiers="email")
    assert feature_interactions(tmp_path, by_email, dataset).user_ids == ("bob@x.org",)


def test_a_no_by_telephone_is_heard_with_and_without_the_country(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id\n+4930123456,a\n030 123456,b\n030 999999,a\n")
    (tmp_path / "no.csv").write_text("user_id\n(030) 123456\n")
    dataset = feature_dataset(exclude_users="no.csv", default_region="DE")
    by_phone = make_vertical(identifiers="phone")
    assert feature_interactions(tmp_path, by_phone, dataset).user_ids == ("030 999999",)


def test_a_no_under_another_spelling_makes_no_list_either(tmp_path: Path) -> None:
    """What a list is made of leaves out whom the job left out."""
    (tmp_path / "rows.csv").write_text("user_id,item_id\n+4930123456,a\n030 123456,b\n030 999999,a\n")
    (tmp_path / "no.csv").write_text("user_id\n(030) 123456\n")
    items = Catalogue.from_items(CatalogueItem(item_id=name) for name in ("a", "b"))
    items.save(tmp_path / "catalogues")
    plan = make_vertical(identifiers="phone", catalogue_sha256=items.sha256, catalogue_items=2, label_items=2)
    dataset = feature_dataset(exclude_users="no.csv", default_region="DE")
    assert known_rows(tmp_path, plan, dataset).seen.user_ids == ("030 999999",)


def test_a_card_says_what_no_epsilon_bounds() -> None:
    assert "no epsilon bounds that" in promise(make_vertical(reveal="both"))
    assert "no epsilon bounds that" not in promise(make_vertical())


@pytest.mark.parametrize(
    "features", [{"content": "user", "social": "user_node:9999"}, {"content": "user_node:9999"}]
)
def test_noise_that_cannot_be_drawn_is_refused_with_the_plan(features: dict[str, str]) -> None:
    """Such a job failed after every silo had paid for its alignment, and was tried until it expired."""
    with pytest.raises(PolicyFileError, match="moments that cannot be made"):
        make_vertical(features=features, alignment_epsilon=2.0, label_norm=50.0)


def test_a_basis_that_fails_under_its_noise_is_not_drawn_until_one_succeeds(tmp_path: Path) -> None:
    """Each trial is a look at the rows, and how long it took shows how many there were: one is paid for."""
    plan = make_vertical(basis="public", dimensions=16)
    items = [CatalogueItem(item_id=f"i{n}", attributes=[f"kind {n % 16}"]) for n in range(64)]
    dataset = feature_dataset(item_list=Catalogue.from_items(items).save(tmp_path).name)
    task = basis_task(tmp_path, plan, dataset)
    (tmp_path / "rows.csv").write_text("user_id,item_id\nu0,i0\n")
    with pytest.raises(NoBasisError, match="no positive length") as caught:
        fix_features(task)
    assert isinstance(caught.value, _ENDS_JOB)
    crowd = [f"u{n},i{n % 64}" for n in range(1000)]  # with them any noise would do
    (tmp_path / "rows.csv").write_text("\n".join(["user_id,item_id", *crowd]))
    with pytest.raises(NoBasisError, match="gave no basis"):
        fix_features(task)
    task.failed.unlink()
    fix_features(task)
    assert task.features.exists()


def test_public_vectors_that_nobody_has_end_the_job_at_once(tmp_path: Path) -> None:
    """Which list a dataset names is fixed with the job's policy: trying until it expires mends nothing."""
    (tmp_path / "rows.csv").write_text("user_id,item_id\nu0,i0\n")
    with pytest.raises(PublicBasisError) as caught:
        fix_features(basis_task(tmp_path, make_vertical(basis="public"), feature_dataset()))
    assert isinstance(caught.value, _ENDS_JOB)


def basis_task(directory: Path, plan: Plan, dataset: Dataset) -> BasisTask:
    """Of a silo whose thousand people stand on a spine."""
    slots = SlotsTask(directory / "people", directory / "slots", 2048, bytes(32), "run")
    People.of([f"u{n}" for n in range(1000)], "exact", bytes(32)).save(slots.people)
    slots.slots.write_bytes(np.arange(2048, dtype="<u8").tobytes())
    kept = directory / "features", directory / "failed"
    return BasisTask(directory, plan, dataset, "content", 4096, slots, *kept)


def feature_dataset(**fields: str) -> Dataset:
    return Dataset.model_validate(
        {
            "source": {"csv": "rows.csv"},
            "columns": {"user_id": "user_id", "item_id": "item_id"},
            "max_interactions_per_user": 10,
            "population": "customers",
            "max_silos_per_user": 3,
            **fields,
        }
    )


def test_sums_over_people_are_for_their_silo_alone(tmp_path: Path) -> None:
    """The joint model holds the label silo's own Gram as it is, and any account could read it."""
    weights = Weights(item_ridge=1.0, normalisation=0.5)
    model = LabelModel(make_vertical(), np.arange(2), np.eye(2), np.ones(2), {}, weights)
    model.save(tmp_path / "model")
    save_basis(tmp_path / "basis", np.eye(2))
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}


def test_a_remedy_for_the_gates_epsilon_would_mend_the_plan() -> None:
    """It named 0.1, whatever the plan promised."""
    plan = make_vertical().model_dump(mode="json", exclude_unset=True)
    plan["privacy"]["target_epsilon"] = 0.05
    with pytest.raises(
        ValidationError, match=r"target_epsilon 0\.05 to the moments; write less, such as 0\.00125"
    ):
        Plan.model_validate(plan)


def test_noise_alone_makes_no_spine_without_people() -> None:
    """MATCHED has no room for a spine of no slots: the coordinator asked again until its noise said no."""
    points = np.frombuffer(os.urandom(33 * 20), dtype="V33")
    lists = {"shop": points[:10], "content": points[10:]}
    gate = {"least": -1000, "epsilon": 1.0, "source": WordSource.from_os()}
    assert find_common(lists, reveal="both", **gate) is None
    assert find_common(lists, reveal="none", **gate) is not None


@pytest.mark.parametrize("entry", [1e300, np.inf, np.nan])
def test_a_gram_of_random_bytes_is_none_whatever_its_largest_entry(tmp_path: Path, entry: float) -> None:
    """One entry in four is on the diagonal of a Gram of four features; beside it no asymmetry showed."""
    gram = np.arange(16.0).reshape(4, 4)
    gram[0, 0] = entry
    write_moments(tmp_path / "moments", gram, ())
    shape = MomentsShape(num_slots=1, num_items=1, num_features=4, max_row_norm=1.0)
    with (tmp_path / "moments").open("ab") as file:
        file.write(bytes(shape.num_sums * SUM_FRAME_BYTES))
    with pytest.raises(FrameError, match="not symmetric"):
        read_moments(tmp_path / "moments", shape)
