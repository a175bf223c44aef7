"""The journal that several gateways share, in Redis or Valkey."""
