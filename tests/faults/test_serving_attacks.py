"""Label silos that want more than a person allowed; a coordinator that would read what it carries."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from federation.coordinator import Coordinator
from federation.questions import KeyOffer, NoAnswerError, NotAnsweringError, OfferError, Question
from federation.quotas import OverQuotaError
from federation.transport.connection import Patience
from federation.transport.inprocess import Faults, connect_in_process
from policies.freezing import FREEZE_FILE
from privacy.agreement import EphemeralKey
from privacy.errors import ArchipelError, ProtocolError, UsageError
from privacy.questions import ANSWER_BYTES, QUESTION_BYTES, Asking, Direction, QuestionSealError
from silo.vertical.serving import answering
from silo.vertical.serving.asking import FeatureClient, FeaturesDeniedError
from silo.vertical.serving.consent import ConsentBook
from silo.vertical.serving.issuing import ConsentNotOfferedError
from tests.support.serving_scene import (
    FEATURE,
    JOB,
    LABEL,
    OTHER,
    PURPOSE,
    ServingScene,
    make_serving_scene,
    serving_plan,
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> ServingScene:
    return make_serving_scene(tmp_path_factory.mktemp("serving"))


@pytest.fixture
def fresh(tmp_path: Path) -> ServingScene:
    return make_serving_scene(tmp_path)


def counted(scene: ServingScene, silo: str = FEATURE) -> dict[str, int]:
    """What the feature silo's own people see of it."""
    with scene.site(silo) as site, ConsentBook(site.directory / "consent.db") as book:
        counts: dict[str, int] = {}
        for _, _, outcome, count in book.counts(site.now().date() - timedelta(days=2)):
            counts[outcome] = counts.get(outcome, 0) + count
        return counts


def outcome_of(scene: ServingScene, attack: Callable[[Any], Any], *answering: str, **hub: Any) -> set[str]:
    """Run an attack that must be denied; returns the reasons that were counted for it."""
    before = counted(scene)

    async def play() -> None:
        async with scene.running(*answering, **hub) as service:
            with pytest.raises(FeaturesDeniedError) as caught:
                await attack(service)
            assert str(caught.value) == str(denied_for(FEATURE))

    asyncio.run(play())
    return {name for name, count in counted(scene).items() if count > before.get(name, 0)}


def denied_for(silo: str) -> FeaturesDeniedError:
    return FeaturesDeniedError(
        f"{silo} gives no numbers for this token",
        remedy="ask the person for a new one; if it repeats, ask that silo's administrators",
    )


