"""The HTTP API: each operation is one call of one SQL function, run as the role of the caller's key."""
