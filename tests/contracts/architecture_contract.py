"""What every gradient-trained architecture must keep, and how breaking it shows."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from policies.plans.price import RoundShape, schedule
from privacy.clipping import clip_rows
from privacy.dpsgd import PerUserGradientError
from silo.models.architecture import Architecture, Batch
from silo.models.base import Family, State
from silo.models.session import TrainingSession
from silo.models.trainer import GradientFamily
from tests.contracts.family_contract import (
    NUM_ITEMS,
    SILOS,
    FamilyContract,
    make_interactions,
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


class ArchitectureContract(FamilyContract):
    """Inherit, say ``model`` and ``sections``, and the architecture is held to the contract."""

    max_lines: ClassVar[int] = 100

    @pytest.fixture
    def architecture(self, family: Family) -> Architecture:
        return self.architecture_of(family, self.untrained(family))

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
