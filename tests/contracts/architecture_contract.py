"""What every gradient-trained architecture must keep, and how breaking it shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from policies.plans.plan import Plan
from policies.plans.price import RoundShape, schedule
from policies.sections import Section
from privacy.clipping import clip_rows
from privacy.dpsgd import PerUserGradientError
from silo.checkpoints import load_checkpoint, save_checkpoint
from silo.data.catalogue import Catalogue
from silo.models.architecture import Architecture, Batch
from silo.models.base import Family, State, get_family
from silo.models.session import TrainingSession
from silo.models.shipped import load_model
from silo.models.trainer import GradientFamily
from silo.tensor_files import load_tables, save_tables
from tests.contracts.family_contract import (
    NUM_ITEMS,
    SILOS,
    FamilyContract,
    make_catalogue,
    make_interactions,
    make_plan,
    random_histories,
)


def matrix_of(histories: list[list[int]], family: Family) -> sp.csr_matrix:
    return make_interactions(histories, family.catalogue).matrix()


def with_mean_loss(architecture: type[Architecture]) -> type[Architecture]:
    """Divide by the size of the batch: one user more changes everybody's gradient."""

    class MeanLoss(architecture):  # type: ignore[misc, valid-type]
        def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
            losses = super().loss_per_user(model, *batch)
            return losses / len(losses)

    return MeanLoss


def with_users_mixed(architecture: type[Architecture]) -> type[Architecture]:
    """Weigh each user by how the batch does on average."""

    class Mixed(architecture):  # type: ignore[misc, valid-type]
        def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
            losses = super().loss_per_user(model, *batch)
            return losses * losses.detach().mean()

    return Mixed


def with_item_level_clipping(architecture: type[Architecture]) -> type[Architecture]:
    """Give the network one row for each item of a history: items, not people, would be clipped."""

    class ItemLevel(architecture):  # type: ignore[misc, valid-type]
        def batch(self, inputs: sp.csr_matrix, targets: sp.csr_matrix) -> Batch:
            whole = super().batch(inputs, targets)
            first = sp.csr_matrix(inputs.multiply(sp.csr_matrix(np.eye(1, NUM_ITEMS))))
            one = super().batch(first, targets)
            return tuple(torch.stack([a, b], dim=1) for a, b in zip(whole, one, strict=True))

        def loss_per_user(self, model: nn.Module, *batch: Tensor) -> Tensor:
            users = len(batch[0])
            losses = super().loss_per_user(model, *(tensor.flatten(0, 1) for tensor in batch))
            return losses.reshape(users, 2).sum(dim=1)

    return ItemLevel


def most_of(model: type[Section], field: str) -> int:
    """The largest number that plans may write into a field."""
    return next(limit.le for limit in model.model_fields[field].metadata if hasattr(limit, "le"))