class TestTokens:
    def test_a_token_that_is_replayed(self, scene: ServingScene) -> None:
        async def attack(hub: Any) -> None:
            token = scene.issue().token
            assert np.allclose(await scene.ask(hub, token), scene.numbers(FEATURE, "anna"), atol=1e-12)
            await scene.ask(hub, token)

        assert outcome_of(scene, attack) == {"answered", "redeemed"}

    def test_a_token_that_has_expired(self, scene: ServingScene) -> None:
        token = scene.issue().token
        scene.shift[FEATURE] = timedelta(minutes=11)
        try:
            assert outcome_of(scene, lambda hub: scene.ask(hub, token)) == {"expired"}
        finally:
            scene.shift.clear()

    def test_a_token_that_was_made_for_another_silo(self, scene: ServingScene) -> None:
        token = scene.issue_unchecked("anna", OTHER, PURPOSE)
        assert outcome_of(scene, lambda hub: scene.ask(hub, token)) == {"audience"}

    def test_a_token_that_was_made_for_another_purpose(self, scene: ServingScene) -> None:
        token = scene.issue_unchecked("anna", LABEL, "credit-scoring")
        assert outcome_of(scene, lambda hub: scene.ask(hub, token)) == {"purpose"}

    def test_a_token_that_another_feature_silo_made(self, scene: ServingScene) -> None:
        token = scene.issue(by=OTHER).token
        assert outcome_of(scene, lambda hub: scene.ask(hub, token)) == {"unknown"}

    def test_a_token_that_nobody_made(self, scene: ServingScene) -> None:
        assert outcome_of(scene, lambda hub: scene.ask(hub, "archipel-consent-v1.guess")) == {"unknown"}

    def test_a_label_silo_that_guesses(self, fresh: ServingScene) -> None:
        fresh.sign(FEATURE, mode="consented_session", answers={LABEL: [PURPOSE]}, max_requests_per_hour=3)

        async def attack(hub: Any) -> None:
            for number in range(3):
                with pytest.raises(FeaturesDeniedError):
                    await fresh.ask(hub, f"guess-{number}")
            await fresh.ask(hub, fresh.issue().token)

        assert outcome_of(fresh, attack) == {"unknown", "too_many_requests"}

    def test_words_that_are_no_token_are_not_even_sent(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running() as hub:
                for word in ("", "x" * 129):
                    with pytest.raises(UsageError, match="no consent token"):
                        await scene.ask(hub, word)

        asyncio.run(play())


class TestJobs:
    def test_a_job_that_nobody_knows(self, scene: ServingScene) -> None:
        token = scene.issue().token
        assert outcome_of(scene, lambda hub: scene.ask(hub, token, job="cd" * 16)) == {"job"}

    def test_a_token_that_was_made_for_another_jobs_purpose(self, fresh: ServingScene) -> None:
        """The purpose is that of the plan that the answering silo accepted, not what the asker says."""
        other = "cd" * 16
        fresh.finish(FEATURE, other, serving_plan(purpose="ranking-of-offers"))
        token = fresh.issue().token
        assert outcome_of(fresh, lambda hub: fresh.ask(hub, token, job=other)) == {"policy"}
        fresh.sign(
            FEATURE, mode="consented_session", answers={LABEL: [PURPOSE, "ranking-of-offers"]},
            purposes={PURPOSE: "purchases", "ranking-of-offers": "purchases"},
        )  # fmt: skip
        fresh.finish(FEATURE, other, serving_plan(purpose="ranking-of-offers"))
        assert outcome_of(fresh, lambda hub: fresh.ask(hub, token, job=other)) == {"purpose"}

    def test_a_job_in_which_the_asker_is_no_label_silo(self, fresh: ServingScene) -> None:
        fresh.sign(FEATURE, mode="consented_session", answers={LABEL: [PURPOSE], OTHER: [PURPOSE]})
        token = fresh.issue(audience=OTHER).token
        assert outcome_of(fresh, lambda hub: fresh.ask(hub, token, by=OTHER)) == {"job"}

    @pytest.mark.parametrize("outcome", ["cancelled", "failed", None])
    def test_a_job_that_has_not_been_completed(self, scene: ServingScene, outcome: str | None) -> None:
        job = "ef" * 16
        scene.finish(FEATURE, job, scene.plan, outcome=outcome)
        token = scene.issue().token
        assert outcome_of(scene, lambda hub: scene.ask(hub, token, job=job)) == {"job"}

    def test_a_job_whose_basis_is_gone_reads_like_any_other_denial(self, scene: ServingScene) -> None:
        job = "0f" * 16
        scene.finish(FEATURE, job, scene.plan)
        token = scene.issue().token
        assert outcome_of(scene, lambda hub: scene.ask(hub, token, job=job)) == {"failed"}


class TestPolicies:
    def test_a_policy_without_serving_listens_to_nobody(self, fresh: ServingScene) -> None:
        token = fresh.issue().token
        fresh.sign(FEATURE, mode="own_features_only")

        async def play() -> None:
            async with fresh.running() as hub:
                with pytest.raises(NotAnsweringError):
                    await fresh.ask(hub, token)

        asyncio.run(play())
        with pytest.raises(ConsentNotOfferedError):
            fresh.issue()

    def test_a_policy_that_answers_another_silo_only(self, fresh: ServingScene) -> None:
        token = fresh.issue().token
        fresh.sign(FEATURE, mode="consented_session", answers={OTHER: [PURPOSE]})
        assert outcome_of(fresh, lambda hub: fresh.ask(hub, token)) == {"policy"}

    def test_a_permission_that_was_taken_back_while_the_agent_runs(self, fresh: ServingScene) -> None:
        async def attack(hub: Any) -> None:
            await fresh.ask(hub, fresh.issue().token)
            token = fresh.issue().token
            fresh.sign(FEATURE, mode="own_features_only")
            await fresh.ask(hub, token)

        assert outcome_of(fresh, attack) == {"answered", "policy"}

    @pytest.mark.parametrize("held", ["paused", FREEZE_FILE])
    def test_a_silo_that_is_paused_or_frozen(self, fresh: ServingScene, held: str) -> None:
        async def attack(hub: Any) -> None:
            token = fresh.issue().token
            (fresh.directory(FEATURE) / held).write_text("anything: a freeze nobody can read holds as well")
            await fresh.ask(hub, token)

        assert outcome_of(fresh, attack) == {"held"}

    def test_who_opted_out_after_the_job_stands_for_zeros(self, fresh: ServingScene) -> None:
        (fresh.directory(FEATURE) / "opt-outs.csv").write_text("user_id\nben\n")
        fresh.sign(
            FEATURE, mode="consented_session", answers={LABEL: [PURPOSE]}, exclude_users="opt-outs.csv"
        )
        fresh.finish(FEATURE, JOB, fresh.plan)

        async def play() -> None:
            async with fresh.running() as hub:
                assert np.any(await fresh.ask(hub, fresh.issue("anna").token))
                (fresh.directory(FEATURE) / "opt-outs.csv").write_text("user_id\nben\nanna\n")
                assert not np.any(await fresh.ask(hub, fresh.issue("anna").token))

        asyncio.run(play())


class Meddler:
    """A coordinator that does something else with one call."""

    def __init__(self, made: Coordinator) -> None:
        self.made = made
        self.seen: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made, name)


