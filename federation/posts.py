"""A job's posts as an immutable mapping that grows without being copied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from federation.messages import Envelope, Place, PostKind


class Posts(Mapping[Place, Envelope]):
    """Posts by their place, in the order in which they were accepted.

    Values that grew out of one another share one store, of which each sees its own first part. So a job of
    thousands of posts is folded in linear time, and an earlier state stays what it was. Growing an earlier
    value once more copies it first.
    """

    __slots__ = ("_index", "_log", "_public_keys", "_size")

    def __init__(self) -> None:
        self._log: list[tuple[Place, Envelope]] = []
        self._index: dict[Place, int] = {}
        self._public_keys: dict[str, int] = {}
        self._size = 0

    def adding(self, envelope: Envelope) -> Posts:
        """These posts and one more, whose place is free."""
        has_grown = self._size < len(self._log)
        if has_grown and self._log[self._size][1] != envelope:
            return Posts._of([*(known for _, known in islice(self._log, self._size)), envelope])
        grown = Posts()
        grown._log, grown._index, grown._public_keys = self._log, self._index, self._public_keys
        grown._size = self._size
        if has_grown:
            grown._size += 1
        else:
            grown._append(envelope)
        return grown

    def has_public_key(self, public_key: str) -> bool:
        """Whether an ephemeral key has been posted before."""
        return self._public_keys.get(public_key, self._size) < self._size

    def __getitem__(self, place: Place) -> Envelope:
        position = self._index[place]
        if position >= self._size:
            raise KeyError(place)
        return self._log[position][1]

    def __iter__(self) -> Iterator[Place]:
        return (place for place, _ in islice(self._log, self._size))

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<{self._size} posts>"

    @staticmethod
    def _of(envelopes: list[Envelope]) -> Posts:
        posts = Posts()
        for envelope in envelopes:
            posts._append(envelope)
        return posts

    def _append(self, envelope: Envelope) -> None:
        self._log.append((envelope.place, envelope))
        self._index[envelope.place] = self._size
        if envelope.kind is PostKind.EPHEMERAL:
            self._public_keys.setdefault(str(envelope.body["public_key"]), self._size)
        self._size += 1
