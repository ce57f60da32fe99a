"""What may be otherwise than a run says: numbers that are far off, and settings that have another value.

A hypothesis changes one thing. That of a number stands for all its factors at once, on a first axis of the equations; that of a
setting for one other value. The values of a setting follow from the declaration of its field: the other words of a choice, the
other of a flag, half and double of a count; micro-batches are all those that the batch of a replica admits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import PerfmodelError
from perfmodel.explanation.expert_moves import half_and_double
from perfmodel.explanation.moves import with_setting
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.evidence.causes import DiagnosisPriors, NumberCause, SettingCause
from perfmodel.spec.evidence.spread import DEVIATIONS, moved, uncertain_numbers, with_numbers
from perfmodel.spec.fields import Choice, Flag, Numeric, rules_of
from perfmodel.spec.layout import Layout
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

POINTS: Final = 65  # of a number's factors, between which times are interpolated
STACK: Final = "stack"  # the key of the software as a whole


@dataclass(frozen=True, slots=True, kw_only=True)
class OffNumber:
    """A number times a factor between two bounds; `deviation` is ln(1 + spread) / 1.64 of its prior, 0 where it has none.

    `follow_error` is how much smaller the change of an iteration's ln T may be than the one predicted, relative to it.
    """

    cause: str
    key: str
    value: float
    typical: float
    least: float
    most: float
    chance: float
    deviation: float
    follow_error: float

    @property
    def factors(self) -> NDArray[np.float64]:
        """Factors from the least to the most, alike far apart in ln."""
        return np.geomspace(self.least, self.most, POINTS)

    def log_density(self, log_factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """-|ln f| / |ln typical|, not normalised: the farther off, the less likely."""
        return -np.abs(log_factors) / abs(float(np.log(self.typical)))

    def at(self, setup: Setup, factor: Numeric) -> Setup:
        """The setup with the number times `factor`, which may be an array."""
        by = {self.key: factor}
        return replace(setup, cluster=moved(setup.cluster, by, "cluster."), stack=moved(setup.stack, by, "stack."))

    def deviations(self, factor: float) -> float | None:
        """How many standard deviations of its own prior a factor is away from 1; None for a number without a spread."""
        return float(np.log(factor)) / self.deviation if self.deviation else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherSetting:
    """One setting with another value; `change` makes it, and raises PerfmodelError where it cannot be.

    `error` is how far a time with it may be off beside its interval, as a relative half width.
    """

    cause: str
    key: str
    before: Any
    after: Any
    chance: float
    error: float
    change: Callable[[Setup], Setup]


def off_numbers(setup: Setup, priors: DiagnosisPriors) -> Iterator[OffNumber]:
    """Every number of the cluster and the stack that may be far off."""
    spreads = dict(uncertain_numbers(setup.cluster, "cluster.")) | dict(uncertain_numbers(setup.stack, "stack."))
    for cause in priors.numbers:
        value = float(_at(setup, cause.path))
        spread = float(spreads.get(cause.path, 0.0))
        yield _off_number(cause, value, float(np.log1p(spread)) / DEVIATIONS)


def _off_number(cause: NumberCause, value: float, deviation: float) -> OffNumber:
    return OffNumber(
        cause=cause.name,
        key=cause.path,
        value=value,
        typical=float(cause.typical),
        least=float(cause.least),
        most=float(cause.most),
        chance=float(cause.chance),
        deviation=deviation,
        follow_error=float(cause.follow_error),
    )


def other_settings(
    setup: Setup, priors: DiagnosisPriors, *, stacks: Sequence[SoftwareStack], unstated: Sequence[str]
) -> Iterator[OtherSetting]:
    """Every setting with every other value that model, cluster and software admit; those of one cause share its chance.

    `stacks` are other software that has what the layout asks; `unstated` the settings that the run leaves to their defaults.
    """
    for cause in priors.settings:
        others = (each for each in _values(setup, cause, stacks) if not cause.values or each.after in cause.values)
        admitted = [each for each in others if _may_be(setup, each.change)]
        doubt = float(priors.unstated.value) if cause.key in unstated else 1.0
        for each in admitted:
            yield replace(each, chance=doubt * float(cause.chance) / len(admitted))


def _may_be(setup: Setup, change: Callable[[Setup], Setup]) -> bool:
    try:
        changed = change(setup)
        check_setup(changed)
        changed.cluster.gpu.attention_library(changed.stack.fusion.attention_on(changed.cluster.gpu.generation))
    except PerfmodelError:
        return False
    return changed.layout.sharding in ("none", *changed.stack.offers.shardings)


def _values(setup: Setup, cause: SettingCause, stacks: Sequence[SoftwareStack]) -> Iterator[OtherSetting]:
    """The other values of one setting, of which some may be refused."""
    make = partial(OtherSetting, cause=cause.name, key=cause.key, chance=0.0, error=float(cause.error))
    if cause.key == STACK:
        for stack in stacks:
            yield make(before=setup.stack.name, after=stack.name, change=partial(_with_stack, stack=stack))
        return
    section, _, name = cause.key.removeprefix("stack.").rpartition(".")
    owner = getattr(setup.stack, section) if section else setup.layout
    before = getattr(owner, name)
    for after in _alternatives(owner, name):
        change = (
            partial(_with_part, section=section, name=name, value=after) if section else partial(_with, name=name, value=after)
        )
        yield make(before=before, after=after, change=change)


def _alternatives(owner: Any, name: str) -> Sequence[Any]:
    """The other values of a field, by its declaration."""
    kind: type = type(owner)
    value = getattr(owner, name)
    match rules_of(kind)[name]:
        case Flag():
            return (not value,)
        case Choice(options=options):
            return [word for word in options if word != value]
    return admitted_micro_batches(owner) if name == "micro_batch_size" else list(half_and_double(value))


def admitted_micro_batches(layout: Layout) -> list[int]:
    """The other divisors of global batch / data parallelism: sequences of one micro-batch."""
    replica = int(layout.global_batch_size // layout.data_parallel)
    return [size for size in range(1, replica + 1) if replica % size == 0 and size != layout.micro_batch_size]


def _with_stack(setup: Setup, *, stack: SoftwareStack) -> Setup:
    return replace(setup, stack=stack)


def _with_part(setup: Setup, *, section: str, name: str, value: Any) -> Setup:
    part = replace(getattr(setup.stack, section), **{name: value})
    return replace(setup, stack=with_numbers(setup.stack, {section: part}))


def _with(setup: Setup, *, name: str, value: Any) -> Setup:
    return replace(setup, layout=with_setting(setup.layout, name, value, setup.cluster))


def _at(setup: Setup, path: str) -> Numeric:
    """The number at a key path of the cluster or the stack."""
    place: Any = setup
    for step in path.split("."):
        place = getattr(place, step)
    number: Numeric = place
    return number
