"""What somebody should know of the rows of a table, or of the logs, of their own, on standard error, before its results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from perfmodel.commands.console import say

if TYPE_CHECKING:
    from perfmodel.evidence.measured_rows import UnreadRow
    from perfmodel.evidence.time_scores import TimeComparison

MOST_NAMED: Final = 10  # rows that cannot be read, one by one


def warn_of_rows(measured: Sequence[Any], unread: Sequence[UnreadRow]) -> None:
    """Say which rows are left out, and what of others is not as the table states."""
    for each in unread[:MOST_NAMED]:
        say(f"warning: {each.reason}; the {'row' if each.line else 'file'} is left out")
    if len(unread) > MOST_NAMED:
        what = "rows" if all(each.line for each in unread) else "files"
        say(f"warning: {len(unread) - MOST_NAMED} more {what} are left out; --json names all of them")
    for warning, rows in Counter(each.warning for each in measured if each.warning).items():
        say(f"warning: {warning} ({rows} row{'s' if rows > 1 else ''})")


def warn_of_memory(comparisons: Sequence[TimeComparison]) -> None:
    """Say which runs ran though they are predicted not to fit: something of them is other than the table states."""
    from perfmodel.exchange.stack_fit import beyond_the_memory

    beyond = [each.measured for each in comparisons if not each.may_fit]
    for each in beyond[:MOST_NAMED]:
        if each.run is not None:
            say(f"warning: {each.place}: {beyond_the_memory(each.run)}")
    if len(beyond) > MOST_NAMED:
        say(f"warning: {len(beyond) - MOST_NAMED} more runs ran that are predicted not to fit; --json has the odds of all")
