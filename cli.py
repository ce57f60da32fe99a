"""The command line, from a checkout: `python cli.py predict nemotron-4-15b`."""

from perfmodel.__main__ import main

if __name__ == "__main__":
    main()
