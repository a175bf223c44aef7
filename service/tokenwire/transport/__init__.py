"""How handlers are served: our own small `Call`, and the one file that fits it to grpc.aio."""
