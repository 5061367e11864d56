"""Frameworks: each turns a user's task into a TrainingTask. No framework is imported here, only in its own package."""
