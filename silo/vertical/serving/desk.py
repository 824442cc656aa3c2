"""Recommendations at the label silo of a vertical job, with what partners say of a person who consented.

Without a token the label silo's own rows are all there is (``own_features_only``); after a job with a private
encoder, also the numbers that its partners released then, noised and paid for (``dp_release``). With a token,
the partner that issued it is asked (``consented_session``). A partner that gives nothing is left out, and the
list says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from federation.questions import NoAnswerError, NotAnsweringError
from federation.transport.base import UnreachableError
from federation.transport.connection import Patience, WireConnection
from federation.transport.grpc_client import connect
from privacy.errors import ArchipelError, UsageError
from silo.config import load_config
from silo.finished import MODEL_FILE as HORIZONTAL_FILE
from silo.finished import NoModelError, job_terms
from silo.rows import KnownRows, SourceStamp, known_rows, plan_catalogue, source_stamp
from silo.running import endpoint_of
from silo.serving import Fallback, Recommendation
from silo.site import Site
from silo.vertical.artefacts import BASIS_FILE, MODEL_FILE, load_label_model
from silo.vertical.encoder.top_files import TOP_FILE, KeptTopModel, load_top_model
from silo.vertical.joint.model import Vector
from silo.vertical.merging.keys import KEYS_FILE
from silo.vertical.serving.asking import (
    FeatureClient,
    FeaturesDeniedError,
    ServingDeniedError,
    require_asking,
)
from silo.vertical.serving.tokens import read_tokens

Given = Literal["no token", "released", "answered", "denied", "unreachable"]
PATIENCE_SECONDS = 10.0


@dataclass(frozen=True)
class ServedList:
    """The best new items of one person.

    Attributes:
        job: whose model.
        rows: by rank.
        partners: what each feature silo said of the person.
        fallback: ``unknown-user`` where nobody knows the person and the list is by popularity, else None.
        merges: whether the person's own device may add what partners know (``archipel merge``).
    """

    job: str
    rows: tuple[Recommendation, ...]
    partners: Mapping[str, Given]
    fallback: Fallback | None
    merges: bool = False

    @property
    def mode(self) -> str:
        """Whose numbers are in the list: see this module."""
        said = set(self.partners.values())
        if "answered" in said:
            return "consented_session"
        return "dp_release" if "released" in said else "own_features_only"

    def to_json(self, user_id: str) -> dict[str, Any]:
        """What ``recommend`` writes as JSON for ``user_id``."""
        return {
            "job": self.job,
            "user_id": user_id,
            "serving_mode": self.mode,
            "partners": dict(self.partners),
            "merges_on_device": self.merges,
            "fallback": self.fallback,
            "items": [asdict(row) for row in self.rows],
        }


def find_vertical_job(directory: Path, job: str | None) -> str | None:
    """The full id of the newest job that left a model here, if it is a vertical one's; None if it is not.

    Args:
        directory: the silo's.
        job: beginning of the id, or None for any.

    Raises:
        NoModelError: the beginning fits several jobs, or only a job whose model another silo has.
    """
    found = [path for name in (HORIZONTAL_FILE, MODEL_FILE, BASIS_FILE)
             for path in (directory / "jobs").glob(f"*/{name}")
             if path.parent.name.startswith(job or "")]  # fmt: skip
    if job is not None and len({path.parent for path in found}) > 1:
        raise NoModelError(f"several jobs begin with {job}", remedy="write more of the job's id")
    models = [path for path in found if path.name != BASIS_FILE]
    if found and not models:
        raise NoModelError(
            "the model of a vertical job is at its label silo; here are the features that it asks for",
            where=str(found[0].parent),
            remedy="ask for recommendations there",
        )
    newest = max(models, key=lambda path: path.stat().st_mtime, default=None)
    return None if newest is None or newest.name != MODEL_FILE else newest.parent.name


def require_vertical_job(directory: Path, job: str | None) -> str:
    """The full id of the newest vertical job that left a model here; argument and errors as above.

    Raises:
        NoModelError: the newest job, or the one named, is none.
    """
    found = find_vertical_job(directory, job)
    if found is None:
        raise NoModelError(
            "no vertical job has left a model here, or another is newer",
            where=str(directory / "jobs"),
            remedy="name a vertical job with --job; see `archipel silo status`",
        )
    return found


class LabelDesk:
    """Makes lists at the label silo; a shop's own server keeps one, the command makes one list with it.

    Model, rows and connection are kept between lists; rows are read again when their files have changed.
    One desk serves one event loop.

    Args:
        directory: the label silo's.
        job: full id of a vertical job.

    Attributes:
        directory: the label silo's.
        job: full id.
        model: the job's.
        catalogue: what it ranks.
        partners: the job's feature silos.

    Raises:
        NoModelError: the job left no model here.
    """

    def __init__(self, directory: Path, job: str) -> None:
        self.directory = directory
        self.job = job
        self.model = load_label_model(directory, job)
        _, _, self._dataset = job_terms(directory / "jobs" / job)
        self.catalogue = plan_catalogue(directory, self.model.plan)
        has_network = (directory / "jobs" / job / TOP_FILE).exists()
        self._top = load_top_model(directory, job) if has_network else None
        self._known = {user_id for user_id, _ in self._top.user_ids} if self._top else set()
        self._rows: tuple[SourceStamp, KnownRows] | None = None
        self._connection: WireConnection | None = None
        self.partners = tuple(self.model.partners)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def recommend(self, user_id: str, k: int, tokens: Mapping[str, str] | None = None) -> ServedList:
        """Rank what ``user_id`` has not had, with the numbers of partners whose token the person brought.

        Args:
            user_id: as in this silo's own data; never sent anywhere.
            k: length of the list, at least 1.
            tokens: by the feature silo that issued them; each is spent by this, whatever comes back.

        Raises:
            UsageError: ``k`` below 1, or a token of no feature silo of the job.
            ServingDeniedError: there are tokens, and this silo's policy does not let it ask.
            TrustError: on the way to a partner somebody altered something.
        """
        if k < 1:
            raise UsageError(f"a list of {k} items cannot be made", where="-k", remedy="ask for at least 1")
        features, given = await self.ask(tokens or {})
        known = self.known()
        seen, liked = known.seen.of(user_id), known.liked.of(user_id)
        if self._top is not None and user_id in self._known and not features:
            ranked = self._by_released_numbers(self._top, user_id, seen, liked, k)
            given |= {silo: "released" for silo, said in given.items() if said == "no token"}
        else:
            ranked = self.model.recommend(liked, features, top=k, seen=seen)
        items = self.catalogue.items
        rows = tuple(
            Recommendation(user_id, items[item].item_id, items[item].title, score, rank)
            for rank, (item, score) in enumerate(ranked, 1)
        )
        return ServedList(self.job, rows, given, None if seen.size or features else "unknown-user")

    @staticmethod
    def _by_released_numbers(
        top: KeptTopModel, user_id: str, seen: npt.NDArray[np.int64], liked: npt.NDArray[np.int64], k: int
    ) -> list[tuple[int, float]]:
        """The best new items by the network that reads what partners released in the job, the best first."""
        items, scores = top.label.items, top.scores(user_id, liked)
        fresh = np.flatnonzero(~np.isin(items, seen))
        best = fresh[np.argsort(-scores[fresh], kind="stable")[:k]]
        return [(int(items[place]), float(scores[place])) for place in best]

    async def ask(self, tokens: Mapping[str, str]) -> tuple[dict[str, Vector], dict[str, Given]]:
        """What partners say of the one person who brought these tokens, and what became of each token.

        Raises: as :meth:`recommend`.
        """
        given: dict[str, Given] = dict.fromkeys(self.partners, "no token")
        if not tokens:
            return {}, given
        with Site(self.directory) as site:
            law, now, party, charter = site.law(), site.now(), site.party, site.charter
            endpoint = endpoint_of(site, load_config(self.directory))
        require_asking(law.policy)
        if law.hold is not None:
            raise ServingDeniedError(law.hold.why, where="policy.yaml", remedy=law.hold.remedy)
        if self._connection is None:
            self._connection = connect(endpoint, patience=Patience(total_seconds=PATIENCE_SECONDS))
        client = FeatureClient(self._connection, party, charter, job=self.job, plan=self.model.plan)
        found: dict[str, Vector] = {}

        async def ask(silo: str, token: str) -> None:
            try:
                found[silo], given[silo] = await client.features(silo, token, now=now), "answered"
            except FeaturesDeniedError:
                given[silo] = "denied"
            except (NotAnsweringError, NoAnswerError, UnreachableError):
                given[silo] = "unreachable"

        for outcome in await asyncio.gather(
            *(ask(silo, token) for silo, token in tokens.items()), return_exceptions=True
        ):
            if outcome is not None:
                raise outcome
        return found, given

    def known(self) -> KnownRows:
        """The label silo's rows; read again when their files have changed."""
        stamp = source_stamp(self.directory, self._dataset)
        if self._rows is None or self._rows[0] != stamp:
            self._rows = stamp, known_rows(self.directory, self.model.plan, self._dataset)
        return self._rows[1]


async def serve(
    directory: Path, job: str, user_id: str, k: int, *, files: Sequence[str], words: Sequence[str]
) -> ServedList:
    """One list for who types the command; see :func:`~silo.vertical.serving.tokens.read_tokens`."""
    async with LabelDesk(directory, job) as desk:
        served = await desk.recommend(user_id, k, read_tokens(files, words, desk.partners))
    return replace(served, merges=_merges(directory, job))


def _merges(directory: Path, job: str) -> bool:
    """Whether this silo begins lists of the job for people's own devices."""
    if not (directory / "jobs" / job / KEYS_FILE).exists():
        return False
    try:
        with Site(directory) as site:
            return site.law().policy.serving.merges
    except ArchipelError:
        # A list of this silo's own rows needs no policy in force; a merge does.
        return False
