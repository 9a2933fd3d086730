"""Collections over the network: from a handle, through switchboards, to homes."""
