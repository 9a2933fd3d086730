"""Shared memory: segments, ranges of them, and pickled values that are kept there."""
