"""The lobby: mounts each package's commands under ``archipel``. No logic.

Command modules import what is heavy inside their commands, so that ``archipel --help`` answers at once.
"""

from __future__ import annotations

import typer

from federation.commands import coordinator_app, job_app
from policies.commands import charter_app, policy_app
from policies.plan_commands import plan_app
from silo.audit.commands import audit_app
from silo.commands import evaluate, forecast, recommend, silo_app
from silo.data.commands import data_app
from silo.demo.commands import demo

app = typer.Typer(
    name="archipel",
    help="Organisations that may not pool their data learn one private recommender together.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

plan_app.command("forecast")(forecast)

app.command("demo")(demo)
app.add_typer(silo_app, name="silo", rich_help_panel="Institutions")
app.add_typer(data_app, name="data", rich_help_panel="Institutions")
app.add_typer(plan_app, name="plan", rich_help_panel="Institutions")
app.add_typer(job_app, name="job", rich_help_panel="Institutions")
app.command("recommend", rich_help_panel="Institutions")(recommend)
app.command("evaluate", rich_help_panel="Institutions")(evaluate)
app.add_typer(coordinator_app, name="coordinator", rich_help_panel="Institutions")
app.add_typer(policy_app, name="policy", rich_help_panel="Administrators")
app.add_typer(charter_app, name="charter", rich_help_panel="Administrators")
app.add_typer(audit_app, name="audit", rich_help_panel="Auditors")


def main() -> None:
    """Entry point of the ``archipel`` command."""
    app()


if __name__ == "__main__":
    main()
