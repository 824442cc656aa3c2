"""The lobby: mounts each package's commands under ``archipel``. No logic.

A room is imported when somebody enters it: the process of a coordinator then holds no code that sees rows.
Command modules import what is heavy inside their commands, so that ``archipel --help`` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from policies.option_groups import SectionedCommand

ROOMS = {
    "demo": "silo.demo.commands:demo",
    "silo": "silo.commands:silo_app",
    "data": "silo.data.commands:data_app",
    "plan": "policies.plans.commands:plan_app",
    "job": "federation.commands:job_app",
    "align": "silo.align_commands:align_app",
    "recommend": "silo.recommend_commands:recommend",
    "fit": "silo.local.commands:fit",
    "compare": "silo.local.commands:compare",
    "evaluate": "silo.evaluation_commands:evaluate",
    "export": "silo.export.commands:export",
    "compress": "silo.export.commands:compress",
    "tune": "silo.tuning.commands:tune",
    "adapt": "silo.adapting.commands:adapt",
    "consent": "silo.vertical.serving.commands:consent_app",
    "merge": "silo.vertical.merging.commands:merge_app",
    "coordinator": "federation.commands:coordinator_app",
    "policy": "policies.policy_commands:policy_app",
    "charter": "policies.charters.commands:charter_app",
    "audit": "silo.audit.commands:audit_app",
}
GUESTS = {"plan": {"forecast": "silo.commands:forecast"}}  # a forecast needs a silo's rows and policy


class Lobby(TyperGroup):
    """The group of all commands, each known by its place until it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Click's signature
        """Names, in the order of the list above."""
        return list(ROOMS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, imported now; None if there is none."""
        if cmd_name not in ROOMS:
            return None
        room = _found(ROOMS[cmd_name])
        for name, place in GUESTS.get(cmd_name, {}).items():
            room.command(name)(_found(place))
        door = typer.Typer(add_completion=False, rich_markup_mode=None)
        if not isinstance(room, typer.Typer):
            door.command(cmd_name, cls=SectionedCommand)(room)
            return typer.main.get_command(door)
        door.add_typer(room, name=cmd_name)
        return typer.main.get_group(door).get_command(ctx, cmd_name)


def _found(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


app = typer.Typer(
    name="archipel",
    cls=Lobby,
    help="Organisations that may not pool their data learn one private recommender together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _enter() -> None:
    pass


def main() -> None:
    """Entry point of the ``archipel`` command."""
    app()


if __name__ == "__main__":
    main()
