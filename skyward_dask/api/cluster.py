"""`Compute`: the nodes that calls are sent to, as a context manager."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TypeVar, overload

from skyward_dask.api import openers
from skyward_dask.api.barriers import Barrier
from skyward_dask.api.calls import Function
from skyward_dask.api.counters import Counter
from skyward_dask.api.dicts import Dict
from skyward_dask.api.locks import Lock
from skyward_dask.api.nodes import Nodes
from skyward_dask.api.openers import Consistency
from skyward_dask.api.queues import Queue
from skyward_dask.api.sets import Set
from skyward_dask.api.targets import Target, innermost, refuse_on_loop
from skyward_dask.arguments import takes_only
from skyward_dask.config import Worker, check_worker, parse_timeout
from skyward_dask.errors import ConfigurationError, OperatorError
from skyward_dask.extension.client.opening import check_cluster, open_session
from skyward_dask.extension.client.session import Client, Session
from skyward_dask.extension.tracebacks import shortened

T = TypeVar("T")


class Compute(Target):
    """Nodes to run calls on: a local cluster, or one that exists already.

    Without `worker`, slots are threads: for pure Python that keeps a CPU busy, give
    ``worker=Worker(executor="process")``.

    Parameters
    ----------
    nodes : int or (int, int)
        Worker processes of a local cluster (default 1), or the fewest and the most: then it adapts to its
        load. Leave it out with `cluster`, which has its own.
    worker : Worker, optional
        The slots of each node; defaults to Dask's configuration (``skyward.worker``), which is ``Worker()``
        unless you have changed it. Its ``concurrency=None`` means cores // nodes on a local cluster. With
        `cluster`, slots change only if it is given, and are put back at the end.
    cluster : optional
        A Dask cluster object, or the address of a scheduler.

    Attributes
    ----------
    client : distributed.Client
        Its dashboard is at ``client.dashboard_link``, if bokeh is installed.

    Raises
    ------
    ConfigurationError
        An argument is invalid, or a script has no ``if __name__ == "__main__"``.

    Examples
    --------
    >>> with Compute(nodes=1, worker=Worker(executor="process")) as compute:  # doctest: +SKIP
    ...     double(4) >> compute
    8
    """

    @takes_only(
        "Slots are configured by a Worker: Compute(worker=Worker(executor='process', concurrency=4))."
    )
    def __init__(
        self,
        nodes: int | tuple[int, int] | None = None,
        worker: Worker | None = None,
        cluster: object | None = None,
    ) -> None:
        _check_nodes(nodes, cluster)
        if worker is not None:
            check_worker(worker)
        if cluster is not None:
            check_cluster(cluster)
        self._nodes = nodes or 1
        self._worker = worker
        self._cluster = cluster
        self._session: Session | None = None

    def __enter__(self) -> Compute:
        if self._session is not None:
            raise OperatorError("this Compute is already open: create another one for a second block.")
        with shortened():
            self._session = open_session(self._nodes, self._worker, self._cluster)
        self._outer = innermost.get()
        innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session = self._open, None
        innermost.set(self._outer)
        session.close()

    @property
    def _open(self) -> Session:
        if self._session is None:
            raise OperatorError("this Compute is not open: `with skyward_dask.Compute(...) as compute:`.")
        return self._session

    @property
    def client(self) -> Client:
        """The Dask client."""
        return self._open.client

    # --- collections of its cluster ---------------------------------------------------------------

    def dict(
        self,
        name: str,
        *,
        shards: int | None = None,
        consistency: Consistency | None = None,
        replicas: int | None = None,
    ) -> Dict[Any, Any]:
        """As `skyward_dask.dict`."""
        return openers.dict(
            name, shards=shards, consistency=consistency, replicas=replicas, client=self.client
        )

    def set(
        self,
        name: str,
        *,
        shards: int | None = None,
        consistency: Consistency | None = None,
        replicas: int | None = None,
    ) -> Set[Any]:
        """As `skyward_dask.set`."""
        return openers.set(
            name, shards=shards, consistency=consistency, replicas=replicas, client=self.client
        )

    def counter(
        self, name: str, *, consistency: Consistency | None = None, replicas: int | None = None
    ) -> Counter:
        """As `skyward_dask.counter`."""
        return openers.counter(name, consistency=consistency, replicas=replicas, client=self.client)

    def queue(self, name: str, maxsize: int | None = None, *, replicas: int | None = None) -> Queue[Any]:
        """As `skyward_dask.queue`."""
        return openers.queue(name, maxsize, replicas=replicas, client=self.client)

    def barrier(self, name: str, n: int, *, replicas: int | None = None) -> Barrier:
        """As `skyward_dask.barrier`."""
        return openers.barrier(name, n, replicas=replicas, client=self.client)

    def lock(self, name: str, *, replicas: int | None = None) -> Lock:
        """As `skyward_dask.lock`."""
        return openers.lock(name, replicas=replicas, client=self.client)

    # --- its nodes --------------------------------------------------------------------------------

    @property
    def nodes(self) -> Nodes:
        """The nodes of this moment, in the order in which they joined; ``nodes[0]`` is the head.

        Each is a target of its own: ``f(x) >> compute.nodes[0]``.
        """
        return Nodes(self._open)

    def resize(self, nodes: int | tuple[int, int], timeout: float | str | None = None) -> None:
        """Change the number of nodes, and wait until they are there.

        Parameters
        ----------
        nodes : int or (int, int)
            As for `Compute`: with a pair, the cluster adapts to its load.
        timeout : float or str, optional
            Seconds, or text such as ``"30s"``, to wait for them; the default is no limit.

        Raises
        ------
        TimeoutError
            They aren't there yet.
        OperatorError
            The cluster was given by its address: nobody here can start workers for it.
        """
        _check_nodes(nodes, None)
        fewest, most = nodes if isinstance(nodes, tuple) else (nodes, nodes)
        self._open.resize(fewest, most, parse_timeout(timeout))

    @overload
    def map(self, function: Function[..., T], *items: Iterable[Any], progress: bool = True) -> list[T]: ...
    @overload
    def map(self, function: Callable[..., T], *items: Iterable[Any], progress: bool = True) -> list[T]: ...
    def map(
        self, function: Function[..., Any] | Callable[..., Any], *items: Iterable[Any], progress: bool = True
    ) -> list[Any]:
        """``[function(item) for item in items]``, on the nodes; several iterables are read together.

        Where there is a terminal or a notebook, a progress bar appears on stderr after a second, unless
        `progress` is false.
        """
        refuse_on_loop(self, "map", "asyncio.to_thread(compute.map, f, items)")
        inner = getattr(function, "local", function)
        with shortened():
            return self._open.map(inner, [list(each) for each in items], progress)

    def __repr__(self) -> str:
        return f"<Compute, open: {self.client!r}>" if self._session else "<Compute, not open>"

    def _repr_html_(self) -> str:
        return self.client._repr_html_() if self._session else html.escape(repr(self))


def _check_nodes(nodes: Any, cluster: object) -> None:
    if nodes is not None and cluster is not None:
        raise ConfigurationError(
            f"nodes={nodes!r} and a cluster: the cluster has its own number of workers. Leave one out."
        )
    counts = nodes if isinstance(nodes, tuple) and len(nodes) == 2 else (nodes, nodes)
    if nodes is not None and not (all(map(_is_count, counts)) and counts[0] <= counts[1]):
        raise ConfigurationError(
            f"nodes must be a positive integer, or a pair of them, (fewest, most), not {nodes!r}."
        )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
