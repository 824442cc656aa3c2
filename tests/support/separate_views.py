"""Processes of one silo for whom the other silos' directories are not there.

Python runs the hook before anything else of a process. Whoever works in ``…/silos/NAME`` (``--dir``) moves
into a mount namespace of its own, in which every other directory of ``…/silos`` is an empty one, whatever
opens it in whichever language; children stay inside.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from tests.support.source_tree import REPOSITORY

_HOOK = """
import ctypes, json, os, pathlib, sys

CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 0x40000


def _done(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write(path, text):
    with open(path, "w") as file:
        file.write(text)


def _hide(others):
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    _done(libc.unshare(CLONE_NEWUSER | CLONE_NEWNS))
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    _done(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
    for other in others:
        _done(libc.mount(b"none", os.fsencode(other), b"tmpfs", 0, None))


def _enter(words):
    if "--dir" not in words:
        return
    own = pathlib.Path(words[words.index("--dir") + 1])
    if own.parent.name != "silos":
        return
    others = [path for path in own.parent.iterdir() if path != own]
    files = [str(path) for other in others for path in other.rglob("*.parquet")]
    note = {"words": words, "own": own.name, "others": sorted(path.name for path in others), "files": files}
    try:
        _hide(others)
    except OSError as error:
        note["refused"] = str(error)
    note["readable"] = [path for path in files if os.path.exists(path)]
    target = os.path.join(os.environ["TEST_VIEWS"], f"{os.getpid()}.json")
    if "refused" in note or not os.path.exists(target):
        _write(target, json.dumps(note))


_enter(sys.orig_argv)
"""


def environment(notes: Path) -> dict[str, str]:
    """Environment in which every silo's process sees its own directory alone, and notes it in ``notes``."""
    hooks = notes / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "sitecustomize.py").write_text(_HOOK)
    path = f"{hooks}{os.pathsep}{REPOSITORY}"
    return {**os.environ, "PYTHONPATH": path, "TEST_VIEWS": str(notes)}


def read_notes(notes: Path) -> list[dict[str, Any]]:
    """What each process of a silo noted: its command, and which files of others it could still read."""
    return [json.loads(path.read_text()) for path in sorted(notes.glob("*.json"))]
