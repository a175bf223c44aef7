"""Gateways written for the comparison alone."""
