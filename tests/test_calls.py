"""Calls as values, without a cluster: what they are, and what operators refuse."""

from __future__ import annotations

import copy
import functools
import os
import pickle
from collections.abc import Callable
from concurrent.futures import Future

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


def plain(x: int) -> int:
    return x


CLOSED = sky.Compute()


@pytest.mark.parametrize(
    ("mistake", "instead"),
    [
        (lambda: double(1) >> 5, r"takes an open skyward_dask\.Compute on its right, .*, not an int"),
        (lambda: double(1) > 5, r"f\(x\) > compute"),
        (lambda: (double(1) & double(2)) >> sky.Compute, "not the class Compute"),
        (lambda: sky.gather(double(1)) >> double(1), "not a Call"),
        (lambda: double >> CLOSED, r"double is a function.* write double\(\.\.\.\)"),
        (lambda: double > CLOSED, "double is a function"),
        (lambda: double & double(1), "double is a function"),
        (lambda: double(1) & double, "double is a function"),
        (lambda: sky.gather(double), r"not a Function: write double\(\.\.\.\)"),
        (lambda: plain(1) >> CLOSED, r"not an int: decorate f with @skyward_dask\.function"),
        (lambda: plain > CLOSED, "not a function: decorate f"),
        (lambda: CLOSED >> double(1), r"the call goes on the left: write `double\(1\) >> compute`"),
        (lambda: double(1) < CLOSED, "the call goes on the left"),
        (lambda: double(1) & 4, r"not a Call and an int\..*\(f\(x\) & g\(y\)\) >> compute"),
        (lambda: 4 & double(1), "not an int and a Call"),
        (lambda: (double(1) & double(2)) & None, "not a Call and a NoneType"),
        (lambda: sky.gather(double(1)) & double(1), "not a Gather and a Call"),
        (lambda: (double(1) & double(2)) > CLOSED, "> starts a single call"),
        (lambda: double(1) @ CLOSED, "not open"),
        (lambda: double(1) >> os, "not a module"),
        (lambda: double(1) >> sky, "nothing is open"),
        (lambda: double(1) @ sky, "nothing is open"),
        (lambda: (double(1) & double(2)) @ CLOSED, "@ sends a single call to every node"),
        (lambda: CLOSED @ double(1), "the call goes on the left"),
        (lambda: CLOSED >> CLOSED, "take a call on their left, not a Compute"),
        (lambda: double(1).__await__(), r"await asyncio\.wrap_future\(f\(x\) > compute\)"),
        (lambda: bool(double(1)), "neither true nor false"),
        (lambda: double(1) and double(2), "neither true nor false"),
        (lambda: not (double(1) & double(2)), "neither true nor false"),
        (lambda: bool(sky.gather()), "neither true nor false"),
        (lambda: sky.gather([double(1)]), r"not a list: unpack it, gather\(\*calls\)"),
        (lambda: sky.gather(double(n) for n in range(3)), "not a generator: unpack it"),
        (lambda: sky.gather(double(1) & double(2)), r"not a Group: write gather\(f\(x\), g\(y\)\)"),
        (lambda: sky.gather(Future()), r"not a Future: `client\.gather"),
        (lambda: sky.gather(plain(1)), r"not an int\. Decorate f with @skyward_dask\.function"),
        (lambda: double(double(1)), r"double\(1\) is an argument of double, and hasn't run"),
        (lambda: double(x=[double(1)]), "is an argument of double"),
        (lambda: double({"a": double(1) & double(2)}), "is an argument of double"),
        (lambda: double(), r"double\(x: 'int'\) -> 'int': missing a required argument: 'x'"),
        (lambda: double(1, 2), "too many positional arguments"),
        (lambda: double(y=1, x=2), "unexpected keyword argument 'y'"),
        (lambda: sky.function(5), "takes a function, not an int"),
        (lambda: double(1) >> CLOSED, "not open"),
    ],
)
def test_mistakes(mistake: Callable[[], object], instead: str) -> None:
    """Each is told where it is made, with what to write instead."""
    with pytest.raises(sky.OperatorError, match=instead):
        mistake()


@pytest.mark.parametrize("mistake", [lambda: double.map(range(3)), lambda: double.remote(1)])
def test_a_function_says_how_it_is_run(mistake: Callable[[], object]) -> None:
    """To who takes it for an executor's, or another library's, function."""
    with pytest.raises(AttributeError, match=r"f\(x\) >> compute.*gather"):
        mistake()
    assert not hasattr(double, "shape") and double.__name__ == "double"


def test_a_call_says_how_it_is_run() -> None:
    """To who takes it for a future."""
    for call in (double(1), double(1) & double(2), sky.gather(double(1))):
        with pytest.raises(AttributeError, match=r"no 'result', as it hasn't run: write `f\(x\) >> compute`"):
            call.result()  # type: ignore[union-attr]
        assert repr(copy.copy(call)) == repr(pickle.loads(pickle.dumps(call))) == repr(call)


def test_a_functions_own_timeout() -> None:
    """Each of its calls has it, unless it is given another one; it is pickled with the function."""

    @sky.function(timeout="2s")
    def waits(n: int) -> int:
        return n

    call = pickle.loads(cloudpickle.dumps(waits))(5)
    assert (call.timeout, call.with_timeout(1).timeout, call.function.local(5)) == (2.0, 1.0, 5)
    with pytest.raises(sky.ConfigurationError, match="not 'soon'"):
        sky.function(timeout="soon")


def test_what_can_be_called() -> None:
    """Builtins without a signature, callable objects, and what decorators have made of a function."""

    @functools.wraps(plain)
    def with_two(x: int, y: int) -> int:
        return x + y

    assert sky.function(with_two)(1, 2) is not None
    for function in (max, functools.partial(max, 2)):
        assert pickle.loads(cloudpickle.dumps(sky.function(function))).local(1, 3) == 3


def test_large_arguments_are_shown_briefly() -> None:
    """A call is looked at while one types."""
    assert len(repr(double(list(range(10**5))))) < 100  # type: ignore[arg-type]
    assert (
        repr(sky.gather(*map(double, range(99)))) == "gather(double(0), double(1), double(2), ... 99 calls)"
    )


@pytest.mark.parametrize("nodes", [0, -1, True, "2", (8, 2), (0, 2), (1, 2, 3)])
def test_nodes_are_checked(nodes: object) -> None:
    """Before anything is started."""
    with pytest.raises(sky.ConfigurationError, match="nodes must be a positive integer, or a pair"):
        sky.Compute(nodes=nodes)  # type: ignore[arg-type]


@pytest.mark.parametrize("worker", ["process", {"concurrency": 2}, sky.Worker])
def test_the_worker_is_checked(worker: object) -> None:
    """When the Compute is made, not when it is opened."""
    with pytest.raises(sky.ConfigurationError, match=r"worker must be a skyward_dask\.Worker"):
        sky.Compute(1, worker)  # type: ignore[arg-type]


def test_the_cluster_is_checked() -> None:
    """What has no address is none."""
    with pytest.raises(sky.ConfigurationError, match="cluster must be a Dask cluster or the address"):
        sky.Compute(cluster=8786)


def test_nodes_and_a_cluster_exclude_each_other() -> None:
    """A cluster has its own number of workers."""
    with pytest.raises(sky.ConfigurationError, match="Leave one out"):
        sky.Compute(nodes=2, cluster="tcp://nowhere:1")
