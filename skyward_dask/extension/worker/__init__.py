"""The worker's side: the node, its slots, and what its tasks need."""
