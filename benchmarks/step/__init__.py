"""Training steps: whole ones, with the model's computation in them, beside peers in the same run."""
