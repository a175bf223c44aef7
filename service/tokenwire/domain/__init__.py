"""Values that every stage speaks in: requests, events, cursors, errors. No gRPC, no protobuf, no I/O."""
