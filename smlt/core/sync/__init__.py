"""Gradient synchronisation: patterns over a Channel. What a value means is known here, how bytes travel is not."""
