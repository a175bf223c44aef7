"""`python -m tokenwire` is the command line."""

from tokenwire.cli import main

main()
