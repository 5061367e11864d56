"""A long run whose functions live for seconds and are killed again and again: what it comes to, and what it leaves."""
