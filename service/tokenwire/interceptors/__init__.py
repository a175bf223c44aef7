"""What every RPC passes, outermost first: see stack.py."""
