"""tokenwire: a gRPC streaming service for LLMs whose streams do not break.

The generated client stubs are in `tokenwire.v1`; they need grpcio and protobuf alone.
"""

__version__ = "0.1.0"
