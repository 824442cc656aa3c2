"""A process without a terminal says how far it is, and nothing where it is quick."""

from __future__ import annotations

import pytest

from silo.language.telling import TELL_SECONDS, every_few_seconds


def test_a_line_every_few_seconds_and_none_before(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    notice = every_few_seconds(lambda: now)
    for done in range(100, 1700, 100):
        now += TELL_SECONDS / 4
        notice(done, 1682)
    said = capsys.readouterr()
    assert (said.out + said.err).splitlines() == [
        f"… reading item texts: {done:,} of 1,682" for done in (400, 800, 1200, 1600)
    ]
