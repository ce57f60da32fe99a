"""What may be otherwise than a run says, how often that is so, and how far a number may be off: the priors of a diagnosis."""

from __future__ import annotations

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, choice, count, flag, number, part, text, words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NumberCause(Spec):
    """A number of the cluster or the stack that may be far off, by a factor f from `least` to `most`.

    The density of ln f falls off as exp(-|ln f| / |ln typical|): `typical` is how far a number is off that is off. An
    iteration may follow it less than predicted: T(1) * (T(f) / T(1))^x, with x between 1 - follow_error and 1.
    """

    path: str = text()
    name: str = text()  # what a person calls the cause
    chance: Numeric = number("ratio", above=0, maximum=0.5)  # of all runs that miss their prediction or keep it
    typical: Numeric = number("ratio", above=0)
    least: Numeric = number("ratio", above=0, maximum=1)
    most: Numeric = number("ratio", minimum=1)
    follow_error: Numeric = number("ratio", default=0.0)
    source: str = text()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        if not self.least <= self.typical <= self.most or self.typical == 1.0 or self.least == self.most:
            raise InputError(f"{self.typical:g} must be another factor than 1, from least to most", key="typical")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SettingCause(Spec):
    """A setting of the layout or the stack (or the stack as a whole) that may be another: its other values share the chance.

    `values` are those that it is about, where it is not about all; `error` is how far a time with another value may be off
    beside its interval, as the relative half width of a 90 % interval.
    """

    key: str = text()
    name: str = text()
    chance: Numeric = number("ratio", above=0, maximum=0.5)
    values: tuple[str, ...] = words(default=())
    error: Numeric = number("ratio", default=0.0)
    source: str = text()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SourcedNumber(Spec):
    """One number with where it comes from."""

    value: Numeric = number("ratio", above=0)
    source: str = text()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KernelWords(Spec):
    """How the kernels of one kind are called in a profile: a regular expression, and how far their time may be off besides."""

    pattern: str = text()
    error: Numeric = number("ratio", above=0)
    source: str = text()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LinkCause(Spec):
    """Why collectives of one tier of links are slower (or faster) than expected: their rates times `least` to `most`.

    `lost_nics` are NICs of a node that carry nothing; `unswitched`: switches add nothing up. `kinds` are the collectives that
    it is about, where it is not about all.
    """

    name: str = text()  # in words, behind "looks like"
    tier: str = choice("node", "network")
    kinds: tuple[str, ...] = words(default=())
    least: Numeric = number("ratio", above=0, default=1.0)
    most: Numeric = number("ratio", above=0, default=1.0)
    lost_nics: int = count(minimum=0, default=0)
    unswitched: bool = flag(default=False)
    check: str = text()  # what tells
    source: str = text()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        if self.least > self.most:
            raise InputError(f"{self.least:g} is more than the most, {self.most:g}", key="least")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DiagnosisPriors(Spec):
    """All that a diagnosis takes for granted before it looks at a measurement."""

    numbers: tuple[NumberCause, ...] = part(NumberCause, shape="sequence")
    settings: tuple[SettingCause, ...] = part(SettingCause, shape="sequence")
    unstated: SourcedNumber = part(SourcedNumber)  # times the chance of a setting that the run leaves to its default
    elsewhere: SourcedNumber = part(SourcedNumber)  # chance of a cause that is none of these
    elsewhere_spread: SourcedNumber = part(SourcedNumber)  # relative half width of the 90 % interval of what it does to a time
    memory_doubt: SourcedNumber = part(SourcedNumber)  # chance that a layout runs whose memory is predicted not to fit
    collective_error: SourcedNumber = part(
        SourcedNumber
    )  # relative half width, of a bandwidth of nccl-tests, beside its interval
    links: tuple[LinkCause, ...] = part(LinkCause, shape="sequence")
    link_error: SourcedNumber = part(SourcedNumber)  # by which equations miss bandwidths of large messages on healthy links
    link_repeat: SourcedNumber = part(SourcedNumber)  # least relative half width of a rate or a start that nccl-tests tell
    kernels: dict[str, KernelWords] = part(KernelWords, shape="table")  # by kind of kernel
