"""The journal in files: what a process wrote outlives it."""
