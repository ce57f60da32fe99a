"""Which chip the name of a piece of hardware speaks of, so that nobody who asks for one chip is offered another.

A chip is a word of few letters with a number: h20, gb200, a800, l40s, mi300x. What is so written but says how a chip is mounted
or joined (sxm5, nvl72, pcie5) is not one. Names of clouds' machines (p4d, a3) are read alike: they too hold one chip each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from perfmodel.errors import did_you_mean

MAKERS: Final = re.compile(r"(?:dgx|hgx|mgx|nvidia|amd)")  # that people write into one word with the chip
RTX: Final = re.compile(r"\b(rtx|gtx)[\s_-]?(pro)?[\s_-]?(\d{3,4})\b")  # whose chip is the whole: rtx4090, rtxpro6000
MOUNTS: Final = re.compile(r"(?:sxm|nvl|pcie|oam|gen)\d*")
CHIP: Final = re.compile(r"[a-z]{1,3}\d{1,4}[a-z]{0,2}")


def chips_in(name: str) -> frozenset[str]:
    """The chips that a name speaks of.

    >>> [sorted(chips_in(name)) for name in ("dgx-h20", "RTX 4090", "gb200-nvl72", "ethernet-100g")]
    [['h20'], ['rtx4090'], ['gb200'], []]
    """
    plain = MAKERS.sub(" ", name.lower())
    words = re.split(r"[^a-z0-9]+", RTX.sub(" ", plain))
    chips = {word for word in words if CHIP.fullmatch(word) and not MOUNTS.fullmatch(word)}
    return frozenset(chips | {"".join(match.groups("")) for match in RTX.finditer(plain)})


def _plain(name: str) -> str:
    """A name without its maker."""
    return MAKERS.sub("", name.lower()).strip(" -_")


def may_mean(asked: str, name: str) -> bool:
    """Whether somebody who asked for `asked` may have meant `name`: never where both speak of chips, and of different ones."""
    chips, others = chips_in(asked), chips_in(name)
    return not (chips and others) or bool(chips & others)


def did_you_mean_hardware(asked: str, known: Iterable[str]) -> str:
    """A closing clause that names the nearest known hardware with the chip that was asked for, or all that is known.

    >>> did_you_mean_hardware("dgx-h20", ["dgx-h200", "hgx-h20"]), did_you_mean_hardware("dgx-h30", ["dgx-h200", "hgx-h20"])
    ('did you mean hgx-h20?', 'known: dgx-h200, hgx-h20')
    >>> did_you_mean_hardware("H100", ["h100-nvl-94gb", "h100-pcie-80gb", "h100-sxm-80gb", "h200-sxm-141gb"])
    'did you mean h100-nvl-94gb, h100-pcie-80gb or h100-sxm-80gb?'
    """
    from difflib import SequenceMatcher

    names = sorted(known)
    same = [name for name in names if chips_in(asked) & chips_in(name)]
    if same:  # however it is spelled; makers apart, so that h100 is dgx-h100
        alike = {name: SequenceMatcher(None, _plain(name), _plain(asked[:100])).ratio() for name in same}
        is_chip_alone = _plain(asked) in chips_in(asked) and max(alike.values()) < 1  # then any of them may be meant
        *others, last = same if is_chip_alone else [name for name in same if alike[name] == max(alike.values())]
        return f"did you mean {', '.join(others)}{' or ' * bool(others)}{last}?"
    return did_you_mean(asked, names, offered=[name for name in names if may_mean(asked, name)])
