"""The front for coroutines."""
