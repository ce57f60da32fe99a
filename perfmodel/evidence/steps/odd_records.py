"""Which records of one machine cannot be, held against each other: a single absurd one would become its peak rate.

Two things are asked of records of one kind and one set of labels, whatever the machine:
- nothing computes or moves faster than any device there is (`FASTEST`);
- more work does not take a tenth of the time of less (`FASTER`). Where two records say so, one of them is wrong: the one that
  most others contradict; of several the one whose rate is farthest from the middle of all, and of those the faster, whose rate
  would stand for the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.steps.records import Record
from perfmodel.light_dataclass import dataclass

FASTER: Final = 10.0
FASTEST: Final[Mapping[str, float]] = {"matmul": 1e17, "attention": 1e17, "memory_bound": 1e15, "collective": 1e15}
UNITS: Final = {"matmul": "FLOP/s", "attention": "FLOP/s", "memory_bound": "B/s", "collective": "B/s"}
MOST_AT_ONCE: Final = 2000  # records of one group that are held against each other


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundRecords:
    """The records that may be right, and a sentence for each that may not."""

    records: tuple[Record, ...]
    left_out: tuple[str, ...]


def sound(records: Sequence[Record]) -> SoundRecords:
    """The records that no others contradict."""
    groups: dict[Any, list[int]] = {}
    for place, each in enumerate(records):
        if each.kind in FASTEST:  # the work of others, products with few rows among them, is more than one number
            groups.setdefault(_group(each), []).append(place)
    reasons: dict[int, str] = {}
    for places in groups.values():
        for first in range(0, len(places), MOST_AT_ONCE):
            reasons |= _odd(records, places[first : first + MOST_AT_ONCE])
    left_out = tuple(f"{_called(records[place])}: {reason}; it is left out" for place, reason in sorted(reasons.items()))
    return SoundRecords(records=tuple(each for place, each in enumerate(records) if place not in reasons), left_out=left_out)


def work_of(each: Record) -> float:
    """What a record did: FLOPs of products and attention (a half under a causal mask), bytes of everything else."""
    sizes = each.sizes
    if each.kind == "matmul":
        return 2.0 * sizes["rows"] * sizes["columns"] * sizes["inner"]
    if each.kind == "attention":
        pairs = sizes["sequences"] * sizes["heads"] * sizes["sequence_length"] ** 2
        return 4.0 * pairs * sizes["head_size"] * (0.5 if each.labels["mask"] == "causal" else 1.0)
    return float(sizes["moved_bytes"] if each.kind == "memory_bound" else sizes["payload_bytes"])


def _group(each: Record) -> tuple[Any, ...]:
    """Records that differ in how much they do, and in nothing else that a rate hangs on."""
    own = {"attention": ("head_size",), "collective": ("ranks", "nodes")}.get(each.kind, ())
    return (each.kind, *sorted(each.labels.items()), *(each.sizes.get(name) for name in own))


def _odd(records: Sequence[Record], places: Sequence[int]) -> dict[int, str]:
    """Those of one group that cannot be, each with the reason."""
    kind = records[places[0]].kind
    work = np.array([work_of(records[place]) for place in places])
    seconds = np.array([records[place].seconds for place in places])
    reasons = {}
    too_fast = np.flatnonzero(~(work / seconds <= FASTEST[kind])).tolist()
    for at in too_fast:
        reasons[places[at]] = f"{work[at] / seconds[at]:.3g} {UNITS[kind]} is faster than any device"
    left = np.setdiff1d(np.arange(len(places)), too_fast)
    while (worst := _most_contradicted(work[left], seconds[left])) is not None:
        at = int(left[worst])
        reasons[places[at]] = (
            f"{seconds[at]:.3g} s does not go with the other sizes, of which more work takes a tenth of the time"
        )
        left = np.delete(left, worst)
    return reasons


def _most_contradicted(work: NDArray[np.float64], seconds: NDArray[np.float64]) -> int | None:
    """The place of the record that most others contradict, of several the one with the oddest rate; None where none does."""
    contradicts = (work[:, None] >= work[None, :]) & (seconds[:, None] * FASTER < seconds[None, :])
    votes = contradicts.sum(axis=0) + contradicts.sum(axis=1)
    if not votes.any():
        return None
    rates = np.log(work / seconds)
    distance = np.round(np.abs(rates - np.median(rates)), 9)
    return max(np.flatnonzero(votes == votes.max()).tolist(), key=lambda at: (distance[at], rates[at]))


def _called(each: Record) -> str:
    labels = " ".join(each.labels[name] for name in ("operator", "precision", "phase") if name in each.labels)
    sizes = ", ".join(f"{name} {size:g}" for name, size in list(each.sizes.items())[:5])
    return f"record of {each.kind} {labels} ({sizes})"
