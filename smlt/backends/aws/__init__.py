"""Amazon Web Services: its price list; functions there follow."""
