"""Replay one schedule: ``python -m tests.simulation SEED`` prints what went wrong in it and what happened."""

from __future__ import annotations

import argparse
import sys

from tests.simulation.simulator import simulator


def main() -> int:
    """Run the schedules of some seeds; 1 if an invariant does not hold in one of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int, nargs="+")
    parser.add_argument("--digest", action="store_true", help="print the trace's SHA-256 only")
    arguments = parser.parse_args()
    is_wrong = False
    with simulator() as made, made.shortcuts.taken():
        for seed in arguments.seed:
            outcome = made.run(seed)
            is_wrong |= bool(outcome.wrongs)
            sys.stdout.write((outcome.trace.digest() if arguments.digest else outcome.report()) + "\n")
    return int(is_wrong)


if __name__ == "__main__":
    sys.exit(main())
