"""What tasks print: shown at the client while it watches, and hidden where a function says so."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import cloudpickle
import pytest
from distributed import Client

import skyward_dask as sky


def talk(n: int) -> None:
    print("begin", n)
    sys.stderr.write("a complaint\n")
    print("\rhalf\rdone")
    print("end", end="")


async def talk_on_the_loop(n: int) -> None:
    talk(n)
    await asyncio.sleep(0)


SAID = {"stdout": ["begin 7", "done", "end"], "stderr": ["a complaint"]}
Said = dict[str, dict[str, list[str]]]


def said(lines: list[sky.OutputLine]) -> Said:
    """The texts, by key and stream."""
    found: Said = defaultdict(lambda: {"stdout": [], "stderr": []})
    for line in lines:
        found[line.key][line.stream].append(line.text)
    return found


def test_what_tasks_print_is_shown(shared_client: Client) -> None:
    """Each line once, in order, with its key and its worker; nothing before and nothing after."""
    client, lines = shared_client, list[sky.OutputLine]()
    client.submit(talk, 7, pure=False).result(timeout=200)
    with (
        sky.output(client, to=lines.append),
        sky.output(client, to=(others := list[sky.OutputLine]()).append),
    ):
        futures: list[Any] = [client.submit(f, 7, pure=False) for f in (talk, talk, talk_on_the_loop)]
        client.gather(futures)
    client.submit(talk, 7, pure=False).result(timeout=200)
    assert said(lines) == said(others) == {future.key: SAID for future in futures}
    assert {line.worker for line in lines} == set(client.nthreads())
    assert str(lines[0]) == f"{lines[0].key}: {lines[0].text}"
    assert isinstance(sys.stdout.fileno(), int)  # nothing stands in for it here


def flood() -> None:
    for n in range(20_000):
        print(n)


def test_a_flood_is_bounded(shared_client: Client) -> None:
    """What was left out is counted."""
    lines: list[sky.OutputLine] = []
    with sky.output(shared_client, to=lines.append):
        shared_client.submit(flood, pure=False).result(timeout=200)
    shown = [int(line.text) for line in lines if not line.left_out]
    assert shown == sorted(shown) and shown[0] == 0
    assert 0 < sum(line.left_out for line in lines) == 20_000 - len(shown)
    assert any("print more than 1,000 in a second" in str(line) for line in lines)


def test_an_asynchronous_client(shared_client: Client) -> None:
    lines: list[sky.OutputLine] = []

    async def main() -> str:
        address = shared_client.scheduler_info()["address"]
        async with Client(address, asynchronous=True, set_as_default=False) as client:
            with pytest.raises(sky.ConfigurationError, match="write `async with`"), sky.output(client):
                pass
            async with sky.output(client, to=lines.append):
                future: Any = client.submit(talk, 7, pure=False)
                await future
                return str(future.key)

    key = asyncio.run(main())
    assert said(lines) == {key: SAID}


def test_who_cannot_show_a_line_is_told(shared_client: Client) -> None:
    """At the end of the block; other users of the client don't notice."""
    with pytest.raises(ZeroDivisionError), sky.output(shared_client, to=lambda line: 1 / 0):
        assert shared_client.submit(talk, 7, pure=False).result(timeout=200) is None


@pytest.mark.parametrize(
    ("mistake", "instead"),
    [
        (lambda client: sky.output(5), "client must be a dask.distributed.Client, not 5"),
        (lambda client: sky.output(client, to=5), "a function that takes a line, not 5"),
        (lambda client: sky.output(client, [].append), "it takes client, to"),
    ],
)
def test_mistakes(shared_client: Client, mistake: Callable[[Client], object], instead: str) -> None:
    with pytest.raises(sky.ConfigurationError, match=instead):
        mistake(shared_client)


def test_a_cluster_without_slots() -> None:
    """Nobody there would tell."""
    with (
        Client(processes=False, n_workers=1, protocol="tcp", dashboard_address=None) as client,
        pytest.raises(sky.ConfigurationError, match=r"no worker .* has skyward_dask slots"),
        sky.output(client),
    ):
        pass


