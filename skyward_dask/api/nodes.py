"""The nodes of a `Compute`, each of them a target of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

from skyward_dask.api.targets import SessionTarget
from skyward_dask.extension.client.session import Session


class Node(SessionTarget):
    """One node: ``f(x) >> compute.nodes[0]`` runs there, and nowhere else.

    Attributes
    ----------
    address : str
        The address of its worker.
    host : str
        Its host, as the cluster knows it.

    Notes
    -----
    If the node leaves before it has answered, the call gets `NodeLeft`.
    """

    def __init__(self, session: Session, address: str, host: str) -> None:
        super().__init__(session)
        self.address, self.host = address, host

    def __repr__(self) -> str:
        return f"<Node {self.address}>"


class Nodes(Sequence[Node]):
    """The nodes of a cluster at one moment, in the order in which they joined."""

    def __init__(self, session: Session) -> None:
        self._nodes = [Node(session.on(address), address, host) for address, host in session.nodes()]

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    @overload
    def __getitem__(self, index: int) -> Node: ...
    @overload
    def __getitem__(self, index: slice) -> list[Node]: ...
    def __getitem__(self, index: int | slice) -> Node | list[Node]:
        try:
            return self._nodes[index]
        except IndexError:
            raise IndexError(
                f"there are {len(self)} nodes now, the first of them nodes[0]: there is no nodes[{index}]."
            ) from None

    def __repr__(self) -> str:
        return repr(self._nodes)
