"""Measure the topics, print a table for each, write figures, tables and a picture if asked."""

from benchmarks import report
from benchmarks.measure import Outcome, measure
from benchmarks.plot import draw
from benchmarks.settings import Settings, parse


def main() -> None:
    settings = parse()
    found = report.circumstances(settings)
    known: dict[str, Outcome] = {}
    for path in settings.read:
        found, outcomes = report.read(path)
        known |= {outcome.topic: outcome for outcome in outcomes}
    if not settings.read:
        measure_all(settings, found, known)
    write(settings, found, [known[topic] for topic in settings.topics if topic in known])


def measure_all(settings: Settings, found: dict, known: dict[str, Outcome]) -> None:
    for topic in settings.topics:
        known[topic] = measure(topic, settings)
        print(report.markdown(known[topic]), flush=True)
        if settings.json is not None:  # now: a run that is broken off has something to show
            report.write(settings.json, found, list(known.values()))


def write(settings: Settings, found: dict, outcomes: list[Outcome]) -> None:
    if settings.json is not None:
        report.write(settings.json, found, outcomes)
    if settings.markdown is not None:
        report.fill(settings.markdown, found, outcomes)
    if settings.plot is not None:
        draw(settings.plot, outcomes)
    print(report.sentence(found))


if __name__ == "__main__":
    main()
