"""What a client calls: set-up, looks, limits, and the Dask half of `Compute`."""
