"""Plays schedules by their seeds and tells what happened: `python -m simulation.replay 17`, run in tests/."""

import sys

from simulation.kinds import kind_of, play


def main() -> int:
    """Returns 1 if a promise was broken."""
    if len(sys.argv) < 2:
        print("usage: python -m simulation.replay SEED...")
        return 2
    broken = False
    for seed in map(int, sys.argv[1:]):
        outcome = play(seed)
        print(f"{kind_of(seed)}, {outcome.told(10_000)}")
        broken = broken or bool(outcome.problems)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
