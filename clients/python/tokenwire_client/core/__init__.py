"""What both fronts share: no sockets, no threads, no event loop."""
