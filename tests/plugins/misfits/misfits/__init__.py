"""Plugins of smlt that cannot be used, each for another reason."""
