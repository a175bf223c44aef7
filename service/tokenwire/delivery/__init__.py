"""The view: a reader's own cut of a run's journal. Pure stages on domain events."""
