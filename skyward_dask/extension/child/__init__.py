"""Dask's side in a slot's process."""
