"""What partners bring when every party is an agent of its own: ``archipel demo --partition vertical``.

One demo for each epsilon, all seeds in it; its figures take the shape of ``vertical_movielens.py``, whose
``--processes`` calls this. Without privacy nothing is sent: those figures are of the demo's harness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from movielens_demo import run_demo
from reporting import Page

KEPT = (
    "data",
    "privacy",
    "alignment",
    "sessions",
    "metrics_by_seed",
    "weights_by_seed",
    "traffic",
    "seconds",
)
METRICS = ("ndcg@20", "recall@20")
ROWS = ("silo_alone", "popularity")


class FailedRunError(RuntimeError):
    """A demo that did not end well."""


def run_epsilons(
    data: Path, epsilons: Sequence[str], out: Path, page: Page, *, seeds: int, delta: float, label_items: int
) -> dict[str, dict[str, Any]]:
    """Run a demo for each epsilon; returns what it told, by epsilon.

    Raises:
        FailedRunError: one of them did not end well.
    """
    private = [epsilon for epsilon in epsilons if epsilon != "none"] or ["8"]
    told = {}
    for epsilon in private:
        page.say(f"epsilon {epsilon}: {seeds} federations of real processes")
        options = {
            "--partition": "vertical",
            "--epsilon": epsilon,
            "--delta": f"{delta:g}",
            "--seeds": str(seeds),
            "--label-items": str(label_items),
        }
        record = run_demo(f"epsilon-{epsilon}", data, out, options, kept=KEPT)
        if record["state"] != "finished":
            raise FailedRunError(f"epsilon {epsilon}, exit code {record['exit_code']}: {record['message']}")
        told[epsilon] = record
    return told


def runs_of(told: dict[str, dict[str, Any]], epsilons: Sequence[str]) -> list[dict[str, Any]]:
    """The figures by seed, as the benchmark in one process has them."""
    first = next(iter(told.values()))
    found = []
    for seed in first["data"]["seeds"]:
        columns = first["metrics_by_seed"][str(seed)]
        run = {"seed": seed, "coverage": first["data"]["coverage"]}
        run |= {row: {name: columns[row][name] for name in METRICS} for row in ROWS}
        run["with_partners"] = {epsilon: _with_partners(told, epsilon, seed) for epsilon in epsilons}
        found.append(run)
    return found


def _with_partners(told: dict[str, dict[str, Any]], epsilon: str, seed: int) -> dict[str, Any]:
    row = "federated_plain" if epsilon == "none" else "federated_private"
    record = next(iter(told.values())) if epsilon == "none" else told[epsilon]
    columns, weights = record["metrics_by_seed"][str(seed)], record["weights_by_seed"][str(seed)][row]
    lift = 100 * (columns[row]["ndcg@20"] / columns["silo_alone"]["ndcg@20"] - 1)
    return {name: columns[row][name] for name in METRICS} | {
        "lift_percent": lift,
        "noise_multiplier": None if epsilon == "none" else record["privacy"]["noise_multiplier"],
        "feature_ridges": weights["feature_ridges"],
        "mixing": weights["mixing"],
    }
