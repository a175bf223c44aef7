"""What tokenwire costs, beside what else there is: `make bench`, `make bench-full`; results in docs/benchmark."""
