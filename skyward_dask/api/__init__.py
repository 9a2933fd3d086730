"""What people write: `function`, the operators, `gather`, `Compute`."""
