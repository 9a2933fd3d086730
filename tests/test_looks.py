"""What users see when they look: at the package's names, at what it returns, with help, TAB and print."""

from __future__ import annotations

import pickle
import pydoc

import cloudpickle
import pytest

import skyward_dask as sky
from skyward_dask.extension.client.tables import as_html, as_text

PUBLIC = [name for name in dir(sky) if name != "__version__"]


def test_names() -> None:
    """Those that users have, `dict` and `set` too, and no others; `import *` spares the builtins."""
    assert set(PUBLIC) == {*sky.__all__, "dict", "set"}
    assert all(callable(getattr(sky, name)) for name in PUBLIC)
    with pytest.raises(AttributeError, match=r"has no attribute 'shards'$"):
        _ = sky.shards  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", PUBLIC)
def test_each_is_known_by_its_public_name(name: str) -> None:
    """In help and in tracebacks; and it is pickled by reference as any function or class of a module."""
    value = getattr(sky, name)
    assert value.__module__ == "skyward_dask" and value.__doc__
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(value)) is value and len(dumps(value)) < 100


@pytest.mark.parametrize("name", PUBLIC)
def test_help_shows_public_types_only(name: str) -> None:
    """And no parts of ours."""
    assert "Steps[" not in pydoc.plain(pydoc.render_doc(getattr(sky, name)))


TEXT = """\
worker                executor  slots  busy  done  crashes  kills    memory    CPU
tcp://10.0.0.5:40331  process       2     1    15        1      0  2.00 MiB  0.8 s

place  reason  tasks
child  plain      15

prefix  runs    CPU   wall  peak memory  over limit  timeouts  crashes
f         15  0.8 s  1.5 s     1.00 MiB           0         0        1

collection  kind  hosts                 standby  size  waiting  operations
<seen>      set   tcp://10.0.0.5:40331              4        0           9
"""


def statistics() -> sky.Statistics:
    slots = (
        sky.SlotStatistics(0, "busy", 17, "f-1", 3, 1, 0, 2**20, 0.25),
        sky.SlotStatistics(1, "idle", 18, None, 12, 0, 0, 2**20, 0.5),
    )
    workers = {"tcp://10.0.0.5:40331": sky.WorkerStatistics("process", 2, slots)}
    collection = sky.Collection("<seen>", "set", {}, ("tcp://10.0.0.5:40331",), (), False, 9, 4, 0)
    prefixes = {"f": sky.PrefixStatistics(15, 0.75, 1.5, 2**20, 0, 0, 1)}
    return sky.Statistics(workers, {("child", "plain"): 15}, {"<seen>": collection}, prefixes)


def test_statistics_are_tables() -> None:
    """At a prompt, printed and in a notebook."""
    found = statistics()
    assert str(found) == repr(found) and repr(found).splitlines() == TEXT.splitlines()
    shown = found._repr_html_()
    assert shown.count("<table>") == 4 and "&lt;seen&gt;" in shown and "<seen>" not in shown
    assert repr(found.workers["tcp://10.0.0.5:40331"]) == "<2 process slots, 1 busy, 15 tasks done>"
    assert repr(sky.Statistics({}, {}, {}, {})) == "no workers with slots"


def test_a_check_says_its_verdict() -> None:
    """Everywhere in the same words."""
    worker = sky.WorkerCheck({}, "process", ("fork", "memfd"), {0: "", 1: ""})
    for problems, verdict in ((), "all is well"), (("<one>", "two"), "<one>\ntwo"):
        check = sky.Check({}, {}, {"tcp://10.0.0.5:40331": worker}, problems)
        assert str(check) == repr(check) == f"tcp://10.0.0.5:40331: process, 2 slots; fork memfd\n{verdict}"
        assert ("&lt;one&gt;" in check._repr_html_()) == bool(problems)
    assert repr(worker) == "<process, 2 slots; fork memfd>"


def test_tables_of_any_length() -> None:
    """One without rows has its heads; one that no screen holds is cut."""
    assert as_text(("name", "size"), []) == "name  size"
    assert as_html(("name",), []) == '<table><tr><th style="text-align: left">name</th></tr></table>'
    lines = as_text(("name", "size"), [(f"n{n}", n) for n in range(100)]).splitlines()
    assert len(lines) == 41 and lines[1] == "n0              0" and lines[-1] == "... 61 more"
