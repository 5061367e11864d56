"""A backend and a planner for smlt by a third party."""
