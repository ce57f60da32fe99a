"""How sure a time is: what coefficients, the machine, and the equations themselves leave open.

T * exp(-sqrt(D^2 + sum_i ln(T / fast_i)^2)) .. T * exp(sqrt(D^2 + sum_i ln(slow_i / T)^2)), with fast_i and slow_i the least
and the greatest time with number i at either end of its own 90 % interval: the same equations on a cluster and a stack whose
uncertain numbers move one at a time. Numbers are independent of each other; one that serves many operators (clocks, the
efficiency of products) moves all of them at once, so their errors stay correlated. D is the discrepancy: how far predictions of
such a stack on such GPUs were off beyond that, on runs of sources that they had not seen (run_evidence.py). Somebody's own
runs leave a share of both exponents (own_runs.py). All three parts are wide or narrow together: the tails that measured
runs show are those of the whole error, not of the discrepancy alone, and so the root of squares is exact (error_law.py).

Ignored: how numbers of one fit are correlated (each spread is what the fit leaves open with the others held), and numbers
that are known to within 2 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import (
    DEVIATIONS,
    both_ends,
    most_dimensions,
    moved,
    uncertain_numbers,
)
from perfmodel.spec.fields import Numeric, Truth, anywhere
from perfmodel.spec.machines.coefficients import NORM_CLASSES
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.precision import FORMATS, PrecisionRecipe
from perfmodel.spec.stack import SoftwareStack

LEAST_SPREAD: Final = 0.02
PARTS: Final = ("coefficients", "machine", "discrepancy")  # of an interval
OF_CLUSTER: Final = "cluster."  # how key paths of its numbers start
NONE: Final = Discrepancy()
CLUSTERS_AND_STACKS: Final = 8  # whose ends are remembered: moving them takes half as long as all the rest of a prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """The 90 % interval [s] of a time, what each uncertain number alone contributes to it, and what none of them explains.

    `half_widths_s`, `ends_s` and `discrepancy_s` are what the equations say, before own runs: these tell how far a time is off,
    not which number is, so that ratios of times are as uncertain as without them. `low_s`, `high_s`, `numbers_s` and `parts_s`
    are what own runs leave.
    """

    low_s: Numeric
    high_s: Numeric
    half_widths_s: Mapping[str, Numeric]  # by key path: (slow - fast) / 2
    ends_s: Mapping[str, tuple[Numeric, Numeric]]  # by key path: the time with c * (1 + s), and with c / (1 + s)
    discrepancy: Discrepancy = NONE
    discrepancy_s: Numeric  # half width of the discrepancy alone
    remaining: Numeric = 1.0  # how much of the half width that all of these make own runs leave
    law: ErrorLaw = NORMAL  # how errors of the logarithm are distributed in the interval

    @property
    def shares(self) -> dict[str, Numeric]:
        """The share of the interval's variance that each number brings, greatest first (for a single layout)."""
        squares = {path: half_s * half_s for path, half_s in self.half_widths_s.items()}
        total = self._square_s2(squares.values())
        ranked = sorted(squares, key=lambda path: -float(np.max(squares[path])))
        return {path: squares[path] / total for path in ranked if anywhere(squares[path] > 0)}

    @property
    def numbers_s(self) -> dict[str, Numeric]:
        """The half width that each uncertain number alone would leave, by key path."""
        return {path: half_s * self.remaining for path, half_s in self.half_widths_s.items()}

    @property
    def parts_s(self) -> dict[str, Numeric]:
        """The half width that each of PARTS alone would leave: numbers of the cluster itself are those of the machine."""
        squares = {path: half_s * half_s for path, half_s in self.numbers_s.items()}
        machine = {path: square for path, square in squares.items() if path.startswith(OF_CLUSTER) and path.count(".") == 1}
        others = (square for path, square in squares.items() if path not in machine)
        halves_s = (np.sqrt(sum(others)), np.sqrt(sum(machine.values())), self.discrepancy_s * self.remaining)
        return dict(zip(PARTS, halves_s, strict=True))

    def _square_s2(self, squares: Iterable[Numeric]) -> Numeric:
        """The square of the half width of the whole interval."""
        total: Numeric = sum(squares) + self.discrepancy_s * self.discrepancy_s
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A positive number by its median and its 90 % interval, and the odds that follow; of any shapes that broadcast.

    Its logarithm is half a distribution on either side of the median, each as wide as the end of the interval asks for:

        x(z) = median * (high / median)**(z / 1.645) for z > 0,  median * (median / low)**(z / 1.645) for z < 0

    with z distributed as `laws` say of errors below and above the median. `least` is what it cannot be less than, whatever x
    is: the bill of a cluster that is reserved for a time.
    """

    median: Numeric
    low: Numeric
    high: Numeric
    least: Numeric = 0.0
    laws: tuple[ErrorLaw, ErrorLaw] = (NORMAL, NORMAL)

    def at(self, deviations: Numeric) -> Numeric:
        """The number at z deviations from its median: max(least, x(z)).

        >>> Estimate(median=1.0, low=0.9, high=1.2).at(np.array([-DEVIATIONS, 0.0, DEVIATIONS])).round(3).tolist()
        [0.9, 1.0, 1.2]
        """
        return np.maximum(self.least, self.median * np.exp(deviations / DEVIATIONS * self._width(np.asarray(deviations) > 0)))

    def quantile(self, probability: Numeric) -> Numeric:
        """What the number is at most with this probability (0 < p < 1): at(z) with p of the errors below z.

        >>> [round(float(Estimate(median=10.0, low=9.5, high=12.0).quantile(p)), 2) for p in (0.05, 0.5, 0.9)]
        [9.5, 10.0, 11.53]
        """
        below, above = self.laws
        if np.ndim(probability) == 0:
            return self.at((above if probability > 0.5 else below).deviations_at(probability))
        return self.at(
            np.where(np.greater(probability, 0.5), above.deviations_at(probability), below.deviations_at(probability))
        )

    def probability_at_most(self, limit: Numeric) -> Numeric:
        """The share of errors below z with x(z) = limit, or 0 where the limit is below `least`; without any width 0 or 1.

        >>> [round(float(Estimate(median=10.0, low=9.5, high=12.0).probability_at_most(x)), 2) for x in (9.5, 10, 11.53)]
        [0.05, 0.5, 0.9]
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            room = np.log(np.true_divide(limit, self.median))
            width = self._width(room > 0)
            deviations = np.where(width > 0, DEVIATIONS * room / width, np.where(room < 0, -np.inf, np.inf))
        below, above = (law.share_below(deviations) for law in self.laws)
        return np.where(np.less(limit, self.least), 0.0, np.where(room > 0, above, below))

    def _width(self, above: Truth) -> Numeric:
        """From the median to the upper end of the interval, or from the lower end to it, in the logarithm."""
        with np.errstate(divide="ignore", invalid="ignore"):
            width = np.log(np.where(above, np.true_divide(self.high, self.median), np.true_divide(self.median, self.low)))
        return np.nan_to_num(width, nan=0.0)  # of what never ends both ends are infinite


