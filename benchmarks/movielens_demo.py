"""What the benchmarks on movielens-1m share: running a demo on it, keeping its figures, judging them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

METRIC = "ndcg@20"
KEPT = ("data", "model", "privacy", "metrics", "metrics_std", "metrics_by_seed", "secure_sum", "seconds")
COLUMNS = {
    "silo_alone": "silo alone (private)",
    "federated_private": "federated (private)",
    "federated_local_noise": "federated, noise in each silo (private)",
    "pooled_private": "pooled (private)",
    "pooled_same_noise": "pooled, same noise",
    "pooled_plain": "pooled (no privacy)",
    "popularity": "popularity",
}

Record = dict[str, Any]
Check = dict[str, Any]


def run_demo(
    name: str, data: Path, out: Path, asked: Mapping[str, str], kept: Iterable[str] = KEPT
) -> Record:
    """Run one demo; returns its figures, or what went wrong.

    Args:
        name: of its files below ``out``.
        data: folder of the set.
        out: where federation, log and figures go.
        asked: options of ``archipel demo``, without data and places.
        kept: keys of its JSON.
    """
    out.mkdir(parents=True, exist_ok=True)
    target = out / f"{name}.json"
    target.unlink(missing_ok=True)
    words = [word for option in asked.items() for word in option]
    command = [sys.executable, "-m", "cli", "demo", "--data", str(data), *words]
    command += ["--out", str(out / name), "--json", str(target)]
    record: Record = {"options": dict(asked)} | code_version()
    start = time.monotonic()
    with (out / f"{name}.log").open("w") as log:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE, text=True, check=False
        )
    record["wall_seconds"] = round(time.monotonic() - start, 1)
    if done.returncode != 0 or not target.exists():
        last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
        message = " ".join(last).replace(str(data), data.name) or "no figures were written"
        return record | {"state": "failed", "exit_code": done.returncode, "message": message}
    told = json.loads(target.read_text())
    return record | {"state": "finished"} | {name: told[name] for name in kept}


def code_version() -> dict[str, Any]:
    """The commit the figures belong to, and whether files differed from it; empty outside a clone."""
    git = shutil.which("git")
    if git is None:
        return {}
    in_clone = [git, "-C", str(Path(__file__).parent.parent)]
    head = subprocess.run([*in_clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return {}
    sources = ["privacy", "policies", "federation", "silo", "cli.py"]
    changed = subprocess.run([*in_clone, "diff", "--quiet", "HEAD", "--", *sources], check=False)
    return {"commit": head.stdout.strip(), "sources_changed_since": changed.returncode != 0}


def are_of_one_state(records: Iterable[Record]) -> bool:
    """Whether all figures come from one committed state of the code."""
    records = list(records)
    commits = {record.get("commit") for record in records}
    return len(commits) <= 1 and not any(record.get("sources_changed_since") for record in records)


def kept_records(target: str, key: str) -> dict[str, Record]:
    """Records of an earlier run of a benchmark, as its result file has them under ``key``."""
    path = Path(target)
    if target == "-" or not path.exists():
        return {}
    records: dict[str, Record] = json.loads(path.read_text())[key]
    return records


def is_kept(record: Record | None, asked: Mapping[str, str]) -> bool:
    """Whether a record spares a run: finished, with the same options."""
    return record is not None and record["state"] == "finished" and record["options"] == asked


def at_least(measured: float, target: float) -> Check:
    """A measured value beside the least it should be."""
    return {"measured": measured, "at_least": target, "met": measured >= target}


def at_most(measured: float, target: float) -> Check:
    """A measured value beside the most it should be."""
    return {"measured": measured, "at_most": target, "met": measured <= target}


def target_text(check: Check) -> str:
    """A target for people."""
    return f">= {check['at_least']}" if "at_least" in check else f"<= {check['at_most']}"


def data_folder(given: Path | None) -> Path | None:
    """The set's folder: as given, or below ``ARCHIPEL_DATA``."""
    if given is not None:
        return given
    root = os.environ.get("ARCHIPEL_DATA")
    return None if root is None else Path(root) / "movielens-1m"
