"""The moves that mixtures of experts alone have: their mesh, how even its load is, how tokens travel, what runs again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from perfmodel.count.iteration import modules_that_run
from perfmodel.light_dataclass import replace
from perfmodel.spec.axes import OF_EXPERTS
from perfmodel.spec.fields import anywhere
from perfmodel.spec.layout import RECOMPUTE_MODULES
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import DISPATCHERS, OVERLAPS_OF_EXPERTS, SoftwareStack

UNEVEN: Final = 1.1  # a load that is tried where it is even: the busiest rank has a tenth more tokens
OF_SOFTWARE: Final = "stack.experts."


def expert_candidates(setup: Setup) -> Iterator[tuple[str, Any]]:
    """Every setting of a mixture with every value that is one step away; none of a dense model."""
    stack, layout = setup.stack, setup.layout
    if setup.model.mixture is None:
        return
    for axis in OF_EXPERTS:
        degrees = half_and_double(layout.degree(axis))
        yield from ((axis.name, ranks) for ranks in degrees if ranks == 1 or axis.name in stack.offers.degrees)
    yield "expert_load", 1.0 if anywhere(layout.expert_load > 1.0) else UNEVEN
    for name, values in (("dispatcher", DISPATCHERS), ("overlap", OVERLAPS_OF_EXPERTS)):
        yield from ((f"{OF_SOFTWARE}{name}", value) for value in values if value != getattr(stack.experts, name))
    yield from (("recompute_modules", names) for names in _other_modules(setup))


def _other_modules(setup: Setup) -> Iterator[tuple[str, ...]]:
    """The modules that run again with one more or one less, of those that the software names and the model has."""
    now, offered = setup.layout.recompute_modules, setup.stack.offers.recompute_modules
    possible = modules_that_run(setup) if offered else ()
    for name in RECOMPUTE_MODULES:
        if name in now and len(now) > 1:
            yield tuple(each for each in now if each != name)
        elif name not in now and name in offered and name in possible:
            yield tuple(sorted((*now, name)))


def with_software(stack: SoftwareStack, key: str, value: Any) -> SoftwareStack:
    """The software with one setting of its experts changed."""
    return replace(stack, experts=replace(stack.experts, **{key.removeprefix(OF_SOFTWARE): value}))


def half_and_double(value: Any) -> Iterator[int]:
    """Half of a number of things, where it is whole, and its double."""
    whole = int(value)
    if whole % 2 == 0:
        yield whole // 2
    yield whole * 2
