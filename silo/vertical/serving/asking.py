"""The label silo asks a feature silo for the numbers of a person in session who brought it that silo's token.

The question goes through the coordinator, sealed. Nobody is named in it: the token is a word that only its
issuer can look up. What comes back is as personal as the person's row at the feature silo: it is used for one
list and kept nowhere.
"""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt

from federation.identity import Party
from federation.questions import FeatureAnswer, KeyOffer
from federation.transport.base import Connection
from policies.charters.charter import Charter
from policies.plans.models import CrossMomentsModel, PrivateEncoderModel
from policies.plans.plan import Plan
from policies.silo_policy import SiloPolicy
from privacy.errors import DeniedError, ProtocolError, UsageError
from privacy.questions import Asking, Direction, QuestionSealError
from silo.release import ask_for_features

ANSWER_WITHIN_SECONDS = 20.0


class ServingDeniedError(DeniedError):
    """This silo's own policy does not let it ask other silos about a person."""

    code = "serving_denied"


class FeaturesDeniedError(DeniedError):
    """A feature silo gives no numbers for this token; it does not say why."""

    code = "features_denied"


class FeatureClient:
    """Asks the feature silos of one job.

    Args:
        connection: to the coordinator.
        party: the label silo.
        charter: in force.
        job: its full id.
        plan: the job's.
    """

    def __init__(
        self, connection: Connection, party: Party, charter: Charter, *, job: str, plan: Plan
    ) -> None:
        self._connection = connection
        self._party = party
        self._charter = charter
        self._job = job
        self._plan = plan

    async def features(self, silo: str, token: str, *, now: datetime) -> npt.NDArray[np.float64]:
        """Return what ``silo`` knows of the person who brought ``token``.

        Args:
            silo: a feature silo of the job.
            token: as the person brought it; spent by this, whatever comes back.
            now: aware.

        Returns:
            (k,) float64.

        Raises:
            UsageError: not a feature silo of the job, or no token.
            FeaturesDeniedError: it gives none.
            NotAnsweringError, NoAnswerError: nobody answers, or not in time.
            OfferError, QuestionSealError: on the way somebody altered something.
            ProtocolError: the answer is not one of this job's.
        """
        offered = await self._offered(silo, now)
        try:
            answer = await self._ask(silo, offered, token)
        except QuestionSealError:
            # An agent that started anew in between has another key; nobody else's answer is tried twice.
            if (newer := await self._offered(silo, now)) == offered:
                raise
            answer = await self._ask(silo, newer, token)
        if answer.features is None:
            raise FeaturesDeniedError(
                f"{silo} gives no numbers for this token",
                remedy="ask the person for a new one; if it repeats, ask that silo's administrators",
            )
        if len(answer.features) != self._dimensions:
            raise ProtocolError(f"{silo} answered {len(answer.features)} numbers, not {self._dimensions}")
        return np.array(answer.features)

    @property
    def _dimensions(self) -> int:
        model = self._plan.model
        return model.dimensions if isinstance(model, CrossMomentsModel | PrivateEncoderModel) else 0

    async def _offered(self, silo: str, now: datetime) -> bytes:
        member = self._charter.member(silo)
        if member is None or self._plan.roles is None or silo not in self._plan.roles.features:
            raise UsageError(
                f"{silo} is no feature silo of this job",
                where="--consent",
                remedy=f"they are: {', '.join(self._plan.roles.features) if self._plan.roles else 'none'}",
            )
        return KeyOffer.parse(await self._connection.offer_of(silo)).verify(silo, member.identity_key, now)

    async def _ask(self, silo: str, offered: bytes, token: str) -> FeatureAnswer:
        asking = Asking(Direction(self._party.name, silo), offered)
        question = ask_for_features(
            self._job, token, transcript=asking.transcript, identity=self._party.identity
        )
        sealed = asking.seal(question.to_bytes(), self._job)
        answer = await self._connection.ask(silo, sealed, ANSWER_WITHIN_SECONDS)
        return FeatureAnswer.parse(asking.open(answer))


def require_asking(policy: SiloPolicy) -> None:
    """Accept that this silo takes people's tokens to other silos.

    Raises:
        ServingDeniedError: its policy serves from its own rows only.
    """
    if not policy.serving.asks:
        instead = "leave the token out, or sign a policy with serving: {mode: consented_session}"
        merge = "begin the list with `archipel merge start`: the person's device adds what partners give them"
        raise ServingDeniedError(
            f"this silo's policy serves with {policy.serving.mode}: no other silo is asked about a person",
            where="serving.mode",
            remedy=merge if policy.serving.merges else instead,
        )
