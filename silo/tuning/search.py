"""A search of a plan's numbers on public rows, and whether its winner is one.

Trial 0 is the plan as it is, so the search has something to beat, and its time is the estimate of all others.
The best of many noisy figures flatters itself. So plan and winner are learnt again, several times with fresh
noise, and measured by test people, who had no part in the search. They are asked one question: is the winner
better by more than chance? A figure that passes this is still a little flattered, by having passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from policies.plans.plan import Plan
from privacy.errors import ArchipelError, UsageError
from silo.evaluation import METRICS
from silo.tuning.space import Dimension, dimensions, values_of, with_values
from silo.tuning.world import PublicWorld, learn, popularity_score, public_plan, scores

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

REPEATS: Final = 3
"""How often plan and winner are learnt again before one of them is proposed."""

CLEAR: Final = 2.0
"""Standard errors by which a winner must lead to be proposed."""

GIVEN: Final = "the plan as it is"
WINNER: Final = "the winner of the search"

Notice = Callable[[str], None]


class NothingToTuneError(UsageError):
    """A plan without a number that could be searched."""

    code = "nothing_to_tune"


@dataclass(frozen=True)
class Tried:
    """One trial.

    Attributes:
        number: 0 is the plan as it is.
        values: what was tried.
        value: of the metric, on validation people; None where such a plan cannot be.
        seconds: that it took.
        problem: why it cannot be, else None.
    """

    number: int
    values: dict[str, float]
    value: float | None
    seconds: float
    problem: str | None = None


@dataclass(frozen=True)
class Repeated:
    """One setting learnt ``REPEATS`` times; mean and sample standard deviation of the metric.

    Attributes:
        values: the setting.
        validation: of the people by whom the trials were compared.
        validation_std: over the repeats.
        test: of people who had no part in the search.
        test_std: over the repeats.
    """

    values: dict[str, float]
    validation: float
    validation_std: float
    test: float
    test_std: float


@dataclass(frozen=True)
class Lead:
    """By how much the winner is better than the plan, on test people.

    Attributes:
        value: mean difference of a person's metric, over people and repeats.
        standard_error: of it, of which people these are and of the noise of the repeats together.
    """

    value: float
    standard_error: float

    @classmethod
    def of(cls, given: NDArray[np.float64], winner: NDArray[np.float64]) -> Lead:
        """The lead by metrics of the same people, both repeats × people; two of each at least."""
        differences = winner.mean(axis=0) - given.mean(axis=0)
        people = differences.var(ddof=1) / differences.size
        # One run's noise moves everybody at once, which differences between people do not show.
        noise = sum(each.mean(axis=1).var(ddof=1) / len(each) for each in (given, winner))
        return cls(float(differences.mean()), sqrt(people + noise))

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance alone brings in about one time of forty."""
        return self.value > 0 and self.value >= CLEAR * self.standard_error


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        metric: what is searched by.
        dimensions: what is searched.
        trials: in order.
        repeated: ``GIVEN`` and, where the search found another best, ``WINNER``.
        lead: of the winner; None where nothing beat the plan.
        chosen: which of the two is proposed: the winner where its lead is clear.
        popularity: of counting without noise, on the test people.
    """

    metric: str
    dimensions: tuple[Dimension, ...]
    trials: tuple[Tried, ...]
    repeated: dict[str, Repeated]
    lead: Lead | None
    chosen: str
    popularity: float


class Search:
    """Trials of one plan in one world.

    Args:
        plan: as it would be proposed; its catalogue need not be the world's.
        world: public.
        metric: one of ``silo.evaluation.METRICS`` that every person has.
        seed: of the proposals, never of noise: the same seed need not find the same.

    Raises:
        UsageError: a vertical plan, or no such metric.
        NothingToTuneError: the plan has no number to search.
    """

    def __init__(self, plan: Plan, world: PublicWorld, metric: str, seed: int) -> None:
        if metric not in METRICS or metric.startswith("coverage"):
            raise UsageError(f"{metric} is no metric of a person", where="--metric", remedy="such as ndcg@20")
        self.world, self.metric = world, metric
        self.plan = public_plan(plan, world)
        self.dimensions = dimensions(self.plan)
        if not self.dimensions:
            raise NothingToTuneError(f"a plan of family {plan.model.family} has no number to search")
        self._study = _study(seed)
        own = values_of(self.plan)
        first = {each.path: each.in_steps(own[each.path]) for each in self.dimensions}
        self._study.enqueue_trial(first, skip_if_exists=True)
        self.trials: list[Tried] = []

    def try_next(self) -> Tried:
        """Learn and measure once more, where the trials before suggest."""
        import optuna

        trial = self._study.ask()
        values = {dimension.path: _suggest(trial, dimension) for dimension in self.dimensions}
        start, value, problem = time.perf_counter(), None, None
        try:
            model = learn(with_values(self.plan, values), self.world)
            value = _mean(scores(model, self.world, self.world.validation, self.metric))
        except ArchipelError as error:
            problem = error.message
        tried = Tried(len(self.trials), values, value, time.perf_counter() - start, problem)
        failed = optuna.trial.TrialState.FAIL
        self._study.tell(trial, value, state=None if problem is None else failed)
        self.trials.append(tried)
        return tried

    def best(self) -> Tried:
        """The best trial so far; of equals the earliest, so the plan as it is where nothing beats it.

        Raises:
            NothingToTuneError: no trial could be.
        """
        usable = [tried for tried in self.trials if tried.value is not None]
        if not usable:
            raise NothingToTuneError(
                f"no trial of this plan could be: {self.trials[0].problem}",
                remedy="try it on a larger public set: --people or --data",
            )
        return max(usable, key=lambda tried: (tried.value, -tried.number))

    def confirm(self, notice: Notice) -> Found:
        """Learn plan and winner again with fresh noise; the winner is chosen where its lead is clear."""
        best, given = self.best(), values_of(self.plan)
        floor = popularity_score(self.world, self.world.test, self.metric)
        own, of_plan = self._repeat(GIVEN, given, notice)
        repeated, lead, chosen = {GIVEN: own}, None, GIVEN
        if best.number and best.values != given:
            repeated[WINNER], of_winner = self._repeat(WINNER, best.values, notice)
            lead = Lead.of(of_plan, of_winner)
            chosen = WINNER if lead.is_clear else GIVEN
        return Found(self.metric, self.dimensions, tuple(self.trials), repeated, lead, chosen, floor)

    def _repeat(
        self, name: str, values: dict[str, float], notice: Notice
    ) -> tuple[Repeated, NDArray[np.float64]]:
        """What came of a setting, and its metric of the test people: repeats × people."""
        plan = with_values(self.plan, values)
        validation, test = [], []
        for number in range(REPEATS):
            notice(f"{name}, again: {number + 1} of {REPEATS}")
            model = learn(plan, self.world)
            validation.append(_mean(scores(model, self.world, self.world.validation, self.metric)))
            test.append(scores(model, self.world, self.world.test, self.metric))
        tests = [_mean(metrics) for metrics in test]
        again = Repeated(values, _mean(validation), _std(validation), _mean(tests), _std(tests))
        return again, np.array(test)


def total_seconds(first: Tried, trials: int) -> float:
    """About how long a search takes whose first trial took so long, what is learnt again included."""
    return first.seconds * (trials + 2 * REPEATS)


def _study(seed: int) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))


def _suggest(trial: Trial, dimension: Dimension) -> float:
    low, high = dimension.low, dimension.high
    if dimension.is_whole:
        # In steps, as a logarithmic scale has none of its own.
        ends = (int(dimension.in_steps(low)), int(dimension.in_steps(high)))
        return dimension.step * trial.suggest_int(dimension.path, *ends, log=dimension.is_log)
    return trial.suggest_float(dimension.path, low, high, log=dimension.is_log)


def _mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    return float(np.mean(values))


def _std(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))
