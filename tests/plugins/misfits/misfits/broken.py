"""A plugin that does not import."""

raise RuntimeError("this plugin was packed in a hurry")