class ArchitectureContract(FamilyContract):
    """Inherit, say ``model`` and ``sections``, and the architecture is held to the contract.

    Attributes:
        largest: fields of the model section at their limit, those that say how many tables there are and how
            wide; what would only be slow is left small.
    """

    max_lines: ClassVar[int] = 100
    largest: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def architecture(self, family: Family) -> Architecture:
        return self.architecture_of(family, self.untrained(family))

    @pytest.fixture
    def family_over(self) -> Callable[[int], Family]:
        """The family over a list of so many items."""

        def made(num_items: int) -> Family:
            catalogue = make_catalogue(num_items)
            model = self.model | {"features": min(num_items, self.model["features"])}
            plan = make_plan(catalogue, model, **self.sections)
            return get_family(plan)(plan, catalogue)

        return made

    @staticmethod
    def architecture_of(family: Family, state: State) -> Architecture:
        assert isinstance(family, GradientFamily)
        return family.architecture(family.plan, family.catalogue, family.popularity_of(state))

    # ── per user ─────────────────────────────────────────────────────────────────────────────────────────

    def test_the_order_of_users_does_not_matter(self, family: Family, shape: RoundShape) -> None:
        histories = random_histories(2)
        forwards = self.contribution(family, shape, histories)
        backwards = self.contribution(family, shape, histories[::-1])
        # A user's gradient may differ in its last bits with the place in the batch, so a rounding may flip.
        assert np.abs(forwards - backwards).max() <= 1
        assert (forwards != backwards).mean() < 0.01

    def test_users_without_a_history_contribute_nothing(self, family: Family, shape: RoundShape) -> None:
        assert not self.contribution(family, shape, [[], [], []]).any()
        histories = random_histories(3)
        alone = self.contribution(family, shape, histories)
        np.testing.assert_allclose(self.contribution(family, shape, [[], *histories, []]), alone, atol=1)

    def test_a_row_of_a_batch_depends_on_its_user_alone(
        self, family: Family, architecture: Architecture
    ) -> None:
        histories = matrix_of(random_histories(4), family)
        everybody = architecture.batch(histories, histories)
        for user in (0, 7):
            alone = architecture.batch(histories[user : user + 1], histories[user : user + 1])
            for together, single in zip(everybody, alone, strict=True):
                np.testing.assert_allclose(together[user].numpy(), single[0].numpy(), rtol=1e-12, atol=1e-15)

    def test_what_a_user_adds_is_their_own_gradient_computed_alone(
        self, family: Family, shape: RoundShape, architecture: Architecture
    ) -> None:
        """Against a loop over single users with nothing but autograd in it."""
        assert isinstance(family, GradientFamily)
        rows, state = make_interactions(random_histories(8)[:5], family.catalogue), self.untrained(family)
        last = len(schedule(family.plan)) - 1
        found = family.contribute_each(rows, state, last, shape).toarray()
        architecture.draw(last)
        module = architecture.module()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_numpy(state[name]))
        for user, histories in enumerate(rows.histories()[number] for number in range(5)):
            loss = architecture.loss_per_user(module, *architecture.batch(histories, histories)).sum()
            parts = torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True)
            alone = torch.cat([part.flatten() for part in parts]).numpy()
            clipped = clip_rows(alone[None, :], family.max_grad_norm, family.plan.privacy.clipping)[0]
            scale = shape.grid / family.max_grad_norm
            np.testing.assert_allclose(found[user], clipped * scale, rtol=1e-7, atol=1e-7 * shape.grid)

    def test_the_network_is_float64_and_has_the_planned_size(
        self, architecture: Architecture, shape: RoundShape
    ) -> None:
        parameters = dict(architecture.module().named_parameters())
        weights = architecture.initial_weights()
        assert list(parameters) == list(weights)
        assert [tuple(p.shape) for p in parameters.values()] == [w.shape for w in weights.values()]
        assert {p.dtype for p in parameters.values()} == {torch.float64}
        assert sum(p.numel() for p in parameters.values()) == shape.values

    # ── the self-test, and what it catches ───────────────────────────────────────────────────────────────

    def test_the_self_test_passes(self, architecture: Architecture, family: Family) -> None:
        self.empty_sum(architecture, family)

    @pytest.mark.parametrize("sabotage", [with_mean_loss, with_users_mixed, with_item_level_clipping])
    def test_a_sabotaged_loss_is_caught_before_rows_are_used(
        self, family: Family, sabotage: Callable[[type[Architecture]], type[Architecture]]
    ) -> None:
        assert isinstance(family, GradientFamily)
        state = self.untrained(family)
        broken = sabotage(family.architecture)(family.plan, family.catalogue, family.popularity_of(state))
        with pytest.raises(PerUserGradientError):
            self.empty_sum(broken, family)

    @staticmethod
    def empty_sum(architecture: Architecture, family: Family) -> np.ndarray:
        session = TrainingSession(architecture, 0.5, "flat")
        session.set_weights(architecture.initial_weights())
        return session.clipped_sum(make_interactions([], family.catalogue), np.arange(0), 0)

    @pytest.mark.parametrize("num_items", [2, 3, 4])
    def test_the_self_test_passes_on_the_smallest_lists(
        self, family_over: Callable[[int], Family], num_items: int
    ) -> None:
        family_over(num_items).self_test()

    # ── scores ───────────────────────────────────────────────────────────────────────────────────────────

    def test_the_shipped_tables_score_as_the_module_does(self, family: Family) -> None:
        """The loss of a history with one single target is minus that item's log probability."""
        state = self.trained(family)
        architecture = self.architecture_of(family, state)
        module = architecture.module()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(torch.from_numpy(state[name]))
            histories = matrix_of(random_histories(5), family)
            found = np.empty(histories.shape)
            for item in range(NUM_ITEMS):
                target = sp.csr_matrix(np.tile(np.eye(NUM_ITEMS)[item], (histories.shape[0], 1)))
                found[:, item] = -architecture.loss_per_user(module, *architecture.batch(histories, target))
        scores = family.finish(state).scores(histories).astype(np.float64)
        shipped = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        # A network that reads an order asks for a seen item where it stands, in other words earlier.
        unseen = histories.toarray() == 0
        np.testing.assert_allclose(shipped[unseen], found[unseen], atol=1e-5)

    # ── state ────────────────────────────────────────────────────────────────────────────────────────────

    def test_replayed_sums_give_the_kept_state(self, family: Family) -> None:
        kept, sums = family.initial_state(), []
        for round_index, shape in enumerate(schedule(family.plan)):
            sums.append(self.noised_sum(family, shape, kept, round_index))
            kept = family.absorb(kept, sums[-1], round_index, shape, len(SILOS))
        twin = type(family)(family.plan, family.catalogue)
        replayed = twin.initial_state()
        for round_index, shape in enumerate(schedule(family.plan)):
            replayed = twin.absorb(replayed, sums[round_index], round_index, shape, len(SILOS))
        assert kept.keys() == replayed.keys()
        for name, table in kept.items():
            assert table.tobytes() == replayed[name].tobytes()
        rows = make_interactions(random_histories(6), family.catalogue)
        last = len(sums) - 1
        shape = schedule(family.plan)[last]
        np.testing.assert_array_equal(
            family.contribute(rows, kept, last, shape), twin.contribute(rows, replayed, last, shape)
        )

    def test_training_starts_again_from_a_checkpoint(self, family: Family) -> None:
        state = self.trained(family)
        checkpoint = family.checkpoint(state)
        assert checkpoint is not None
        later = type(family)(family.plan, family.catalogue, start=checkpoint).initial_state()
        fresh = family.initial_state()
        assert later.keys() == fresh.keys()
        for name in checkpoint.keys() & later.keys():
            assert later[name].tobytes() == state[name].tobytes()
            assert not np.array_equal(later[name], fresh[name])

    def test_the_largest_plan_leaves_files_that_load(
        self, plan: Plan, catalogue: Catalogue, tmp_path: Path
    ) -> None:
        document = plan.model_dump(mode="json", exclude_unset=True)
        document["model"] |= self.largest
        document["privacy"]["grid"] = 1 << 14  # more values round more
        large = Plan.model_validate(document)
        family = get_family(large)(large, catalogue)
        state = self.untrained(family)
        save_tables(tmp_path / "state", "state/v1", state, {})
        kept, _ = load_tables(tmp_path / "state", "state/v1")
        assert {name: kept[name].tobytes() for name in kept} == {
            name: values.tobytes() for name, values in state.items()
        }
        checkpoint = family.checkpoint(state)
        assert checkpoint is not None
        save_checkpoint(tmp_path / "checkpoint", checkpoint, family=family.name)
        start = load_checkpoint(tmp_path / "checkpoint")
        later = type(family)(large, catalogue, start=start).initial_state()
        assert all(np.array_equal(later[name], state[name]) for name in start.keys() & state.keys())
        model = family.finish(state)
        model.save(tmp_path / "model")
        histories = make_interactions(random_histories(3)[:2], catalogue).histories()
        np.testing.assert_array_equal(
            load_model(tmp_path / "model").scores(histories), model.scores(histories)
        )

    def test_the_local_loss_falls_with_training(self, family: Family) -> None:
        rows = make_interactions([*random_histories(0, num_users=60), []], family.catalogue)
        state = self.untrained(family)
        before = family.local_loss(rows, state)
        for round_index, shape in enumerate(schedule(family.plan)):
            if shape.purpose == "training":
                sums = len(SILOS) * family.contribute(rows, state, round_index, shape)
                state = family.absorb(state, sums, round_index, shape, len(SILOS))
        after = family.local_loss(rows, state)
        assert before is not None
        assert after is not None
        assert after < before
        assert family.local_loss(make_interactions([[]], family.catalogue), state) is None

    def test_the_architecture_is_short(self, family: Family) -> None:
        """What is common belongs into the trainer."""
        assert isinstance(family, GradientFamily)
        assert len(inspect.getsourcelines(inspect.getmodule(family.architecture))[0]) < self.max_lines
