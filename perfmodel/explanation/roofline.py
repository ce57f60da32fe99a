"""How close every operator of an iteration or of a pass of a server comes to what its GPU and links could do: a roofline.

    attainable = min(P, I * M),    I = F / Q

P dense peak rate of the arithmetic of the operator, M memory rate, F the arithmetic that its kernel executes, Q the bytes that
it moves at least, I their ratio (S. Williams, A. Waterman and D. Patterson, Roofline, CACM 52 (2009),
doi 10.1145/1498765.1498785).
Memory-bound operators and collectives have no F: they are held against the rate at which bytes could move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.attention import arithmetic_of, attention_bytes, executed_flop
from perfmodel.timing.collectives import placement
from perfmodel.timing.kernels import matmul_bytes
from perfmodel.timing.ledger import Entry, ledger
from perfmodel.timing.serving.served_operators import ServedEntry, served_ledger

MATMUL, ATTENTION, MEMORY_BOUND, COLLECTIVE = "matmul", "attention", "memory_bound", "collective"
KINDS: Final = (MATMUL, ATTENTION, MEMORY_BOUND, COLLECTIVE)
MEMORY: Final = "GPU memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflinePoint:
    """One operator: `seconds` of one execution alone, `flop` and `bytes` of it, and the most that it could do.

    `flop` is 0 and `attainable_flop_per_s` None for what computes next to nothing; `bytes` of a collective are what each rank
    sends, `bytes_per_s_limit` what its link could carry.
    """

    name: str
    phase: str
    kind: str
    group: str  # of the ranks of a collective
    axis: str  # of parallelism, along which they lie; empty for all GPUs, and for what is no collective
    precision: str  # of the arithmetic: fused attention of fp32 computes on tensor cores
    confidence: str
    repeats: float
    seconds: float
    flop: float
    bytes: float
    link: str  # that the bytes pass: the GPU's memory, or a link by its name
    bytes_per_s_limit: float
    attainable_flop_per_s: float | None

    @property
    def total_s(self) -> float:
        """Time of all executions in an iteration, hidden or not [s]."""
        return self.repeats * self.seconds

    @property
    def intensity(self) -> float:
        """Arithmetic intensity [FLOP/byte]."""
        return self.flop / self.bytes

    @property
    def flop_per_s(self) -> float:
        """Compute rate that it reaches [FLOP/s]."""
        return self.flop / self.seconds

    @property
    def bytes_per_s(self) -> float:
        """Bandwidth that it reaches [bytes/s]."""
        return self.bytes / self.seconds

    @property
    def efficiency(self) -> float:
        """Share that it reaches of its roof: of the compute rate, or of the bandwidth where it has no FLOPs."""
        limit = self.attainable_flop_per_s
        return self.bytes_per_s / self.bytes_per_s_limit if limit is None else self.flop_per_s / limit


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Roofline(Tabular):
    """The operators in the order of one micro-batch, and the roofs that they lie under."""

    operators: tuple[RooflinePoint, ...]
    peak_flop_per_s: Mapping[str, float]  # of each precision that a product or attention runs in
    memory_bytes_per_s: float
    links_bytes_per_s: Mapping[str, float]  # of each link that a collective crosses, for one GPU, one direction

    def bound_of(self, operator: RooflinePoint) -> str:
        """What the roof over an operator is: compute where its intensity is beyond the ridge, else the memory or a link."""
        if operator.kind == COLLECTIVE:
            return "link"
        peak = self.peak_flop_per_s.get(operator.precision, 0.0)
        return "compute" if operator.flop and operator.intensity * self.memory_bytes_per_s >= peak else "memory"

    def rows(self) -> list[dict[str, Any]]:
        """One row for each operator."""
        return [
            {
                name: getattr(each, name)
                for name in (
                    *("name", "phase", "kind", "group", "precision", "confidence", "repeats", "seconds", "flop", "bytes"),
                    *("link", "intensity", "flop_per_s", "bytes_per_s", "efficiency"),
                )
            }
            | {"bound_by": self.bound_of(each)}
            for each in self.operators
        ]


def roofline(predicted: StagePrediction, *, cluster: Cluster, stack: SoftwareStack) -> Roofline:
    """Every operator of one layout in training.

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from perfmodel.prediction import predict
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> placed = roofline(predict(run).stages[-1][1], cluster=run.cluster, stack=run.stack).operators
    >>> all(0 < each.efficiency <= 1 for each in placed if each.kind in ("matmul", "attention"))
    True
    """
    return _under_roofs(ledger(predicted.work, gpus=predicted.layout.gpus, cluster=cluster, stack=stack), cluster)


def served_roofline(setup: ServingSetup, tokens: ForwardPass) -> Roofline:
    """Every operator of one forward pass of a server: prompts that are read, or sequences that decode.

    >>> from perfmodel.exchange.questions.serving.served_models import serving_setup
    >>> setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    >>> decode = served_roofline(setup, ForwardPass(sequences=8, context=1000)).operators
    >>> round(next(each.intensity for each in decode if each.name == "layer.mlp.fc1"), 1)  # a row is 1 FLOP a byte of weights
    8.0
    """
    return _under_roofs(served_ledger(setup, tokens), setup.cluster)


def _under_roofs(entries: Iterable[Entry | ServedEntry], cluster: Cluster) -> Roofline:
    placed = tuple(each for entry in entries for each in _placed(entry, cluster))
    precisions = dict.fromkeys(each.precision for each in placed if each.flop)
    crossed = {each.link for each in placed if each.kind == COLLECTIVE}
    links = {cluster.links.node.name: float(cluster.links.node.bandwidth_bytes_per_s)}
    links[cluster.links.network.name] = float(cluster.network_bytes_per_s_per_gpu)
    return Roofline(
        operators=placed,
        peak_flop_per_s={name: float(cluster.gpu.peak(name)) for name in precisions},
        memory_bytes_per_s=float(cluster.gpu.memory_bandwidth_bytes_per_s),
        links_bytes_per_s={name: rate for name, rate in links.items() if name in crossed},
    )


def _placed(entry: Entry | ServedEntry, cluster: Cluster) -> Iterator[RooflinePoint]:
    """The operator of an entry, unless it takes no time or moves nothing."""
    operator = entry.operator
    kind, flop, moved = _counts(operator)
    if not entry.seconds or not moved:
        return
    memory = float(cluster.gpu.memory_bandwidth_bytes_per_s)
    if isinstance(operator, Collective):
        link, limit, group, precision = *_link(operator, cluster), operator.group.name, ""
        axis = operator.group.axis.name if operator.group.axis else ""
    else:
        link, limit, group, axis, precision = MEMORY, memory, "", "", arithmetic_of(operator, cluster.gpu)
    yield RooflinePoint(
        name=operator.name,
        phase=operator.phase,
        kind=kind,
        group=group,
        axis=axis,
        precision=precision,
        confidence=entry.confidence,
        repeats=float(entry.repeats),
        seconds=float(entry.seconds),
        flop=flop,
        bytes=moved,
        link=link,
        bytes_per_s_limit=limit,
        attainable_flop_per_s=min(float(cluster.gpu.peak(precision)), flop / moved * memory) if flop else None,
    )


def _counts(operator: Operator | CachedAttention | KeyChoice | SparseAttention) -> tuple[str, float, float]:
    """An operator's kind, the FLOPs that it executes, the bytes that it moves."""
    match operator:
        case ServedProduct():
            return MATMUL, float(operator.flop), float(operator.read_bytes)
        case CachedAttention() | KeyChoice() | SparseAttention():
            return ATTENTION, float(operator.flop), float(operator.read_bytes)
        case Matmul():
            return MATMUL, float(operator.flop), float(matmul_bytes(operator))
        case FusedAttention():
            return ATTENTION, float(executed_flop(operator)), float(attention_bytes(operator))
        case MemoryBound():
            return MEMORY_BOUND, 0.0, float(operator.moved_bytes)
        case Collective():
            return COLLECTIVE, 0.0, float(operator.wire_bytes)


def _link(call: Collective, cluster: Cluster) -> tuple[str, float]:
    """The slowest link that it crosses, and what its group could carry over that."""
    where = placement(call.group, cluster)
    if where.crosses_nodes:
        one = float(cluster.network_bytes_per_s_per_gpu)
        return cluster.links.network.name, one if call.kind == "point_to_point" else float(where.network_bytes_per_s)
    return cluster.links.node.name, float(cluster.links.node.bandwidth_bytes_per_s)
