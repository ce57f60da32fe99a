"""perfmodel: how long a training iteration takes, whether it fits, how many days, and what to change."""

__version__ = "0.1.0"
