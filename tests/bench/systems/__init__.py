"""What is measured: tokenwire in several settings, gateways written for the comparison, and other people's."""
