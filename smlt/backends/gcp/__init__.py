"""Google Cloud: its price list; functions there follow."""
