"""The engine and its interfaces. No cloud SDK, no framework, no planner library enters this room."""
