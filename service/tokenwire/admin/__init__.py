"""What operators' machines ask over HTTP: whether the process lives, whether it takes calls, and its metrics."""
