"""What can go wrong, said in one sentence to the person who typed the command.

PerfmodelError            exit_code
|-- InputError            2   the input is wrong: which key, which value, what would work
|   `-- UnitError         2   a quantity whose unit does not fit
|-- NotSupportedError     3   the input is right, but the model does not cover it yet
`-- MachineError          4   the machine failed: a full disk, a device, a process that died
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from typing import Final

MOST_KNOWN: Final = 5000  # names that a word is held against
LONGEST_KNOWN: Final = 200  # characters of one
LEAST_PART: Final = 4  # characters of a word that may be a part of a known one
LISTED: Final = 200  # characters of known names in a sentence
FAILURES: Final = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}  # of a write, whatever its place is called


class PerfmodelError(Exception):
    """The root of all errors: caught once, in the command line, and printed as one line."""

    exit_code = 1

    def __init__(self, problem: str, *, key: str = "", value: object = "") -> None:
        """An error about the value at `key`, a dotted path into the input ("" where there is none).

        A `value` stands at the head of the sentence, but not of the `topic`, which is the same for all values.
        """
        super().__init__(problem)
        self.problem, self.key, self.value = problem, key, value

    def __str__(self) -> str:
        sentence = f"{self.value}: {self.problem}" if self.value != "" else self.problem
        said = f"{self.key}: {sentence}" if self.key else sentence
        return " ".join(said.split()) if "\n" in said else said  # a key of a file may be of several lines

    @property
    def topic(self) -> str:
        """The sentence without the value."""
        return f"{self.key}: {self.problem}" if self.key else self.problem

    def under(self, prefix: str) -> PerfmodelError:
        """This error with `prefix` put before its key path."""
        if not prefix:
            return self
        joint = "" if not self.key or self.key.startswith("[") else "."
        return type(self)(self.problem, key=f"{prefix}{joint}{self.key}", value=self.value)


class InputError(PerfmodelError):
    """A wrong input: a key, a value, a file."""

    exit_code = 2


class UnitError(InputError):
    """A quantity whose unit does not fit the field."""


class NotSupportedError(PerfmodelError):
    """A sound input that the model does not cover yet."""

    exit_code = 3


class MachineError(PerfmodelError):
    """A machine that failed while it did what was asked of it."""

    exit_code = 4


def write_failure(sentence: str, error: OSError | ValueError, *, otherwise: str = "unknown reason") -> PerfmodelError:
    """A write that failed, as `sentence: reason`: the machine's fault where a disk is full or broken, else the place is wrong.

    >>> write_failure("a.json cannot be written", OSError(errno.ENOSPC, "No space left on device"))
    MachineError('a.json cannot be written: no space left on device')
    """
    reason = getattr(error, "strerror", None) or otherwise
    kind = MachineError if getattr(error, "errno", None) in FAILURES else InputError
    return kind(f"{sentence}: {reason.lower()}")


def shown(value: object, *, width: int = 60) -> str:
    """`value` as Python writes it, on one line of at most `width` characters, whatever it is.

    >>> shown("x" * 100, width=12)
    "'xxx...xxxx'"
    """
    from reprlib import Repr

    if value is None or isinstance(value, bool):
        return "nothing" if value is None else str(value).lower()
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = width
    text = short.repr(value)
    if len(text) <= width:
        return text
    return text[: width - 4] + "..." + text[-1]


def did_you_mean(word: str, known: Iterable[str], *, offered: Iterable[str] | None = None) -> str:
    """A closing clause that names the nearest known word, or all of them; only those in `offered` are taken for meant.

    >>> did_you_mean("tensor_paralel", ["tensor_parallel", "recompute"])
    'did you mean tensor_parallel?'
    """
    from difflib import get_close_matches
    from itertools import islice

    names = sorted(islice(known, MOST_KNOWN))
    meant = names if offered is None else sorted(islice(offered, MOST_KNOWN))
    said = str(word)[:100].lower()
    close = get_close_matches(said, [name for name in meant if len(name) <= LONGEST_KNOWN], n=1, cutoff=0.6)
    close = close or [name for name in meant if len(said) >= LEAST_PART and said in name][:1]
    words = f"did you mean {close[0]}?" if close else f"known: {listed(names)}"
    return " ".join(words.split())  # names of a file may have line breaks in them


def listed(names: Sequence[str]) -> str:
    """As many whole names as a sentence holds, and how many others there are."""
    shown_names: list[str] = []
    for name in names:
        if sum(map(len, shown_names)) + len(name) > LISTED:
            return f"{', '.join(shown_names)} and {len(names) - len(shown_names)} others"
        shown_names.append(name)
    return ", ".join(shown_names)
