"""`make bench`: how fast it is beside the bare transport, other queues and plain tables, in one run."""
