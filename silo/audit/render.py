"""An audit report as one HTML file: no script, nothing fetched, prints well."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from jinja2 import ChoiceLoader, Environment, FunctionLoader, StrictUndefined

from silo.audit.chart import Chart, chart_of
from silo.audit.report import AuditReport


def render(report: AuditReport) -> str:
    """The page. Whatever comes from the record is escaped.

    Args:
        report: the audit.

    Returns:
        A complete document with its own style sheet and drawings.
    """
    return (
        pages()
        .get_template("report.html")
        .render(report=report, charts=charts_of(report), verdict=verdict(report))
    )


def pages(*packages: str) -> Environment:
    """What every page is made with: everything escaped, nothing silently absent.

    Args:
        packages: whose ``templates`` are looked at before those of the report.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=ChoiceLoader([FunctionLoader(partial(_source, name)) for name in (*packages, "silo.audit")]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["epsilon"] = _epsilon
    environment.filters["probability"] = _probability
    environment.filters["moment"] = _moment
    environment.filters["second"] = _second
    return environment


def charts_of(report: AuditReport) -> dict[str, Chart]:
    """The drawing of each account."""
    return (
        {account.account: chart_of(account) for account in report.spending.accounts}
        if report.spending
        else {}
    )


def _source(package: str, name: str) -> str | None:
    path = files(package).joinpath("templates", name)
    return path.read_text(encoding="utf-8") if path.is_file() else None


def verdict(report: AuditReport) -> str:
    """``clean``, ``warning`` or ``error``: what was found in one word."""
    severities = {item.severity for item in report.findings}
    if "error" in severities or report.unreadable:
        return "error"
    return "warning" if severities else "clean"


def _epsilon(value: float | None, absent: str = "unbounded") -> str:
    return absent if value is None else f"{value:.3f}"


def _probability(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")


def _second(text: str) -> str:
    """A time to the second; anything else as it stands."""
    return f"{text[:10]} {text[11:19]}" if len(text) >= 19 and text[10] == "T" else text


def _moment(text: str) -> str:
    """A time to the minute; anything else as it stands."""
    return f"{text[:10]} {text[11:16]}" if len(text) >= 16 and text[10] == "T" else text
