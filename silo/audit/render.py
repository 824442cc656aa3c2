"""An audit report as one HTML file: no script, nothing fetched, prints well."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined

from silo.audit.chart import chart_of
from silo.audit.report import AuditReport

_TEMPLATES = "templates"


def render(report: AuditReport) -> str:
    """The page. Whatever comes from the record is escaped.

    Args:
        report: the audit.

    Returns:
        A complete document with its own style sheet and drawings.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_source),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["epsilon"] = _epsilon
    environment.filters["probability"] = _probability
    environment.filters["moment"] = _moment
    charts = [chart_of(account) for account in report.spending.accounts] if report.spending else []
    return environment.get_template("report.html").render(
        report=report, charts={chart.account: chart for chart in charts}, verdict=_verdict(report)
    )


def _source(name: str) -> str:
    return files("silo.audit").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _verdict(report: AuditReport) -> str:
    severities = {item.severity for item in report.findings}
    if "error" in severities or report.unreadable:
        return "error"
    return "warning" if severities else "clean"


def _epsilon(value: float | None, absent: str = "unbounded") -> str:
    return absent if value is None else f"{value:.3f}"


def _probability(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")


def _moment(text: str) -> str:
    """A time to the minute; anything else as it stands."""
    return f"{text[:10]} {text[11:16]}" if len(text) >= 16 and text[10] == "T" else text
