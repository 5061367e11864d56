"""What is shown of plans and runs: pictures."""
