"""A label silo that wants more answers than people have consented to."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from privacy.errors import UsageError
from silo.vertical.serving.consent import PREFIX, ConsentBook, ConsentError, ConsentLimits

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
SHOP, PURPOSE = "shop-a", "product-recommendation"
LATER = timedelta(minutes=10)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[ConsentBook]:
    with ConsentBook(tmp_path / "consent.db") as made:
        yield made


def issue(book: ConsentBook, user_id: str = "anna@example.org", now: datetime = NOW) -> str:
    return book.issue(user_id, audience=SHOP, purpose=PURPOSE, now=now)


def refusal(
    book: ConsentBook, token: str, *, by: str = SHOP, purpose: str = PURPOSE, now: datetime = NOW
) -> ConsentError:
    with pytest.raises(ConsentError) as caught:
        book.redeem(token, by=by, purpose=purpose, now=now)
    return caught.value


def test_a_token_stands_for_the_person_who_got_it(book: ConsentBook) -> None:
    tokens = {name: issue(book, name) for name in ("anna", "ben", "anna ")}
    for name, token in tokens.items():
        assert book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW).user_id == name


def test_a_token_that_is_replayed(book: ConsentBook) -> None:
    token = issue(book)
    book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW)
    assert refusal(book, token).reason == "redeemed"


def test_a_token_that_is_replayed_after_a_restart(tmp_path: Path) -> None:
    with ConsentBook(tmp_path / "consent.db") as book:
        token = issue(book)
        book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW)
    with ConsentBook(tmp_path / "consent.db") as book:
        assert refusal(book, token).reason == "redeemed"


@pytest.mark.parametrize("late", [LATER, LATER + timedelta(seconds=1), LATER + timedelta(hours=1)])
def test_a_token_that_has_expired(book: ConsentBook, late: timedelta) -> None:
    token = issue(book)
    assert refusal(book, token, now=NOW + late).reason == "expired"


def test_a_token_is_valid_until_it_expires(book: ConsentBook) -> None:
    token = issue(book)
    assert book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW + LATER - timedelta(seconds=1))


def test_a_token_that_another_silo_presents(book: ConsentBook) -> None:
    token = issue(book)
    assert refusal(book, token, by="shop-b").reason == "audience"
    assert book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW), "a theft costs the person nothing"


def test_a_token_for_another_purpose(book: ConsentBook) -> None:
    assert refusal(book, issue(book), purpose="credit-scoring").reason == "purpose"


def test_a_token_of_another_issuer(book: ConsentBook, tmp_path: Path) -> None:
    with ConsentBook(tmp_path / "other.db") as other:
        token = issue(other)
    assert refusal(book, token).reason == "unknown"


@pytest.mark.parametrize("guess", ["", PREFIX, "anna@example.org", "\x00", "ü" * 10_000])
def test_words_that_nobody_issued(book: ConsentBook, guess: str) -> None:
    issue(book)
    assert refusal(book, guess).reason == "unknown"


def test_a_token_with_one_character_altered(book: ConsentBook) -> None:
    token = issue(book)
    altered = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert refusal(book, altered).reason == "unknown"


def test_every_refusal_reads_the_same_to_whoever_asks(book: ConsentBook) -> None:
    spent = issue(book)
    book.redeem(spent, by=SHOP, purpose=PURPOSE, now=NOW)
    errors = [
        refusal(book, spent),
        refusal(book, "nobody's"),
        refusal(book, issue(book), by="shop-b"),
        refusal(book, issue(book), purpose="other"),
        refusal(book, issue(book), now=NOW + LATER),
    ]
    assert len({error.reason for error in errors}) == 5
    assert len({(str(error), error.message, error.remedy) for error in errors}) == 1


def test_a_copy_of_the_file_redeems_nothing(book: ConsentBook, tmp_path: Path) -> None:
    token = issue(book)
    with sqlite3.connect(tmp_path / "consent.db") as db:
        kept = [value for row in db.execute("SELECT * FROM tokens") for value in row]
    assert token.encode() not in [bytes(value) for value in kept if isinstance(value, bytes)]
    assert not any(token.removeprefix(PREFIX) in str(value) for value in kept)


def test_whose_a_token_was_is_forgotten_once_it_is_redeemed(tmp_path: Path) -> None:
    with ConsentBook(tmp_path / "consent.db") as book:
        token = issue(book)
    assert any(b"anna" in path.read_bytes() for path in tmp_path.iterdir())
    with ConsentBook(tmp_path / "consent.db") as book:
        book.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW)
    assert not any(b"anna" in path.read_bytes() for path in tmp_path.iterdir())


def test_tokens_that_nobody_brought_are_forgotten_an_hour_after_their_end(tmp_path: Path) -> None:
    with ConsentBook(tmp_path / "consent.db") as book:
        token = issue(book)
        assert refusal(book, token, now=NOW + timedelta(minutes=70)).reason == "expired"
        assert refusal(book, token, now=NOW + timedelta(minutes=71)).reason == "unknown"
    assert not any(b"anna" in path.read_bytes() for path in tmp_path.iterdir())


def test_what_questions_came_to_is_counted_by_day_and_silo(book: ConsentBook) -> None:
    for silo, outcome, days in ((SHOP, "answered", 0), (SHOP, "answered", 0), (SHOP, "unknown", 0),
                                ("shop-b", "answered", 0), (SHOP, "answered", 1)):  # fmt: skip
        book.count(silo, outcome, NOW + timedelta(days=days))
    assert book.counts(NOW.date()) == [
        ("2026-06-01", SHOP, "answered", 2),
        ("2026-06-01", SHOP, "unknown", 1),
        ("2026-06-01", "shop-b", "answered", 1),
        ("2026-06-02", SHOP, "answered", 1),
    ]
    assert book.counts(NOW.date() + timedelta(days=1)) == [("2026-06-02", SHOP, "answered", 1)]


def test_nobody_else_reads_the_file(book: ConsentBook, tmp_path: Path) -> None:
    issue(book)
    assert stat.S_IMODE((tmp_path / "consent.db").stat().st_mode) == 0o600


def test_the_token_names_nobody(book: ConsentBook) -> None:
    one, other = issue(book), issue(book)
    assert one != other
    assert "anna" not in one
    assert len(one) == len(issue(book, "a"))


def test_a_flood_of_guesses_is_not_answered(tmp_path: Path) -> None:
    with ConsentBook(tmp_path / "consent.db", ConsentLimits(max_requests_per_hour=3)) as book:
        token = issue(book)
        reasons = [refusal(book, f"guess {number}").reason for number in range(3)]
        assert reasons == ["unknown"] * 3
        assert refusal(book, token).reason == "too_many_requests"
        assert refusal(book, "another silo's guess", by="shop-b").reason == "unknown"
        fresh = issue(book, now=NOW + timedelta(minutes=61))
        assert book.redeem(fresh, by=SHOP, purpose=PURPOSE, now=NOW + timedelta(minutes=61))


def test_a_token_that_is_redeemed_by_many_at_once_gets_one_answer(tmp_path: Path) -> None:
    path = tmp_path / "consent.db"
    with ConsentBook(path) as book:
        tokens = [issue(book, str(number)) for number in range(40)]
    answers: list[str] = []
    reasons: set[str] = set()
    begin = threading.Barrier(4)

    def redeem_all() -> None:
        with ConsentBook(path) as mine:
            begin.wait()
            for token in tokens:
                try:
                    answers.append(mine.redeem(token, by=SHOP, purpose=PURPOSE, now=NOW).user_id)
                except ConsentError as error:
                    reasons.add(error.reason)

    threads = [threading.Thread(target=redeem_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(str(number) for number in range(40))
    assert reasons == {"redeemed"}


def test_a_standing_permission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="standing permission"):
        ConsentBook(tmp_path / "consent.db", ConsentLimits(lifetime=timedelta(days=1)))
