"""What tests share: a service on a real port, histories, faults."""
