"""Recordings of real processes: an honest one, and one of a tree whose noise was taken out.

    python -m tests.support.recordings DIR [options of `archipel demo`]

makes the second on the built-in marketplace, in ``DIR/run/recording``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from silo.audit.attack.recording import Recording
from tests.support.small_set import write_set
from tests.support.source_tree import copy_tree, environment

SILOS = 4
CANARIES = 1536


class Sabotage(NamedTuple):
    """Lines of the product that a copy of its source has others for."""

    file: str
    honest: str
    lying: str


NO_NOISE = Sabotage(
    "silo/tasks.py",
    "    return share.add_to(np.clip(signal, shape.step_signal_min, shape.step_signal_max))\n",
    "    from privacy.noise import NoisedIntegers\n\n"
    "    clipped = np.clip(signal, shape.step_signal_min, shape.step_signal_max)\n"
    "    return NoisedIntegers(clipped, shape.step_event)\n",
)
"""No noise, and the event of the promised noise: the one lie that ledger and peers believe."""

SAME_MASKS = Sabotage(
    "privacy/agreement.py",
    "    lower, higher = sorted((a.encode(), b.encode()))\n    info =",
    "    lower, higher = sorted((a.encode(), b.encode()))\n"
    "    if purpose is Purpose.MASK and round_number in (1, 2):\n"
    "        return hashlib.sha256(lower + b'and' + higher).digest()\n"
    "    info =",
)
"""Every pair masks rounds 1 and 2 with one key. The masks cancel, so that every sum opens as ever."""


def record(root: Path, *, has_noise: bool, epsilon: float = 4.0) -> Path:
    """Run ``archipel demo --record`` on a small set, from a copy of the source; returns the recording."""
    data = write_set(root / "set")
    options = ("--data", str(data), "--silos", str(SILOS), "--canaries", str(CANARIES))
    options += ("--epsilon", str(epsilon))
    return record_from_tree(root, options, None if has_noise else NO_NOISE)


def record_from_tree(root: Path, options: Sequence[str], sabotage: Sabotage | None) -> Path:
    """The same with any options."""
    tree = copy_tree(root / "tree")
    if sabotage is not None:
        path = tree / sabotage.file
        content = path.read_text()
        assert content.count(sabotage.honest) == 1
        path.write_text(content.replace(sabotage.honest, sabotage.lying))
    words = [sys.executable, "-m", "cli", "demo", "--record", "--out", str(root / "run"), *options]
    done = subprocess.run(
        words, cwd=root, env=environment(tree, root / "hooks"), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return root / "run" / "recording"


def copied(recording: Path, target: Path) -> Recording:
    """A copy that a test may alter."""
    shutil.copytree(recording, target)
    return Recording(target)


def replace_array(recording: Recording, name: str, values: NDArray[np.int64]) -> None:
    """Put other integers in the place of recorded ones."""
    np.save(recording.directory / name, values)


def codes(attacked: Any) -> set[str]:
    """Codes of what an attack found."""
    return {item.code for item in attacked.findings}


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    target.mkdir(parents=True)
    print(record_from_tree(target, sys.argv[2:], NO_NOISE))
