"""The names of a setting: `drain_seconds` is `--drain-seconds` and `TOKENWIRE_DRAIN_SECONDS`."""

PREFIX = "TOKENWIRE_"
CONFIG = "config"
DEFAULT_FILE = "tokenwire.toml"


def flag_name(name: str) -> str:
    """Returns the flag of a setting."""
    # One --engine for each engine reads better than one --engines.
    return "--engine" if name == "engines" else "--" + name.replace("_", "-")


def variable_name(name: str) -> str:
    """Returns the variable of a setting."""
    return PREFIX + name.upper()
