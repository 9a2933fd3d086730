"""The only code that knows Dask: plugin, executor, scheduler side, preload, command."""
