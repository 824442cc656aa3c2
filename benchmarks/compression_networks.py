"""What bytes cost networks, and an index of items any model: size, time, lists and quality of exported files.

The marketplace of ``sequence_marketplace.py``: synthetic people with visits of one taste in four silos, the
last item by time held out; networks and an item graph learnt by the production families under one epsilon
(delta 1e-5, one colluding silo covered). Each is exported as ONNX, whole and in bytes, and run by ONNX
Runtime on one thread; its item vectors as an index in bytes. Lists are compared with those of the model
itself, of people and of made-up histories. Bytes come from the weights' own ranges: nothing is calibrated.

    python benchmarks/compression_networks.py
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from compression import measure, show_records
from local_blend import federate
from reporting import Page, Terminal, add_json_option, header, write
from sequence_marketplace import SILOS, plan_of

from silo.data.cleaning import clean
from silo.data.interactions import Interactions
from silo.data.splits import hold_out, partition_by_taste
from silo.data.synthetic import marketplace
from silo.demo.simulation import Simulation, simulate
from silo.export.index import IndexedModel, ItemIndex
from silo.export.measuring import made_up_histories, measure_privately, top_overlap
from silo.export.scorers import ExportableModel, exportable
from silo.export.writing import model_bytes


def models_of(
    parts: Sequence[Interactions], asked: argparse.Namespace
) -> Iterator[tuple[str, ExportableModel]]:
    """What is exported, by name."""
    yield f"item graph, epsilon {asked.epsilon:g}", exportable("federated", federate(parts, asked.epsilon))
    for architecture in asked.architectures:
        named = argparse.Namespace(**{**vars(asked), "architecture": architecture})
        plan = plan_of(parts, named, asked.epsilon)
        model = simulate(Simulation(plan, tuple(parts), 1, 1.0, is_clamped=True))
        yield f"{architecture}, epsilon {asked.epsilon:g}", exportable("federated", model)


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
    parser.add_argument("--places", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epsilon", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architectures", nargs="*", default=["transformer", "gru"])
    add_json_option(parser, "compression_networks")
    words = sys.argv[1:] if arguments is None else list(arguments)
    asked = parser.parse_args(words)
    start = time.process_time()
    result = header("compression_networks", " ".join(["python benchmarks/compression_networks.py", *words]))
    public = marketplace(asked.seed, asked.users, asked.items)
    everything, _ = clean(public.rows, public.catalogue, max_interactions_per_user=200)
    train, held_out = hold_out(everything, "last", seed=asked.seed)
    silo_of = partition_by_taste(train.matrix(), len(SILOS), asked.seed)
    parts = [train.select(np.flatnonzero(silo_of == silo)) for silo in range(len(SILOS))]
    result |= {"users": train.num_users, "items": asked.items, "records": []}
    for name, model in models_of(parts, asked):
        result["records"] += [*measure(name, model, train, held_out)]
        result["records"] += [*measure_index(name, model, train, held_out)]
    result["processor_minutes"] = round((time.process_time() - start) / 60, 1)
    show(result, Terminal(asked.json))
    write(result, asked.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
