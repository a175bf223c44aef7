"""Names and instruments of logs, traces and metrics, in one place."""
