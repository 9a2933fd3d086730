"""Outcomes as Markdown tables, and as JSON that can be read again."""

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.goals import Finding
from benchmarks.measure import Figures, Outcome
from benchmarks.settings import Settings

MARK = "<!-- From here on written by `python -m benchmarks --markdown`. -->"
PARTIES = ("skyward-dask", "dask", "distributed", "numpy", "pandas", "loky", "pebble", "ray", "redis")


def markdown(outcome: Outcome) -> str:
    """A heading, a row for each contender, and the goals."""
    rows = [
        f"| {each.contender} | **{number(each.median)}** ({number(min(each.samples))} to "
        f"{number(max(each.samples))}) | {outcome.ratio(each):.2f} |"
        for each in outcome.figures
    ]
    head = [
        f"| | {outcome.unit} ({better(outcome)}) | times as good as {outcome.reference} |",
        "|---|---:|---:|",
    ]
    goals = [f"- {reached(each)}" for each in outcome.findings]
    return "\n".join(
        [f"### {outcome.title}", "", command(outcome), "", *head, *rows, ""] + ([*goals, ""] if goals else [])
    )


def better(outcome: Outcome) -> str:
    """Which way is better."""
    return "more is better" if outcome.higher_is_better else "less is better"


def goals(outcomes: list[Outcome]) -> str:
    """How many goals are reached, and which are not."""
    findings = [(outcome, each) for outcome in outcomes for each in outcome.findings]
    missed = [f"- {outcome.title}: {reached(each)}" for outcome, each in findings if not each.reached]
    return "\n".join([f"{len(findings) - len(missed)} of {len(findings)} are reached.", "", *missed, ""])


def reached(finding: Finding) -> str:
    """What was measured beside its goal. A difference that is less than nothing is noise around nothing."""
    missed = "" if finding.reached else ": **not reached**"
    return f"{finding.text}: {number(max(finding.value, 0))}, goal {finding.bound}{missed}"


def command(outcome: Outcome) -> str:
    repeats, load = len(outcome.figures[0].samples), outcome.load
    how = f"`python -m benchmarks {outcome.topic}`"
    return f"{how}; {outcome.taken}, {repeats} repeats, load average before it {load:.1f}"


def number(value: float) -> str:
    """Three digits: figures of one run don't carry more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def circumstances(settings: Settings) -> dict[str, Any]:
    """Where, when and how the figures are taken."""
    return {
        "taken": datetime.now(UTC).isoformat(timespec="minutes"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "versions": versions(),
        "slots": settings.slots,
        "repeat": settings.repeat,
        "seconds": settings.seconds,
        "shrink": settings.shrink,
    }


def sentence(found: dict[str, Any]) -> str:
    """The circumstances in one line."""
    parties = ", ".join(f"{name} {each}" for name, each in found["versions"].items())
    return (
        f"{found['cores']} cores, {found['system']}, Python {found['python']}; {parties}; "
        f"{found['slots']} slots, repeats interleaved."
    )


def versions() -> dict[str, str]:
    """The versions of those parties that are installed."""
    found = {}
    for name in PARTIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def fill(path: Path, found: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Write everything as Markdown, behind what a person has written into the file."""
    written = path.read_text().partition(MARK)[0] if path.exists() else ""
    tables = ["## Goals", "", goals(outcomes), "## Figures", "", *map(markdown, outcomes)]
    path.write_text(written + "\n".join([MARK, "", sentence(found), "", *tables]))


def write(path: Path, found: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Every single figure, with what is needed to take it again."""
    document = {"circumstances": found, "outcomes": [asdict(outcome) for outcome in outcomes]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def read(path: Path) -> tuple[dict[str, Any], list[Outcome]]:
    """What `write` has written."""
    document = json.loads(path.read_text())
    found = document["circumstances"]
    return found, [_outcome(**{"taken": found["taken"][:10]} | each) for each in document["outcomes"]]


def _outcome(figures: list[dict[str, Any]], findings: list[dict[str, Any]], **rest: Any) -> Outcome:
    return Outcome(
        figures=tuple(Figures(each["contender"], tuple(each["samples"])) for each in figures),
        findings=tuple(Finding(**each) for each in findings),
        **rest,
    )
