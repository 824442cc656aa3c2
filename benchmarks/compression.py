"""What bytes and fewer dimensions cost a model: size, time, lists and quality of exported files.

movielens-1m, four taste-skewed silos, a federated item graph at one epsilon (delta 1e-5, one colluding silo
covered), a random 20 % of each person's rows held out; beside it an item graph and item neighbours of all
rows without noise. Each is exported as ONNX, whole and compressed, and run by ONNX Runtime on one thread.
Lists are compared with those of the model itself, of people and of made-up histories.

    ARCHIPEL_DATA=PATH python benchmarks/compression.py
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from local_blend import SILOS, federate, read
from reporting import Page, Terminal, add_json_option, header, write

from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.export.measuring import made_up_histories, measure_privately, top_overlap
from silo.export.pruning import pruned
from silo.export.running import OnnxScorer, milliseconds_a_user
from silo.export.scorers import ExportableModel, TableModel, exportable
from silo.export.writing import model_bytes
from silo.local.models import ITEM_GRAPH, ITEM_KNN, LocalModels

SHARES = (0.25, 0.5, 0.75)


def models_of(train: Interactions, epsilon: float, seed: int) -> Iterator[tuple[str, ExportableModel]]:
    """What is exported, by name."""
    silo_of = partition_by_taste(train.matrix(), len(SILOS), seed)
    parts = [train.select(np.flatnonzero(silo_of == silo)) for silo in range(len(SILOS))]
    yield f"federated item graph, epsilon {epsilon:g}", TableModel(federate(parts, epsilon))
    local = LocalModels.fit(train.matrix()).scorers()
    for name in (ITEM_GRAPH, ITEM_KNN):
        yield f"local {name}, no noise", exportable(name, local[name])


def ways(scorer: ExportableModel) -> Iterator[tuple[str, ExportableModel, bool]]:
    """Name, model and whether it is written in bytes."""
    yield "float32", scorer, False
    yield "int8", scorer, True
    if isinstance(scorer, TableModel) and scorer.recommender.right is not None:
        for share in SHARES:
            yield f"int8, {share:.0%} pruned", pruned(scorer, share), True


def measure(
    name: str, scorer: ExportableModel, train: Interactions, held_out: Interactions
) -> Iterator[dict[str, Any]]:
    """One record a way."""
    nobody = made_up_histories(scorer.popularity + np.float32(1e-6))
    whole = len(model_bytes(scorer, train.catalogue, "onnx", {}))
    for way, smaller, is_int8 in ways(scorer):
        content = model_bytes(smaller, train.catalogue, "onnx", {}, is_int8=is_int8)
        exported = OnnxScorer.of(content)
        figures = measure_privately(scorer, exported, train, held_out)
        yield {
            "model": name,
            "way": way,
            "bytes": len(content),
            "share": len(content) / whole,
            "milliseconds_a_user": milliseconds_a_user(exported, train.histories()[:500]),
            "overlap_made_up": top_overlap(scorer, exported, nobody),
            "overlap": figures.overlap,
            "before": figures.before,
            "after": figures.after,
        }


def show(result: dict[str, Any], page: Page) -> None:
    """One table."""
    show_records(f"exported files on {result['set']}", result["records"], page)


def show_records(title: str, records: Sequence[dict[str, Any]], page: Page) -> None:
    """A row for each file."""
    rows = [
        [
            record["model"], record["way"], f"{record['bytes']:,}", f"{record['share']:.1%}",
            _milliseconds(record["milliseconds_a_user"]), f"{record['overlap']:.3f}",
            f"{record['overlap_made_up']:.3f}", f"{record['after']['recall@10']:.4f}",
            f"{record['after']['ndcg@10']:.4f}",
        ]
        for record in records
    ]  # fmt: skip
    columns = [
        "model",
        "file",
        "bytes",
        "of whole",
        "ms a person",
        "same top 10",
        "made-up",
        "recall@10",
        "ndcg@10",
    ]
    page.table(title, columns, rows)


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of the sets; default: $ARCHIPEL_DATA")
    parser.add_argument("--set", default="movielens-1m")
    parser.add_argument("--epsilon", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    add_json_option(parser, "compression")
    asked = parser.parse_args(arguments)
    root = asked.data or (Path(os.environ["ARCHIPEL_DATA"]) if os.environ.get("ARCHIPEL_DATA") else None)
    if root is None:
        sys.stderr.write("name the folder of the sets: --data, or ARCHIPEL_DATA\n")
        return 2
    command = f"python benchmarks/compression.py --set {asked.set} --epsilon {asked.epsilon:g}"
    result = header("compression", command) | {"set": asked.set, "epsilon": asked.epsilon}
    train, held_out = hold_out(read(root / asked.set), "random", seed=asked.seed)
    result["records"] = [
        record
        for name, scorer in models_of(train, asked.epsilon, asked.seed)
        for record in measure(name, scorer, train, held_out)
    ]
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
