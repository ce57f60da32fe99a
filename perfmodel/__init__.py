"""perfmodel: how long a training iteration takes, whether it fits, how many days, and what to change.

    import perfmodel as pm
    pm.predict("nemotron-4-15b").to_pandas()

Each name below is loaded when it is first asked for, so that `import perfmodel` costs nothing (docs/api.md shows them at work).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfmodel.api import explain, load, plan, predict, sweep, timeline, whatif
    from perfmodel.errors import InputError, NotSupportedError, PerfmodelError

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "NotSupportedError",
    "PerfmodelError",
    "explain",
    "load",
    "plan",
    "predict",
    "sweep",
    "timeline",
    "whatif",
]


def __getattr__(name: str) -> Any:
    """A function of perfmodel.api, or an error that they raise."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
    from importlib import import_module

    return getattr(import_module("perfmodel.errors" if name.endswith("Error") else "perfmodel.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
