"""Measure the topics, print a table for each, write figures, tables and a picture if asked."""

from benchmarks import report
from benchmarks.measure import Outcome, measure
from benchmarks.plot import draw
from benchmarks.settings import Settings, parse


def main() -> None:
    settings = parse()
    if settings.read is not None:
        found, known = report.read(settings.read)
        outcomes = [outcome for outcome in known if outcome.topic in settings.topics]
    else:
        found = report.circumstances(settings)
        outcomes = measured(settings)
    write(settings, found, outcomes)


def measured(settings: Settings) -> list[Outcome]:
    outcomes = []
    for topic in settings.topics:
        outcomes.append(measure(topic, settings))
        print(report.markdown(outcomes[-1]), flush=True)
    return outcomes


def write(settings: Settings, found: dict, outcomes: list[Outcome]) -> None:
    if settings.json is not None:
        report.write(settings.json, found, outcomes)
    if settings.markdown is not None:
        settings.markdown.write_text("\n".join([report.sentence(found), "", *map(report.markdown, outcomes)]))
    if settings.plot is not None:
        draw(settings.plot, outcomes)
    print(report.sentence(found))


if __name__ == "__main__":
    main()
