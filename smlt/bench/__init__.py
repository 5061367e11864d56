"""Measuring on the user's machine, beside peers in the same run. Only `cli` imports this room."""
