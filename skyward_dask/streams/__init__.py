"""Streams, without Dask: who may send how much, and the life of a stream, as plain decisions."""
