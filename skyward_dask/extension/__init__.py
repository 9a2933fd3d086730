"""The code that knows Dask (apart from `config`), in a room for each process that runs it."""
