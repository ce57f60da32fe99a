"""Does the software of a run have what the run asks of it, and room for what ran? If not, which presets would.

Nothing here is an error: a person may ask what software would do that it cannot, and a table may state its stack wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.fit import DOES_NOT_FIT, fit_verdict
from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.errors import PerfmodelError
from perfmodel.exchange.building import leaves
from perfmodel.exchange.presets import preset_names, stack_preset
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.light_dataclass import replace
from perfmodel.prediction import fit_odds, stage_memory
from perfmodel.spec.layout import Layout
from perfmodel.spec.refusals import unoffered_axes
from perfmodel.spec.run import Run
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import gibibytes_text

NOT_SOFTWARE: Final = ("generic", "ideal", "reference")  # presets that stand for no software that others run
MOST_NAMED: Final = 2


def beyond_the_stack(run: Run) -> tuple[str, ...]:
    """What a run asks of its software that it does not have, in one sentence with the presets that have it."""
    layouts = [run.layout(stage) for stage in run.stages]
    lacking = dict.fromkeys(word for layout in layouts for word in _lacking(run.stack, layout))
    if not lacking:
        return ()
    others = _nearest(run, lambda stack: not any(any(_lacking(stack, layout)) for layout in layouts))
    asked = " and no ".join(lacking)
    return (f"{run.stack.name} offers no {asked}; it is predicted as if it did{_named(others, 'has', 'have')}",)


def beyond_the_memory(run: Run) -> str:
    """The sentence about a run that ran though its memory is predicted to lie far above the GPU's; empty where it does not."""
    if _may_fit(run, run.stack):
        return ""
    needed = max(float(np.max(_memory(run.setup(stage)).total_bytes)) for stage in run.stages)
    capacity = float(np.max(run.cluster.gpu.memory_bytes))
    others = _nearest(run, lambda stack: _may_fit(run, stack))
    return (
        f"{run.model.name} needs {gibibytes_text(needed)} with {run.stack.name} and ran on {gibibytes_text(capacity)}: "
        f"its stack, sharding or recompute is another one{_named(others, 'fits', 'fit')}"
    )


def software_offering(run: Run, layout: Layout) -> tuple[SoftwareStack, ...]:
    """Every preset of software, but for the run's own, that has what a layout asks."""
    presets = [stack_preset(name) for name in preset_names("stacks") if name not in NOT_SOFTWARE]
    others = (each for each in presets if each.name != run.stack.name and _trains_alike(run, each))
    return tuple(each for each in others if not any(_lacking(each, layout)))


def _trains_alike(run: Run, stack: SoftwareStack) -> bool:
    """Whether software fine-tunes where a run does, and trains where it trains."""
    return (run.fine_tuning is None) == (stack.tuning is None)


def _lacking(stack: SoftwareStack, layout: Layout) -> Iterator[str]:
    """What of a layout the software does not offer."""
    yield from (f"{axis.label}ism" for axis in unoffered_axes(stack, layout))
    if layout.sharding not in ("none", *stack.offers.shardings):  # all software can leave states whole
        yield f"{layout.sharding} sharding"
    if layout.pipeline_schedule not in stack.offers.schedules:
        yield f"{layout.pipeline_schedule} schedule"


def _may_fit(run: Run, stack: SoftwareStack) -> bool:
    """Whether every stage of a run fits, or is tight, when it runs on `stack`."""
    setups = [replace(run, stack=stack).setup(stage) for stage in run.stages]
    return all(fit_verdict(float(np.min(fit_odds(setup, _memory(setup))))) != DOES_NOT_FIT for setup in setups)


def _memory(setup: Setup) -> MemoryBytes:
    return stage_memory(iteration(setup))


def _nearest(run: Run, suits: Callable[[SoftwareStack], bool]) -> list[str]:
    """The presets of software that suit, those most like the stack of the run first."""
    own = dict(leaves(SoftwareStack, mapping_of(run.stack)))
    found: list[tuple[int, str]] = []
    for name in preset_names("stacks"):
        stack = stack_preset(name)
        if name in NOT_SOFTWARE or stack.name == run.stack.name or not _trains_alike(run, stack):
            continue
        try:
            suited = suits(stack)
        except PerfmodelError:  # what this software refuses to do
            continue
        if suited:
            alike = sum(own.get(key) == value for key, value in leaves(SoftwareStack, mapping_of(stack)))
            found.append((-alike, name))
    return [name for _, name in sorted(found)[:MOST_NAMED]]


def _named(names: list[str], one: str, several: str) -> str:
    return f"; {' and '.join(names)} {one if len(names) == 1 else several}" if names else ""
