"""The collections' state: plain classes, a home that applies calls to one. Knows no Dask and no processes."""
