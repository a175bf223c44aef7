"""Runs and engines: which run there is, and who writes it."""
