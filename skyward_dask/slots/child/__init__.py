"""What runs in a slot's process and in the template that forks it."""
