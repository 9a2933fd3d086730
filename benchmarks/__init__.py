"""Measurements beside the peers: `python -m benchmarks [topic...]`, from the root of the repository."""