def uncertainty(
    times_s: Numeric, paths: Sequence[str], discrepancy: Discrepancy = NONE, remaining: Numeric = 1.0, law: ErrorLaw = NORMAL
) -> Uncertainty:
    """The interval of a time, from `times_s` on the cluster and the stack of `with_ends`: its first axis holds every end.

    Own runs leave it `remaining` times as wide; errors are distributed in it by `law`.
    """
    times = np.asarray(times_s)
    seconds, fast_or_slow = times[0], times[1:]
    fast = np.minimum(np.minimum(fast_or_slow[0::2], fast_or_slow[1::2]), seconds)
    slow = np.maximum(np.maximum(fast_or_slow[0::2], fast_or_slow[1::2]), seconds)
    below, above = (
        np.hypot(_root_sum_square(np.log(each)), discrepancy.half_width) for each in (seconds / fast, slow / seconds)
    )
    return Uncertainty(
        low_s=seconds * np.exp(-below * remaining),
        high_s=seconds * np.exp(above * remaining),
        half_widths_s=dict(zip(paths, (slow - fast) / 2.0, strict=True)),
        ends_s=dict(zip(paths, zip(fast_or_slow[0::2], fast_or_slow[1::2], strict=True), strict=True)),
        discrepancy=discrepancy,
        discrepancy_s=seconds * np.sinh(discrepancy.half_width),
        remaining=remaining,
        law=law,
    )


class MovedSpecs(NamedTuple):
    """The key paths of the numbers that move, and a cluster and a stack with them on a new first axis, before `dimensions`."""

    paths: tuple[str, ...]
    cluster: Cluster
    stack: SoftwareStack
    dimensions: int


