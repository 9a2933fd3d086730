"""Outcomes as a Markdown table, and as JSON."""

import json
import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.measure import Outcome
from benchmarks.settings import Settings

PARTIES = ("skyward-dask", "dask", "distributed", "numpy", "loky", "pebble")


def markdown(outcome: Outcome) -> str:
    """A heading, and a row for each contender: median, least to greatest, ratio to the reference."""
    rows = [
        f"| {each.contender} | {number(each.median)} | {number(min(each.samples))} to "
        f"{number(max(each.samples))} | {outcome.ratio(each):.2f} × |"
        for each in outcome.figures
    ]
    head = [
        f"| | {outcome.unit}, median | spread | beside {outcome.reference} |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([f"### {outcome.title}", "", *head, *rows, ""])


def number(value: float) -> str:
    """Three digits: figures of one run don't carry more."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def machine(settings: Settings) -> str:
    """One line that says where and how the figures were taken."""
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.system()} "
        f"{platform.release()}; "
        + ", ".join(f"{name} {found}" for name, found in versions().items())
        + f"; {settings.slots} slots, {settings.repeat} repeats, interleaved."
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


def write(path: Path, settings: Settings, outcomes: list[Outcome]) -> None:
    """Every single figure, with what is needed to take it again."""
    document = {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.platform(),
        },
        "versions": versions(),
        "settings": {**asdict(settings), "json": str(path)},
        "outcomes": [asdict(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(document, indent=2) + "\n")
