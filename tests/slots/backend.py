"""What a pool's `backend` does in a child: here, keep the link for tasks to use."""

from __future__ import annotations

from skyward_dask.slots.child.link import Link

link: Link


def start(argument: bytes, given: Link) -> None:
    global link
    link = given
