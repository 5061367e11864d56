"""smlt."""
