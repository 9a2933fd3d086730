"""What a run yields before its result: items that its child sends, and how many it may."""

from __future__ import annotations

from collections.abc import Sequence

from skyward_dask.slots.child_messages import Item
from skyward_dask.slots.child_process import ChildProcess
from skyward_dask.slots.framing import Part
from skyward_dask.slots.packing import unpack
from skyward_dask.slots.runs import Run


def grant_items(run: Run, items: int, nbytes: int, is_closing: bool = False) -> None:
    """Let a run send that many items and bytes, in total; or have it close its generator."""
    if run.child is not None:
        run.child.page.set_granted(items, nbytes, is_closing)


def take_item(child: ChildProcess, item: Item, parts: Sequence[Part]) -> None:
    """The child's run has yielded."""
    form = child.lender.collect(item.sizes, parts)
    if child.run is not None and (request := child.run.request) is not None and request.take is not None:
        request.take(form)


def take_items(run: Run | None, count: int, block: Part) -> None:
    """A run has yielded small items."""
    if run is not None and (request := run.request) is not None and request.take_packed is not None:
        run.items += count
        request.take_packed(count, block)


def take_unsent(run: Run, child: ChildProcess) -> None:
    """The run's child has died: what it hadn't sent yet is in its page."""
    block = child.page.waiting_items()
    if run.yields and block and child.page.items_sent == run.items:
        take_items(run, len(unpack(block)), block)
