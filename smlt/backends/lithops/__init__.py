"""Functions through Lithops: its localhost now, its clouds through their own backends."""
