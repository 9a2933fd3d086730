"""A cluster under tasks of all kinds, whose processes are killed and stopped at random."""
