"""Every operator of an iteration on its own: how often it runs, how long once, and how far that is from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.collectives import placement
from perfmodel.timing.confidence import WORDS, confidence, least_sure
from perfmodel.timing.kernels import at_cluster_load, memory_bound_class
from perfmodel.timing.passes import running_share
from perfmodel.timing.timed_operators import timed_operators


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One operator of one layout."""

    operator: Operator
    repeats: Numeric  # in one iteration
    seconds: Numeric  # of one execution alone, hidden or not
    confidence: str  # measured | interpolated | extrapolated | datasheet


def ledger(work: Iteration, *, gpus: Numeric, cluster: Cluster, stack: SoftwareStack) -> Iterator[Entry]:
    """The operators of one layout in the order of one micro-batch; a group of one does not run its collectives."""
    slow = at_cluster_load(cluster, gpus)
    share = running_share(work, slow, stack)
    for operators, times in work.block_passes():
        for timed in timed_operators(operators, share, slow, stack):
            operator = timed.operator
            repeats = operator.repeats * times
            if not anywhere(repeats) or (isinstance(operator, Collective) and operator.group.ranks <= 1):
                continue
            sure = operator_confidence(operator, cluster=slow, stack=stack)
            yield Entry(operator=operator, repeats=repeats, seconds=timed.alone_s / operator.repeats, confidence=sure)


def seconds_of_a_gpu(
    work: Iteration, *, gpus: Numeric, cluster: Cluster, stack: SoftwareStack
) -> Iterator[tuple[Operator, Numeric]]:
    """Each operator with the seconds that an average GPU runs it in an iteration, alone, hidden or not.

    The passes of a pipeline are shared by its stages, which all take the optimizer step.
    """
    slow = at_cluster_load(cluster, gpus)
    share, stages = running_share(work, slow, stack), work.layout.pipeline_parallel
    for operators, times in work.block_passes():
        each_stage = operators is work.synchronisation
        for timed in timed_operators(operators, share, slow, stack):
            if not (isinstance(timed.operator, Collective) and timed.operator.group.ranks <= 1):
                yield timed.operator, timed.alone_s * (1.0 if each_stage else times / stages)


def seconds_by_confidence(entries: Iterable[Entry]) -> dict[str, float]:
    """The seconds of operators of one layout, each alone, added up by how sure they are; the surest first.

    >>> seconds_by_confidence([])
    {'measured': 0.0, 'interpolated': 0.0, 'extrapolated': 0.0, 'datasheet': 0.0}
    """
    seconds = dict.fromkeys(WORDS, 0.0)
    for entry in entries:
        seconds[entry.confidence] += float(entry.repeats * entry.seconds)
    return seconds


def operator_confidence(operator: Operator, *, cluster: Cluster, stack: SoftwareStack) -> str:
    """How far the time of one operator is from what was measured: measured, interpolated, extrapolated or datasheet."""
    return (
        collective_confidence(operator, cluster) if isinstance(operator, Collective) else _of_kernel(operator, cluster, stack)
    )


def _of_kernel(operator: Matmul | FusedAttention | MemoryBound, cluster: Cluster, stack: SoftwareStack) -> str:
    match operator:
        case Matmul():
            sizes = {"rows": operator.rows, "columns": operator.columns, "inner": operator.inner}
            known = confidence(cluster.gpu.matmul(operator.precision, stack.fusion.matmul_library).evidence, sizes)
            in_table = operator.phase in (FORWARD, RECOMPUTE) and operator.batch == 1  # the tables hold single forward products
            return known if in_table else least_sure([known, "interpolated"])
        case FusedAttention():
            backward, library = operator.phase == DATA_GRADIENT, stack.fusion.attention_on(cluster.gpu.generation)
            attention = cluster.gpu.attention(operator.precision, backward=backward, library=library)
            known = confidence(attention.evidence, {"head_size": operator.head_size, "sequence_length": operator.key_length})
            is_cut = operator.window is not None and operator.farthest_key < operator.key_length
            return least_sure([known, "extrapolated"]) if is_cut else known
        case MemoryBound():
            moved = {"moved_bytes": operator.moved_bytes / np.maximum(operator.kernels, 1)}
            name = memory_bound_class(operator, gpu=cluster.gpu, stack=stack)
            return confidence(cluster.gpu.kernels.memory_bound[name].evidence, moved)


def collective_confidence(call: Collective, cluster: Cluster) -> str:
    """Confidence of a collective: how near its number of nodes and its links inside a node are to measured ones."""
    links, where = cluster.links, placement(call.group, cluster)
    inside = confidence(links.node.collectives.evidence, {"ranks": where.ranks_per_node, "payload_bytes": call.payload_bytes})
    if not where.crosses_nodes:
        return inside
    between = confidence(links.network.collectives.evidence, {"nodes": where.nodes})
    return least_sure([inside, between]) if where.ranks_per_node > 1 else between
