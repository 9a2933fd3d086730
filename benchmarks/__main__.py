"""Measure the topics, print a table for each, write the figures to a file if asked."""

from benchmarks import report
from benchmarks.measure import measure
from benchmarks.settings import parse


def main() -> None:
    settings = parse()
    outcomes = []
    print(report.machine(settings), flush=True)
    for topic in settings.topics:
        outcomes.append(measure(topic, settings))
        print("\n" + report.markdown(outcomes[-1]), flush=True)
    if settings.json is not None:
        report.write(settings.json, settings, outcomes)


if __name__ == "__main__":
    main()
