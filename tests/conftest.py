"""What holds for every test, however the suite was started."""

from __future__ import annotations

import signal
import threading

if (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):
    # A shell ignores Ctrl-C for what it starts in the background, and all processes of a test inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
