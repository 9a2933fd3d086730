"""The collections' state: plain classes, and the home that applies calls to one. No Dask, no processes."""
