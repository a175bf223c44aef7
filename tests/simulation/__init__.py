"""Deterministic simulation: clients, network, gateways, journals and engines in one process, on a virtual clock."""
