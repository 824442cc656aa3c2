"""What a process without a terminal says while it reads texts: every few seconds a line of public numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

from policies.console import say

TELL_SECONDS = 5.0


def every_few_seconds(clock: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """Make a notice of (texts done, texts in all) that says so to people, and is silent where it is quick.

    Args:
        clock: seconds.
    """
    last = clock()

    def notice(done: int, of_all: int) -> None:
        nonlocal last
        if clock() - last >= TELL_SECONDS:
            last = clock()
            say(f"… reading item texts: {done:,} of {of_all:,}")

    return notice
