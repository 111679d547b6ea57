"""What the API checks in a request before it accepts it."""
