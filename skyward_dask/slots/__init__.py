"""Child processes that run calls: `SlotPool`, a `concurrent.futures.Executor` that knows nothing of Dask.

Nothing is imported here: a child imports this package on its way to `skyward_dask.slots.child.process`.
"""
