"""A shop that was in no job: it gets what the job released, and adopts it over its own items."""

from __future__ import annotations

import json
import shutil
from typing import Any

from silo.demo.language.dataset import LanguageData
from silo.demo.language.staging import LanguageStaging
from silo.demo.processes import Processes
from silo.demo.world import World


def welcome(
    world: World, data: LanguageData, staging: LanguageStaging, job: str, processes: Processes
) -> dict[str, Any]:
    """Make the newcomer's directory and let it adopt the checkpoint that a member hands over.

    Returns:
        What ``archipel silo adopt`` says of it.
    """
    name = data.newcomer.name
    directory, member = world.silo(name), world.silo(world.names[0])
    processes.command("silo", "init", "--name", name, "--dir", directory)
    staging.fill(name, directory)
    (directory / "policy.yaml").write_text(staging.policy(name))
    received = directory / "received"
    received.mkdir()
    left = {
        "plan.yaml": member / "jobs" / job / "plan.yaml",
        "checkpoint.safetensors": member / "jobs" / job / "checkpoint.safetensors",
        "texts.jsonl": member / "catalogues" / f"{staging.catalogue.sha256}.jsonl",
    }
    for file, path in left.items():
        shutil.copyfile(path, received / file)
    said = received / "adopted.json"
    processes.command(
        "silo", "adopt", received / "checkpoint.safetensors", "--plan", received / "plan.yaml",
        "--catalogue", received / "texts.jsonl", "--dir", directory, "--json", said,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(said.read_text())
    return found
