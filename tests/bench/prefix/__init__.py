"""What a cached prefix saves on real engines, through tokenwire: `python -m bench.prefix`."""
