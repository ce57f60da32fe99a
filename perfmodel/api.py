"""What `import perfmodel as pm` offers: each question of the command line as a function that returns a typed result."""

from __future__ import annotations