class TestCoordinators:
    @pytest.mark.parametrize("place", [0, 40, 70, 200, QUESTION_BYTES - 1])
    def test_alters_a_question(self, scene: ServingScene, place: int) -> None:
        class Altering(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                flipped = question[:place] + bytes([question[place] ^ 1]) + question[place + 1 :]
                return await self.made.ask(party, silo, flipped, wait_seconds)

        self._expect(scene, QuestionSealError, Altering)

    @pytest.mark.parametrize("place", [0, 20, ANSWER_BYTES - 1])
    def test_alters_an_answer(self, scene: ServingScene, place: int) -> None:
        class Altering(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                answer = await self.made.ask(party, silo, question, wait_seconds)
                return answer[:place] + bytes([answer[place] ^ 1]) + answer[place + 1 :]

        self._expect(scene, QuestionSealError, Altering)

    def test_answers_itself(self, scene: ServingScene) -> None:
        class Inventing(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                return os.urandom(ANSWER_BYTES)

        self._expect(scene, QuestionSealError, Inventing)

    def test_gives_an_earlier_answer_to_a_later_question(self, scene: ServingScene) -> None:
        class Repeating(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                self.seen.append(await self.made.ask(party, silo, question, wait_seconds))
                return self.seen[0]

        async def play() -> None:
            async with scene.running(hub=Repeating) as hub:
                await scene.ask(hub, scene.issue("anna").token)
                with pytest.raises(QuestionSealError):
                    await scene.ask(hub, scene.issue("ben").token)

        asyncio.run(play())

    def test_exchanges_the_answers_of_two_questions(self, scene: ServingScene) -> None:
        class Exchanging(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                answer = await self.made.ask(party, silo, question, wait_seconds)
                self.seen.append(answer)
                await both_are_here.wait()
                return self.seen[0] if answer is self.seen[1] else self.seen[1]

        both_are_here = asyncio.Barrier(2)

        async def play() -> list[Any]:
            async with scene.running(hub=Exchanging) as hub:
                asked = [scene.ask(hub, scene.issue(person).token) for person in ("anna", "ben")]
                return await asyncio.gather(*asked, return_exceptions=True)

        assert [type(found) for found in asyncio.run(play())] == [QuestionSealError] * 2

    def test_delivers_a_question_twice(self, scene: ServingScene) -> None:
        """The second finds the token spent: what it is answered, nobody but the asker could open anyway."""
        before = counted(scene)

        class Replaying(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                first = await self.made.ask(party, silo, question, wait_seconds)
                self.made._relay._asked.clear()
                self.seen = [first, await self.made.ask(party, silo, question, wait_seconds)]
                return self.seen[0]

        async def play() -> None:
            async with scene.running(hub=Replaying) as hub:
                found = await scene.ask(hub, scene.issue().token)
                assert np.allclose(found, scene.numbers(FEATURE, "anna"), atol=1e-12)
                assert hub.seen[0] != hub.seen[1]

        asyncio.run(play())
        gained = {name: count - before.get(name, 0) for name, count in counted(scene).items()}
        assert {name: count for name, count in gained.items() if count} == {"answered": 1, "redeemed": 1}

    def test_says_that_another_silo_asked(self, scene: ServingScene) -> None:
        class Renaming(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                return await self.made.ask(OTHER, silo, question, wait_seconds)

        self._expect(scene, QuestionSealError, Renaming)

    def test_takes_a_question_to_another_silo(self, scene: ServingScene) -> None:
        class Redirecting(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                return await self.made.ask(party, OTHER, question, wait_seconds)

        self._expect(scene, QuestionSealError, Redirecting, FEATURE, OTHER)

    def test_offers_a_key_of_its_own(self, scene: ServingScene) -> None:
        class Offering(Meddler):
            async def offer_of(self, party: str, silo: str) -> bytes:
                real = KeyOffer.parse(await self.made.offer_of(party, silo))
                mine = EphemeralKey.generate().public_bytes().hex()
                return real.model_copy(update={"public_key": mine}).to_bytes()

        self._expect(scene, OfferError, Offering)

    def test_offers_another_silos_key(self, scene: ServingScene) -> None:
        class Offering(Meddler):
            async def offer_of(self, party: str, silo: str) -> bytes:
                return await self.made.offer_of(party, OTHER)

        self._expect(scene, OfferError, Offering, FEATURE, OTHER)

    def test_offers_a_key_that_is_over(self, scene: ServingScene) -> None:
        identity = scene.parties.parties[FEATURE].identity
        with scene.site(FEATURE) as site:
            over = site.now() - timedelta(minutes=6)

        class Offering(Meddler):
            async def offer_of(self, party: str, silo: str) -> bytes:
                return KeyOffer.issue(silo, EphemeralKey.generate().public_bytes(), over, identity).to_bytes()

        self._expect(scene, OfferError, Offering)

    def test_asks_in_a_members_name_with_a_token_it_came_by(self, scene: ServingScene) -> None:
        """It knows every public key, and lacks the asker's signature."""
        thief = scene.parties.hub.identity

        async def play() -> None:
            async with scene.running() as hub:
                offered = bytes.fromhex(KeyOffer.parse(await hub.offer_of(LABEL, FEATURE)).public_key)
                asking = Asking(Direction(LABEL, FEATURE), offered)
                token = scene.issue().token
                forged = Question.ask(JOB, token, transcript=asking.transcript, identity=thief)
                answer = await hub.ask(LABEL, FEATURE, asking.seal(forged.to_bytes(), JOB), 5.0)
                with pytest.raises(QuestionSealError):
                    asking.open(answer)
                assert np.any(await scene.ask(hub, token)), "the theft has spent nothing"

        asyncio.run(play())

    def test_carries_a_signature_over_into_its_own_question(self, scene: ServingScene) -> None:
        """A question that a silo signed for one exchange fits no other: its keys are signed with it."""
        identity, member = scene.parties.parties[LABEL].identity, scene.parties.charter.member(LABEL)
        assert member is not None
        key = EphemeralKey.generate().public_bytes()
        signed = Question.ask(
            JOB, "token", transcript=Direction(LABEL, FEATURE).transcript(key, key), identity=identity
        )
        for other in (Direction(LABEL, OTHER), Direction(FEATURE, LABEL)):
            with pytest.raises(ArchipelError, match="not signed by who asks"):
                Question.read(
                    signed.to_bytes(), transcript=other.transcript(key, key), asker=member.identity_key
                )

    def test_reads_what_it_carries(self, scene: ServingScene) -> None:
        """Sizes tell nothing; neither token, job nor numbers are in it; a denial looks like numbers."""
        carried: list[bytes] = []

        class Reading(Meddler):
            async def ask(self, party: str, silo: str, question: bytes, wait_seconds: float) -> bytes:
                carried.append(question)
                carried.append(await self.made.ask(party, silo, question, wait_seconds))
                return carried[-1]

        async def play() -> np.ndarray:
            async with scene.running(hub=Reading) as hub:
                with pytest.raises(FeaturesDeniedError):
                    await scene.ask(hub, "a guess")
                with pytest.raises(FeaturesDeniedError):
                    await scene.ask(hub, token, job="cd" * 16)
                return await scene.ask(hub, token)

        token = scene.issue().token
        numbers = asyncio.run(play())
        assert [len(part) for part in carried] == [QUESTION_BYTES, ANSWER_BYTES] * 3
        for secret in (token, JOB, "anna"):
            assert not any(secret.encode() in part for part in carried)
        assert not any(numbers[:1].tobytes() in part for part in carried)

    def test_times_the_answers(self, scene: ServingScene) -> None:
        """A refusal that needs no row comes no sooner than numbers may."""

        async def play() -> float:
            async with scene.running() as hub:
                started = asyncio.get_running_loop().time()
                with pytest.raises(FeaturesDeniedError):
                    await scene.ask(hub, "a guess")
                return asyncio.get_running_loop().time() - started

        assert asyncio.run(play()) >= answering.ANSWER_SECONDS

    def _expect(
        self, scene: ServingScene, error: type[ArchipelError], meddler: type[Meddler], *answering: str
    ) -> None:
        async def play() -> None:
            async with scene.running(*answering, hub=meddler) as hub:
                with pytest.raises(error):
                    await scene.ask(hub, scene.issue().token)

        asyncio.run(play())


class TestTheWayBack:
    def test_an_agent_that_started_anew_in_between_is_asked_again(self, scene: ServingScene) -> None:
        class Stale(Meddler):
            """Gives out the offer of a key that the agent has lost, once."""

            async def offer_of(self, party: str, silo: str) -> bytes:
                real = await self.made.offer_of(party, silo)
                self.seen.append(real)
                if len(self.seen) > 1:
                    return real
                with scene.site(FEATURE) as site:
                    return KeyOffer.issue(
                        silo, EphemeralKey.generate().public_bytes(), site.now(), site.party.identity
                    ).to_bytes()

        async def play() -> None:
            async with scene.running(hub=Stale) as hub:
                assert np.any(await scene.ask(hub, scene.issue().token))
                assert len(hub.seen) == 2

        asyncio.run(play())

    def test_a_member_that_has_left_is_not_heard(self, scene: ServingScene) -> None:
        """Its key stays known for what it signed before; its questions do not open."""

        async def play() -> None:
            async with scene.running() as hub:
                offered = bytes.fromhex(KeyOffer.parse(await hub.offer_of(LABEL, FEATURE)).public_key)
                asking = Asking(Direction("gone", FEATURE), offered)
                question = Question.ask(
                    JOB, "token", transcript=asking.transcript, identity=scene.parties.hub.identity
                )
                hub._keys["gone"] = scene.parties.hub.identity.public_key
                answer = await hub.ask("gone", FEATURE, asking.seal(question.to_bytes(), JOB), 5.0)
                with pytest.raises(QuestionSealError):
                    asking.open(answer)

        asyncio.run(play())

    def test_whose_a_token_was_is_not_kept_where_nobody_brings_it(self, fresh: ServingScene) -> None:
        """Also by a silo that answers nobody any more."""
        fresh.issue("carla")
        fresh.sign(FEATURE, mode="own_features_only")
        fresh.shift[FEATURE] = timedelta(minutes=75)
        files = list(fresh.directory(FEATURE).glob("consent.db*"))
        assert any(b"carla" in path.read_bytes() for path in files)

        async def play() -> None:
            async with fresh.running():
                await asyncio.sleep(0.1)

        asyncio.run(play())
        assert not any(b"carla" in path.read_bytes() for path in fresh.directory(FEATURE).glob("consent.db*"))

    def test_the_log_names_nobody(self, scene: ServingScene) -> None:
        token = scene.issue("carla").token

        async def play() -> None:
            async with scene.running() as hub:
                await scene.ask(hub, token)
                with pytest.raises(FeaturesDeniedError):
                    await scene.ask(hub, token)

        with structlog.testing.capture_logs() as lines:
            asyncio.run(play())
        said = [line for line in lines if line["event"] == "question_answered"]
        assert [line["outcome"] for line in said] == ["answered", "redeemed"]
        assert "carla" not in str(lines)
        assert token not in str(lines)


class TestNetworks:
    @pytest.mark.parametrize("fault", ["duplicate", "drop_answer"])
    def test_that_repeat_a_call_or_lose_its_answer_cost_no_token(
        self, scene: ServingScene, fault: str
    ) -> None:
        """The same question is the same question: its answer is kept for who could not hear it."""
        rng = random.Random(1)
        before = counted(scene)

        async def play() -> None:
            async with scene.running() as hub:
                for _ in range(4):
                    connection = connect_in_process(
                        hub, LABEL, faults=Faults(rng, **{fault: 0.5}), patience=Patience(total_seconds=20.0)
                    )
                    client = FeatureClient(
                        connection, scene.parties.parties[LABEL], scene.parties.charter,
                        job=JOB, plan=scene.plan,
                    )  # fmt: skip
                    with scene.site(LABEL) as site:
                        numbers = await client.features(FEATURE, scene.issue().token, now=site.now())
                    assert np.allclose(numbers, scene.numbers(FEATURE, "anna"), atol=1e-12)

        asyncio.run(play())
        gained = {name: count - before.get(name, 0) for name, count in counted(scene).items()}
        assert {name: count for name, count in gained.items() if count} == {"answered": 4}


class TestFloods:
    def test_a_member_that_waits_with_too_many_questions(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(max_waiting_questions_per_party=2) as hub:
                waiting = [asyncio.create_task(hub.ask(LABEL, FEATURE, _noise(), 1.0)) for _ in range(2)]
                await asyncio.sleep(0.01)
                with pytest.raises(OverQuotaError, match="max_waiting_questions_per_party"):
                    await hub.ask(LABEL, FEATURE, _noise(), 1.0)
                assert len(await hub.ask(OTHER, FEATURE, _noise(), 1.0)) == ANSWER_BYTES
                await asyncio.gather(*waiting)

        asyncio.run(play())

    def test_one_question_in_many_calls_waits_as_many(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(max_waiting_questions_per_party=2) as hub:
                same = _noise()
                waiting = [asyncio.create_task(hub.ask(LABEL, FEATURE, same, 1.0)) for _ in range(2)]
                await asyncio.sleep(0.01)
                with pytest.raises(OverQuotaError):
                    await hub.ask(LABEL, FEATURE, same, 1.0)
                first, second = await asyncio.gather(*waiting)
                assert first == second

        asyncio.run(play())

    def test_a_member_that_asks_too_often_within_an_hour(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(max_questions_per_hour_per_party=2) as hub:
                for _ in range(2):
                    await hub.ask(LABEL, FEATURE, _noise(), 1.0)
                with pytest.raises(OverQuotaError, match="max_questions_per_hour_per_party"):
                    await hub.ask(LABEL, FEATURE, _noise(), 1.0)
                await hub.ask(OTHER, FEATURE, _noise(), 1.0)

        asyncio.run(play())

    @pytest.mark.parametrize("size", [0, QUESTION_BYTES - 1, QUESTION_BYTES + 1])
    def test_questions_of_another_size(self, scene: ServingScene, size: int) -> None:
        async def play() -> None:
            async with scene.running() as hub:
                with pytest.raises(ProtocolError, match="bytes"):
                    await hub.ask(LABEL, FEATURE, b"x" * size, 1.0)

        asyncio.run(play())

    def test_answers_of_another_size_or_to_what_was_not_handed_out(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(OTHER) as hub:
                identity = scene.parties.parties[FEATURE].identity
                with scene.site(FEATURE) as site:
                    offer = KeyOffer.issue(FEATURE, os.urandom(32), site.now(), identity).to_bytes()
                assert await hub.listen(FEATURE, offer, 0.0) == []
                asked = asyncio.create_task(hub.ask(LABEL, FEATURE, _noise(), 0.5))
                [(ticket, asker, _)] = await hub.listen(FEATURE, offer, 0.3)
                assert asker == LABEL
                assert await hub.listen(FEATURE, offer, 0.0) == [], "handed out once"
                with pytest.raises(ProtocolError):
                    await hub.take_answer(FEATURE, ticket, b"short")
                await hub.take_answer(OTHER, ticket, bytes(ANSWER_BYTES))
                await hub.take_answer(FEATURE, "0" * 32, bytes(ANSWER_BYTES))
                assert not asked.done(), "another silo's answer, or one to no question, is nobody's"
                await hub.take_answer(FEATURE, ticket, b"\1" * ANSWER_BYTES)
                await hub.take_answer(FEATURE, ticket, b"\2" * ANSWER_BYTES)
                assert await asked == b"\1" * ANSWER_BYTES

        asyncio.run(play())

    def test_a_question_for_which_nobody_waits_any_more_is_not_handed_out(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(OTHER) as hub:
                identity = scene.parties.parties[FEATURE].identity
                with scene.site(FEATURE) as site:
                    offer = KeyOffer.issue(FEATURE, os.urandom(32), site.now(), identity).to_bytes()
                await hub.listen(FEATURE, offer, 0.0)
                with pytest.raises(NoAnswerError):
                    await hub.ask(LABEL, FEATURE, _noise(), 0.01)
                await asyncio.sleep(0.01)
                assert await hub.listen(FEATURE, offer, 0.0) == []

        asyncio.run(play())

    def test_a_listener_in_another_silos_name(self, scene: ServingScene) -> None:
        async def play() -> None:
            async with scene.running(OTHER) as hub:
                with scene.site(FEATURE) as site:
                    offer = KeyOffer.issue(
                        FEATURE, os.urandom(32), site.now(), scene.parties.parties[OTHER].identity
                    ).to_bytes()
                for party in (FEATURE, OTHER):
                    with pytest.raises(OfferError):
                        await hub.listen(party, offer, 0.0)

        asyncio.run(play())


def test_the_asker_takes_no_answer_of_another_length(scene: ServingScene) -> None:
    async def play() -> None:
        async with scene.running() as hub:
            with pytest.raises(ProtocolError, match="3 numbers, not 5"):
                await scene.ask(hub, scene.issue().token, plan=serving_plan(dimensions=5))

    asyncio.run(play())


def test_the_asker_asks_nobody_outside_the_job(scene: ServingScene) -> None:
    async def play() -> None:
        async with scene.running() as hub:
            client = FeatureClient(
                scene.connect(hub, LABEL), scene.parties.parties[LABEL], scene.parties.charter,
                job=JOB, plan=scene.plan,
            )  # fmt: skip
            with scene.site(LABEL) as site, pytest.raises(UsageError, match="no feature silo"):
                await client.features(LABEL, "token", now=site.now())

    asyncio.run(play())


def _noise() -> bytes:
    return os.urandom(QUESTION_BYTES)