@lru_cache(maxsize=CLUSTERS_AND_STACKS)
def with_ends(
    cluster: Cluster, stack: SoftwareStack, recipe: PrecisionRecipe, dimensions: int, *, messages: bool
) -> MovedSpecs:
    """A cluster and a stack with every uncertain number at both ends.

    Place 0 of the axis is both as they stand, then come both ends of each number. As many axes follow as their numbers have,
    or `dimensions`, those of a layout, if these are more. `messages`: whether GPUs send to one another, as pipelines and rings
    do.
    """
    dimensions = max(dimensions, most_dimensions(cluster, stack))
    numbers = [*uncertain_numbers(cluster, "cluster."), *uncertain_numbers(stack, "stack.")]
    unused = _unused(cluster, stack, recipe, messages=messages)
    spreads = {path: spread for path, spread in numbers if anywhere(spread >= LEAST_SPREAD) and not path.startswith(unused)}
    factors = both_ends(spreads, dimensions)
    return MovedSpecs(tuple(spreads), moved(cluster, factors, "cluster."), moved(stack, factors, "stack."), dimensions)


def _unused(cluster: Cluster, stack: SoftwareStack, recipe: PrecisionRecipe, *, messages: bool) -> tuple[str, ...]:
    """The starts of key paths of numbers that no kernel of this recipe on this stack is timed by.

    A message inside a node is timed as half of an all-to-all of two.
    """
    kernels, collectives = "cluster.gpu.kernels", "cluster.links.node.collectives"
    classes = [name for name in NORM_CLASSES if name != stack.fusion.norms]
    unused = [f"{kernels}.memory_bound.{name}." for name in classes] + ["cluster.gpu.serving."]
    if not messages:
        unused.append(f"{collectives}.all_to_all.")
    products, is_fused = cluster.gpu.product_formats(recipe), stack.fusion.fuses_attention(recipe)
    unused += [f"{kernels}.matmul.{other}." for other in FORMATS if other not in products]
    unused += [f"cluster.gpu.carried_products.{other}." for other in FORMATS if other not in products]
    unused += _other_libraries(cluster, stack, recipe)
    fused = {
        "fused_rotary": stack.fusion.rotary,
        "fused_swiglu": stack.fusion.activation,
        "fused_geglu": stack.fusion.activation,
    }
    unused += [f"{kernels}.memory_bound.{name}." for name, runs in fused.items() if not runs]
    if is_fused:  # no product of activations is batched
        unused += [f"{kernels}.matmul.{each}.unaligned_flop_per_s" for each in cluster.gpu.kernels.matmul]
    low = stack.low_precision.attention_format(recipe) if is_fused else ""
    unused += [f"{kernels}.low_attention.{each}." for each in cluster.gpu.kernels.low_attention if each != low]
    others = [each for each in FORMATS if each not in (*recipe.formats, low)]
    finer = [name for name in cluster.gpu.kernels.memory_bound if name.partition("-")[2] in others]
    unused += [f"{kernels}.memory_bound.{name}." for name in finer]
    other_law = "" if recipe.has_wide_attention else "_fp32"
    unused += [f"{kernels}.attention_{way}{other_law}." for way in ("forward", "backward")]
    if not (is_fused and recipe.has_wide_attention):
        unused.append("cluster.gpu.carried_attention.")
    if not recipe.casts:
        unused.append(f"{kernels}.memory_bound.cast.")
    return tuple(unused)


def _other_libraries(cluster: Cluster, stack: SoftwareStack, recipe: PrecisionRecipe) -> list[str]:
    """The starts of key paths of numbers of libraries that this stack does not call."""
    known, kernels, products = cluster.gpu.kernels, "cluster.gpu.kernels", cluster.gpu.product_formats(recipe)
    unused = [f"{kernels}.matmul_libraries.{name}." for name in known.matmul_libraries if name != stack.fusion.matmul_library]
    called = "" if recipe.has_wide_attention else stack.fusion.attention_on(cluster.gpu.generation)
    unused += [f"{kernels}.attention_laws.{name}." for name in known.attention_laws if name != called]
    if called in known.attention_laws:
        unused += [f"{kernels}.attention_{way}." for way in ("forward", "backward")]
    if stack.fusion.matmul_library in known.matmul_libraries:
        replaced = known.matmul_libraries[stack.fusion.matmul_library].matmul
        unused += [f"{kernels}.matmul.{each}." for each in known.matmul if each in replaced]
        others = [each for each in replaced if each not in products]
        unused += [f"{kernels}.matmul_libraries.{stack.fusion.matmul_library}.matmul.{other}." for other in others]
    return unused


def _root_sum_square(terms: NDArray[np.float64]) -> Numeric:
    """Over the first axis, added up one after the other, so that one layout and many give the same bits."""
    if not len(terms):
        return 0.0
    root: Numeric = np.sqrt(np.add.accumulate(terms * terms, axis=0)[-1])
    return root
