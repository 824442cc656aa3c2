"""What ``archipel data check`` and ``clean`` print for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from silo.data.inspecting import InspectedFile
from silo.data.quality import Finding, Quality
from silo.data.rewriting import STATEMENT, Cleaned


def describe_quality(quality: Quality) -> Iterator[str]:
    """Sizes and ranges, then each finding with its count."""
    smallest, median, high, largest = quality.rows_per_user
    yield f"{quality.rows:,} rows of {quality.users:,} users and {quality.items:,} items"
    yield f"rows a user: {smallest:,} to {largest:,}, median {median:,}, 99 % of them up to {high:,}"
    if quality.first_time is not None:
        yield f"times: {quality.first_time} to {quality.last_time}"
    for name, (low, mean, top) in quality.values.items():
        yield f"{name}: {low:g} to {top:g}, mean {mean:.3g}"
    if quality.events:
        yield "events: " + ", ".join(f"{name} {count:,}" for name, count in quality.events.items())
    yield from describe_findings(quality.findings)


def describe_findings(findings: Iterable[Finding]) -> Iterator[str]:
    """One line each: ``!`` for a problem, ``·`` for what is good to know."""
    for finding in findings:
        yield f"{'!' if finding.is_problem else '·'} {finding.count:,} {finding.text}"


def describe_file(found: InspectedFile) -> Iterator[str]:
    """A file that no policy names yet, with the lines that would name it."""
    yield from describe_quality(found.quality)
    yield "for policy.yaml:" if found.columns else "suggestion:"
    yield from (f"  {line}" for line in found.suggestion)


def describe_cleaned(cleaned: Cleaned) -> Iterator[str]:
    """What a cleaned copy is, and how to use it."""
    yield f"{cleaned.path}: readable by its owner only"
    yield from (f"  {line}" for line in cleaned.report.lines())
    yield STATEMENT
    yield "for policy.yaml:"
    yield from (f"  {line}" for line in cleaned.suggestion)
