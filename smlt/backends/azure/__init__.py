"""Microsoft Azure: its price list; functions there follow."""
