"""The journal: an append-only list of canonical events for each run."""
