"""How each kind of scenario is measured: one procedure a file, from a gateway that serves to figures by name."""
