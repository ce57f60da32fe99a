"""What somebody's own runs say of later predictions, by groups of runs: evidence/own_runs.py works it out.

A prediction belongs to groups that lie in one another, and the narrowest with runs in it speaks:

    any run  >  the same software on the same kind of GPU  >  the same model widths and precision  >  the same configuration

Groups go by names and settings (spec/setup.py); replicas, the batch, and numbers of the cluster or the stack are none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, Truth, anywhere, chosen, number, plain, text, words

ANY: Final = "any"  # software, or kind of GPU, of the widest group
FARTHEST: Final = 20.0  # logarithm of a ratio of times


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OwnRun(Spec):
    """A measured run, and what was predicted before any own run was known; an odd one weighs less than 1."""

    name: str = text()
    measured_s: float = number("s", above=0)
    predicted_s: float = number("s", above=0)
    weight: float = number("ratio", maximum=1)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class OwnShift(Spec):
    """What own runs say of a group: the logarithm of a time moves by `shift`, its interval is `remaining` times as wide.

    Errors lie in it as in Student's t with so many `degrees`; where none are stated, in the law of the published runs.
    """

    software: str = text(default=ANY)
    gpu: str = text(default=ANY)
    settings: tuple[str, ...] = words(default=())  # name=value; none where every model and layout is meant
    runs: int = number("count", minimum=1, integer=True)  # of this group
    kin: str = text()  # whose runs they are, as a sentence says it
    shift: float = number("ratio", minimum=-FARTHEST, maximum=FARTHEST)
    remaining: float = number("ratio")
    degrees: float | None = number("count", above=0.5, optional=True, default=None)

    def is_of(self, software: str, gpu: str) -> bool:
        """Whether software on a kind of GPU, by their names, is of this group as far as these tell."""
        return self.software in (ANY, software) and self.gpu in (ANY, gpu)

    @property
    def factor(self) -> float:
        """How many times as long as the equations say."""
        return float(np.exp(self.shift))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedShift:
    """The shifts of one layout, or of arrays of them, in the logarithm of the iteration time; 0.0 where none is known.

    `group` is the one that speaks for one layout; None for arrays, and where there are no own runs.
    """

    shift: Numeric = 0.0
    remaining: Numeric = 1.0
    group: OwnShift | None = None

    @property
    def factor(self) -> Numeric:
        """How many times as long as the equations say."""
        factor: Numeric = np.exp(self.shift)
        return factor


NOTHING: Final = AppliedShift()


def applied_shift(shifts: Sequence[OwnShift], *, software: str, gpu: str, settings: Mapping[str, Any]) -> AppliedShift:
    """The shift of the narrowest group that each layout is in; `shifts` have wide groups before narrow ones.

    >>> wide = OwnShift(runs=2, kin="any", shift=0.01, remaining=0.9)
    >>> narrow = OwnShift(software="S", gpu="G", settings=("layers=2",), runs=1, kin="these", shift=0.05, remaining=0.5)
    >>> applied_shift([wide, narrow], software="S", gpu="G", settings={"layers": np.array([2, 4])}).shift.tolist()
    [0.05, 0.01]
    """
    found = NOTHING
    for each in shifts:
        inside = each.is_of(software, gpu) and _inside(each, settings)
        if anywhere(inside):
            found = AppliedShift(
                shift=chosen(inside, each.shift, found.shift),
                remaining=chosen(inside, each.remaining, found.remaining),
                group=None if np.ndim(inside) else each,
            )
    return found


def setting_word(name: str, value: Any) -> str:
    """A setting as a group has it.

    >>> setting_word("layers", 32.0), setting_word("recompute", "full"), setting_word("sequence_parallel", True)
    ('layers=32', 'recompute=full', 'sequence_parallel=1')
    """
    return f"{name}={value if isinstance(value, str) else plain(value)}"


def _inside(group: OwnShift, settings: Mapping[str, Any]) -> Truth:
    """Whether each layout has every setting of a group."""
    inside: Truth = True
    for word in group.settings:
        name, _, wanted = word.partition("=")
        value: Any = settings.get(name)
        if np.ndim(value):
            inside = inside & np.equal(value, float(wanted))
        elif name not in settings or setting_word(name, value) != word:
            return False
        if not anywhere(inside):
            return False
    return inside
