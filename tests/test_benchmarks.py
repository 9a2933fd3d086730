"""The benchmarks' own arithmetic: order of visits, ratios, goals, and what is written of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from benchmarks import report
from benchmarks.goals import Finding, Goal, difference, judged, ratio
from benchmarks.measure import Figures, Outcome, interleaved, topics
from benchmarks.plot import MARGIN, WIDTH, draw

OUTCOME = Outcome(
    topic="cpu",
    title="A title",
    unit="ms",
    reference="theirs",
    higher_is_better=False,
    figures=(Figures("ours", (1.0, 4.0, 3.0)), Figures("theirs", (2.0, 2.0, 6.0))),
    findings=(Finding("times theirs", 0.5, "≤ 1", True),),
    load=0.5,
    taken="2026-11-26",
)


def test_each_repeat_visits_all_and_the_first_counts_for_nothing() -> None:
    """So what wanders, wanders for all."""
    visits: list[str] = []

    def visit(name: str) -> float:
        visits.append(name)
        return float(len(visits))

    samples = interleaved({name: lambda name=name: visit(name) for name in "abc"}, repeat=4)  # type: ignore[misc]
    rounds = [visits[n : n + 3] for n in range(0, 15, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert [len(values) for values in samples.values()] == [4, 4, 4] and min(map(min, samples.values())) == 4


def test_ratios_are_taken_within_a_repeat() -> None:
    """Their median, not the ratio of medians."""
    assert OUTCOME.ratio(OUTCOME.figures[0]) == 2.0
    samples = {each.contender: each.samples for each in OUTCOME.figures}
    assert not judged(Goal("", ratio("ours", "theirs"), most=0.4), samples).reached
    assert judged(Goal("", difference("ours", "theirs"), least=-1), samples).value == -1


def test_what_is_written_can_be_read_again(tmp_path: Path) -> None:
    """The text that a person wrote stays before the tables."""
    report.write(tmp_path / "x.json", {"taken": ""}, [OUTCOME])
    assert report.read(tmp_path / "x.json") == ({"taken": ""}, [OUTCOME])
    page = tmp_path / "page.md"
    page.write_text("A text.\n\n")
    found = {"cores": 2, "system": "", "python": "", "versions": {}, "slots": 2}
    for _ in range(2):
        report.fill(page, found, [OUTCOME])
    assert page.read_text().startswith("A text.\n\n<!--")
    assert page.read_text().count("| ours | **3** (1 to 4) | 2.00 |") == 1


def test_a_picture_is_no_wider_than_a_column_and_says_which_way_is_better(tmp_path: Path) -> None:
    """Its bars end where its texts do."""
    draw(tmp_path / "x.svg", [OUTCOME, replace(OUTCOME, figures=(Figures("<slow>", (1.0, 50.0)),))])
    picture = ElementTree.parse(tmp_path / "x.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    bars = [each for each in picture.iter(f"{space}rect") if each.get("class") in ("ours", "theirs")]
    assert len(bars) == 3 and all(float(each.get("width", "")) <= WIDTH - 2 * MARGIN for each in bars)
    words = [each.text or "" for each in picture.iter(f"{space}text")]
    assert "ms, less is better" in words and "ms, less is better, logarithmic bars" in words
    assert "<slow>" in words


def test_a_difference_below_nothing_is_nothing() -> None:
    """It is noise."""
    assert report.reached(Finding("ms beyond", -0.08, "≤ 1", True)) == "ms beyond: 0, goal ≤ 1"


def test_the_page_shows_what_there_is() -> None:
    """Each topic that the page tells of can be measured."""
    page = (Path(__file__).parents[1] / "docs" / "benchmarks.md").read_text()
    told = {line.split("`")[1].split()[-1] for line in page.splitlines() if "load average before it" in line}
    assert told and told <= set(topics())
