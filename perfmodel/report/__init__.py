"""What people and programs see: tables for a terminal, documents for --json. No numbers are made here.

The API has a function of this room's name, `pm.report("nemotron-4-15b")`: the module itself can be called.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perfmodel.report.html.document import Page


class _CallableRoom(ModuleType):
    """This module, which is also `pm.report`."""

    def __call__(self, *arguments: Any, **named: Any) -> Page:
        from perfmodel.report.html.pages import report

        return report(*arguments, **named)


sys.modules[__name__].__class__ = _CallableRoom
