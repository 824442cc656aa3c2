"""What bytes cost networks, and an index of items any model: size, time, lists and quality of exported files.

A smaller marketplace than that of ``federated_sequence.py``, in four silos, the last item by time held out;
an item graph, and networks from weights of a public eighth of the people, are learnt by the production
families under one epsilon (delta 1e-5, one colluding silo covered). Each is exported as ONNX, whole and in
bytes, and run by ONNX Runtime on one thread; its item vectors as an index in bytes. Lists are compared with
those of the model itself, of people and of made-up histories. Bytes come from the weights' own ranges:
nothing is calibrated.

    python benchmarks/compression_networks.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from compression import measure, show_records
from local_blend import federate
from reporting import Page, Terminal, add_json_option, header, write
from sequence_scene import MARKETPLACE, SETTINGS, Scene

from silo.data.interactions import Interactions
from silo.demo.simulation import simulate
from silo.export.index import IndexedModel, ItemIndex
from silo.export.measuring import made_up_histories, measure_privately, top_overlap
from silo.export.scorers import ExportableModel, exportable
from silo.export.writing import model_bytes


def models_of(asked: argparse.Namespace) -> Iterator[tuple[str, ExportableModel, Scene]]:
    """What is exported, by name, and whose lists it makes."""
    small = replace(SETTINGS[MARKETPLACE], users=asked.users, items=asked.items, rounds=asked.rounds)
    scene = Scene(small, asked.seed, None)
    yield (
        f"item graph, epsilon {asked.epsilon:g}",
        exportable("", federate(scene.parts, asked.epsilon)),
        scene,
    )
    for architecture in asked.architectures:
        scene = Scene(replace(small, architecture=architecture), asked.seed, None)
        model = simulate(replace(scene.federation(asked.epsilon), start=scene.start[0]))
        yield f"{architecture}, epsilon {asked.epsilon:g}", exportable("", model), scene


def measure_index(
    name: str, model: ExportableModel, train: Interactions, held_out: Interactions
) -> Iterator[dict[str, Any]]:
    """One record of the items' side in bytes, where the model has one."""
    model = model.balanced()
    vectors = model.item_vectors()
    if vectors is None:
        return
    indexed = IndexedModel(model, ItemIndex.of(vectors))
    figures = measure_privately(model, indexed, train, held_out)
    content = len(model_bytes(model, train.catalogue, "index", {}))
    whole = vectors.vectors.nbytes + vectors.bias.nbytes + vectors.popularity.nbytes
    yield {
        "model": name,
        "way": "index, int8",
        "bytes": content,
        "share": content / whole,
        "milliseconds_a_user": None,
        "overlap_made_up": top_overlap(
            model, indexed, made_up_histories(model.popularity + np.float32(1e-6))
        ),
        "overlap": figures.overlap,
        "before": figures.before,
        "after": figures.after,
    }


def show(result: dict[str, Any], page: Page) -> None:
    """One table."""
    title = f"exported files on the marketplace, {result['users']:,} people, {result['items']:,} items"
    show_records(title, result["records"], page)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=2_048)
    parser.add_argument("--items", type=int, default=1_200)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architectures", nargs="*", default=["transformer", "gru"])
    add_json_option(parser, "compression_networks")
    words = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser.parse_args(words)
    start = time.process_time()
    result = header("compression_networks", " ".join(["python benchmarks/compression_networks.py", *words]))
    result |= {"items": asked.items, "records": []}
    for name, model, scene in models_of(asked):
        result["users"] = scene.members.num_users
        result["records"] += [*measure(name, model, scene.members, scene.held_out)]
        result["records"] += [*measure_index(name, model, scene.members, scene.held_out)]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
