"""The scheduler's side: slot counts, the directory of collections, and workers that leave."""
