"""A cloud that is only reckoned: the same engine, controller and planners, on a virtual clock; nothing is trained."""
