"""`python -m perfmodel` is the command line."""

from perfmodel.commands.app import main

main()
