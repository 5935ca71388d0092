"""The socket service: the raw market data as gRPC streams."""
