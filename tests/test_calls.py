"""Calls as values, without a cluster: what they are, and what operators refuse."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable

import cloudpickle
import pytest

import skyward_dask as sky
from skyward_dask.api.calls import Call


@sky.function
def double(x: int) -> int:
    """Twice as much."""
    return 2 * x


def test_a_call_runs_nothing() -> None:
    """It is a value that shows what it would do."""
    ran = []
    noted = sky.function(ran.append)
    call = noted(1)
    assert isinstance(call, Call) and ran == []
    assert repr(double(4)) == "double(4)" and repr(double(x=4)) == "double(x=4)"


def test_local_runs_here() -> None:
    """And the function keeps its name and its words."""
    assert double.local(4) == 8
    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


def test_a_modules_function_is_pickled_by_reference() -> None:
    """Like any function; what a task ships stays small."""
    for dumps in (pickle.dumps, cloudpickle.dumps):
        assert pickle.loads(dumps(double)) is double
        assert len(dumps(double)) < 100


def test_a_closure_is_pickled_by_value() -> None:
    """Like any closure, by cloudpickle."""
    factor = 3

    @sky.function
    def times(x: int) -> int:
        return factor * x

    assert pickle.loads(cloudpickle.dumps(times)).local(5) == 15


@pytest.mark.parametrize(
    "combine",
    [
        lambda: double(1) >> 5,
        lambda: double(1) > 5,
        lambda: (double(1) & double(2)) >> 5,
        lambda: sky.gather(double(1)) >> 5,
    ],
)
def test_operators_take_a_compute(combine: Callable[[], object]) -> None:
    """Anything else on the right is an error that says what belongs there."""
    with pytest.raises(sky.OperatorError, match=r"takes a skyward_dask\.Compute"):
        combine()


def test_missing_parentheses_are_named() -> None:
    """``f(x) & g(y) >> compute`` joins a call with a result."""
    with pytest.raises(sky.OperatorError, match=r"\(f\(x\) & g\(y\)\) >> compute"):
        double(1) & 4  # type: ignore[operator]


def test_gather_takes_calls() -> None:
    """Not functions, and not results."""
    with pytest.raises(sky.OperatorError, match="gather takes calls"):
        sky.gather(double)  # type: ignore[call-overload]


def test_operators_do_not_block_an_event_loop() -> None:
    """They raise, and name what to use."""
    compute = sky.Compute()

    async def on_a_loop() -> None:
        double(1) >> compute

    with pytest.raises(sky.OperatorError, match=r"asyncio\.wrap_future"):
        asyncio.run(on_a_loop())


@pytest.mark.parametrize("nodes", [0, -1, True, "2", (8, 2), (0, 2), (1, 2, 3)])
def test_nodes_are_checked(nodes: object) -> None:
    """Before anything is started."""
    with pytest.raises(sky.ConfigurationError, match="whole number from 1"):
        sky.Compute(nodes=nodes)  # type: ignore[arg-type]


def test_nodes_and_a_cluster_exclude_each_other() -> None:
    """A cluster has its own number of workers."""
    with pytest.raises(sky.ConfigurationError, match="Leave one out"):
        sky.Compute(nodes=2, cluster="tcp://nowhere:1")


def test_a_closed_compute_says_so() -> None:
    """Before the block and after it."""
    with pytest.raises(sky.OperatorError, match="not open"):
        double(1) >> sky.Compute()
