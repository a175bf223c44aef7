"""`python -m bench` measures; `make bench` and `make bench-full` set up what it needs first."""

import sys

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
