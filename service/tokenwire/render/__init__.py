"""Prompt text and token ids from a request, by the engine's own means."""
