"""People in session: they bring the shop tokens of its partners, and it asks through the coordinator.

A sample, not everybody: a partner's policy bounds the questions of an hour, and its agent answers with the
same function that the harness calls for all others. How far both differ is measured here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from federation.client import dial
from federation.identity import Party
from federation.questions import NoAnswerError, NotAnsweringError
from policies.files import load_charter
from silo.demo.processes import Processes
from silo.demo.vertical.dataset import VerticalData
from silo.demo.vertical.settings import LABEL_SILO
from silo.demo.world import World
from silo.vertical.artefacts import load_feature_basis
from silo.vertical.joint.model import Vector
from silo.vertical.serving.asking import FeatureClient
from silo.vertical.serving.issuing import issue_consent

SAMPLED: Final = 8
"""People of each partner."""
WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Sessions:
    """What became of the sample.

    Attributes:
        asked: questions, one for each person and partner.
        answered: of them.
        largest_difference: between a number of an answer and the same made in the partner's directory.
    """

    asked: int
    answered: int
    largest_difference: float


def hold_sessions(world: World, data: VerticalData, job: str, processes: Processes) -> dict[str, Any]:
    """Ask with the tokens of a few people, then type what the shop would for one of them.

    Raises:
        NotAnsweringError: a partner's agent does not answer anybody, for ``WAIT_SECONDS``.
        FeaturesDeniedError: it denies a token that it has just issued.
        CommandFailedError: a process ended, or a command did not succeed.
    """
    customers = data.members(LABEL_SILO)
    asked, differences = 0, [0.0]
    for partner in data.partners:
        both = np.intersect1d(customers, data.members(partner.name))
        people = [data.people[person] for person in both[:: max(1, both.size // SAMPLED)][:SAMPLED]]
        answers = asyncio.run(_ask(world, partner.name, people, job, processes))
        made = load_feature_basis(world.silo(partner.name), job).features(people)
        asked += len(people)
        differences.append(float(np.abs(np.array(answers) - made).max(initial=0.0)))
    _type_commands(world, data, job, processes)
    return asdict(Sessions(asked, asked, max(differences)))


async def _ask(
    world: World, partner: str, people: Sequence[str], job: str, processes: Processes
) -> list[Vector]:
    """The numbers that a partner's agent answers for some people, each with a fresh token."""
    directory, plan = world.silo(LABEL_SILO), world.plan()
    party, charter = Party.load(directory), load_charter(directory, datetime.now(UTC))
    connection = dial(party, charter)
    client = FeatureClient(connection, party, charter, job=job, plan=plan)
    deadline = time.monotonic() + WAIT_SECONDS
    answers: list[Vector] = []
    try:
        while len(answers) < len(people):
            person = people[len(answers)]
            issued = issue_consent(world.silo(partner), person, audience=LABEL_SILO, purpose=plan.purpose)
            try:
                answers.append(await client.features(partner, issued.token, now=datetime.now(UTC)))
            except (NotAnsweringError, NoAnswerError):
                processes.check()
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.5)
    finally:
        await connection.close()
    return answers


def _type_commands(world: World, data: VerticalData, job: str, processes: Processes) -> None:
    """One person of all silos: a token of each partner, then a list at the shop."""
    everywhere = set(data.members(LABEL_SILO).tolist()).intersection(
        *(data.members(partner.name).tolist() for partner in data.partners)
    )
    if not everywhere:
        return
    person, purpose = data.people[min(everywhere)], world.plan().purpose
    brought: list[str] = []
    for partner in data.partners:
        token = world.root / f"token-of-{partner.name}.json"
        processes.command(
            "consent", "issue", person, "--for", LABEL_SILO, "--purpose", purpose,
            "--dir", world.silo(partner.name), "--json", token,
        )  # fmt: skip
        brought += ["--consent", str(token)]
    processes.command(
        "recommend", "--user", person, "-k", "10", *brought, "--job", job[:8],
        "--dir", world.silo(LABEL_SILO), "--json", world.root / "list-in-session.json",
    )  # fmt: skip
