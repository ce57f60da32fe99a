"""Which numbers of a cluster and a stack can be moved by a few percent, alone or, as a person thinks of them, together.

Not moved: whole numbers (GPUs and NICs of a node, multiprocessors, tiles), sizes of one number in bytes (2 or 4, nothing
between), factors against an efficiency that is moved (tiles, head sizes, libraries), what a rate was measured on, and a
share of busy neighbours that follows from the layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Number, NumberTable, Numeric, Part, Spec, rule_of
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack

PEAK: Final = "cluster.gpu.peak_flop_per_s"
NODE: Final = "cluster.links.node"
NETWORK: Final = "cluster.links.network"
KERNELS: Final = "cluster.gpu.kernels"
HELD: Final = (
    "cluster.busy_share",
    f"{NODE}.measured_bandwidth_bytes_per_s",
    *(f"stack.states.{name}_bytes" for name in ("gradient", "reduced_gradient", "parameter", "optimizer")),
)
OF_SHARED_MEMORY: Final = ("busy_factor", "backward_busy_factor")  # 1 where devices have a memory each: no lever then
FROM_ONE: Final = ("unlisted_work", *OF_SHARED_MEMORY)  # times at least 1: below it means nothing
HARDWARE, STACK = "hardware", "stack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One number with its key path, and how far it may go."""

    path: str
    value: float
    minimum: float
    maximum: float

    def moved_by(self, factor: float) -> float:
        """The relative change that a factor makes, as far as the number may go."""
        if self.value == 0.0:
            return 0.0
        return float(np.clip(self.value * factor, self.minimum, self.maximum)) / self.value - 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """Numbers that move together: one of them under its key path, or what a person has one word for."""

    name: str
    kind: str  # hardware | stack
    headline: bool  # whether it is one of those that a person asks for first
    coefficients: tuple[Coefficient, ...]


def coefficients(cluster: Cluster, stack: SoftwareStack) -> dict[str, Coefficient]:
    """Every number that can be moved, by its key path.

    >>> from perfmodel.exchange.presets import cluster_preset, stack_preset
    >>> known = coefficients(cluster_preset("dgx-h100"), stack_preset("megatron-core"))
    >>> known["cluster.links.node.bandwidth_bytes_per_s"].value, known["stack.host.launch_s"].value
    (450000000000.0, 6e-06)
    """
    found = [*_numbers(cluster, "cluster."), *_numbers(stack, "stack.")]
    return {each.path: each for each in found if each.path not in HELD and not _is_idle(each)}


def _is_idle(coefficient: Coefficient) -> bool:
    """Whether a number is about devices that share one memory, as the cores of a CPU do, and these do not."""
    return coefficient.path.rpartition(".")[2] in OF_SHARED_MEMORY and coefficient.value == 1.0


def _numbers(spec: Spec, path: str) -> Iterator[Coefficient]:
    for entry in fields(spec):  # type: ignore[arg-type]
        rule, value, key = rule_of(entry), getattr(spec, entry.name), f"{path}{entry.name}"
        if isinstance(rule, Number) and not rule.integer and value is not None:
            yield _coefficient(key, value, rule)
        elif isinstance(rule, NumberTable) and key == PEAK:
            yield from (_coefficient(f"{key}.{name}", each, rule.number) for name, each in value.items())
        elif isinstance(rule, Part) and rule.shape != "sequence" and value is not None:
            members = value.items() if isinstance(value, Mapping) else [("", value)]
            for name, member in members:
                yield from _numbers(member, f"{key}.{name}.".replace("..", "."))


def _coefficient(path: str, value: Numeric, rule: Number) -> Coefficient:
    least = 1.0 if path.rpartition(".")[2] in FROM_ONE else rule.minimum
    return Coefficient(path=path, value=float(value), minimum=least, maximum=rule.maximum)


def levers(cluster: Cluster, stack: SoftwareStack) -> tuple[Lever, ...]:
    """What a person asks for first, then every number that is not one of these on its own."""
    known = coefficients(cluster, stack)
    first = [
        Lever(name=name, kind=HARDWARE, headline=True, coefficients=together)
        for name, pattern in _headlines(cluster).items()
        if (together := tuple(each for path, each in known.items() if re.fullmatch(pattern, path)))
    ]
    alone = {each.coefficients[0].path for each in first if len(each.coefficients) == 1}
    rest = [
        Lever(name=path, kind=path.partition(".")[0].replace("cluster", HARDWARE), headline=False, coefficients=(each,))
        for path, each in known.items()
        if path not in alone
    ]
    return (*first, *rest)


def _headlines(cluster: Cluster) -> dict[str, str]:
    """A person's word -> the key paths that it means."""
    node, network, kernels = (re.escape(each) for each in (NODE, NETWORK, KERNELS))
    return {
        f"{cluster.links.node.name} bandwidth": rf"{node}\.bandwidth_bytes_per_s",
        f"{cluster.links.network.name} bandwidth": rf"{network}\.bandwidth_bytes_per_s",
        "GPU memory bandwidth": r"cluster\.gpu\.memory_bandwidth_bytes_per_s",
        "peak rate": rf"{re.escape(PEAK)}\.\w+",
        "clocks under load": r"cluster\.compute_scale",
        "efficiency of matrix products": rf"{kernels}\.matmul\.\w+\.efficiency",
        "efficiency of attention": rf"{kernels}\.attention_\w+\.efficiency",
        "efficiency of memory-bound kernels": rf"{kernels}\.memory_bound\.[\w-]+\.(backward_)?efficiency",
        "start-up of kernels": rf"{kernels}\..*fixed_s",
        f"{cluster.links.node.name} latency": rf"{node}\.collectives\.\w+\.(rank_)?latency_s",
        "network latency": rf"{network}\.collectives\.(\w*latency_s|tree_start_s)",
        "kernel launch time": r"stack\.host\.launch_s",
    }
