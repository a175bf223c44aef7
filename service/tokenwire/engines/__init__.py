"""Engines: one small adapter each, from bytes on the wire to what domain/generation.py says."""