@sky.stdout(only="head")
@sky.function
def by_the_head(n: int) -> None:
    talk(n)


@sky.function(timeout="1h")
@sky.stdout(only=1)
def by_node_one(n: int) -> None:
    talk(n)
    os.system("echo and another process")


@sky.function
@sky.stderr(only=lambda info: info.total_nodes == 7)
@sky.stdout(only=lambda info: info.total_nodes == 1)
async def as_is_said(n: int) -> None:
    await talk_on_the_loop(n)


def talk_together(n: int) -> None:
    """Two of them print at the same time, in threads of one process."""
    sky.barrier("both", 2).wait(timeout=200)
    talk(n)
    sky.barrier("both", 2).wait(timeout=200)


@sky.silent
@sky.function
def quiet(n: int) -> int:
    talk_together(n)
    return n


@sky.function
def loud(n: int) -> None:
    talk_together(n)


def test_whose_output_is_kept(shared_client: Client, executor: str) -> None:
    """Of a function, in either order with `function`; others that print at the same time aren't affected."""
    lines: list[sky.OutputLine] = []
    by_value = cloudpickle.loads(cloudpickle.dumps(sky.function(sky.silent(lambda: talk(7)))))
    with sky.output(shared_client, to=lines.append):
        for steps in (count, count_on_the_loop):
            assert list(sky.function(steps)(3) >> shared_client) == [0, 1, 2]
        by_the_head(7) >> shared_client
        as_is_said(7) >> shared_client
        by_value() >> shared_client
        assert (quiet(7) & loud(7)) >> shared_client == (7, None)
        if executor == "process":
            by_node_one(7).with_timeout(200) >> shared_client
    found = {key.rpartition("-")[0]: texts for key, texts in said(lines).items()}
    expected = {"by_the_head": SAID, "as_is_said": SAID | {"stderr": []}, "loud": SAID}
    if executor == "process":
        expected["by_node_one"] = SAID | {"stdout": []}
    assert found == expected


@sky.silent
async def count_on_the_loop(most: int) -> AsyncIterator[int]:
    for n in range(most):
        print(n)
        yield n


@sky.silent
def count(most: int) -> Iterator[int]:
    """Numbers."""
    for n in range(most):
        print(n)
        yield n


async def numbers_of_the_loop() -> list[int]:
    return [n async for n in count_on_the_loop(2)]


def test_outside_a_task(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is the head, and all is kept, except what is silent everywhere."""
    by_the_head.local(7)
    assert capsys.readouterr().out.startswith("begin 7\n")
    quiet_talk = sky.silent(talk)
    quiet_talk(7)
    asyncio.run(sky.silent(talk_on_the_loop)(7))
    numbers = count(3)
    assert [next(numbers), next(numbers)] == [0, 1]
    print("between")
    assert list(numbers) == [2] and count.__doc__ == "Numbers."
    assert asyncio.run(numbers_of_the_loop()) == [0, 1]
    assert capsys.readouterr() == ("between\n", "")
    with pytest.raises(sky.OperatorError, match="missing a required argument: 'n'"):
        by_node_one()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("mistake", "instead"),
    [
        (
            lambda: sky.stdout(only="tail"),
            "stdout: only must be 'head', the number of a node, or .*, not 'tail'",
        ),
        (lambda: sky.stderr(only=-1), "stderr: only must be .*, not -1"),
        (lambda: sky.stdout(only=True), "not True"),
        (lambda: sky.stdout(talk), r'it takes only\. Write `@skyward_dask\.stdout\(only="head"\)`'),
        (lambda: sky.stdout(), "missing a required argument: 'only'"),
        (lambda: sky.silent(5), "and an int is none"),
        (lambda: sky.silent(quiet(1)), "and a Call is none: write the decorator above"),
    ],
)
def test_mistakes_of_decorators(mistake: Callable[[], object], instead: str) -> None:
    """When the decorator is applied."""
    with pytest.raises(sky.ConfigurationError, match=instead):
        mistake()
