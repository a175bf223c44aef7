"""How handlers are served: our own small `Call`, and the transports that make one of each RPC."""
