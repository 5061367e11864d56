"""Planners: each turns a job and its limits into an allocation."""
