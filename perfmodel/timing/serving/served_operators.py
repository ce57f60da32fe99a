"""Every operator of a forward pass of a server on its own: how often, how long, how far from what was measured."""

from __future__ import annotations

from collections.abc import Iterator

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, ServedProduct, forward_operators
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.confidence import confidence, least_sure
from perfmodel.timing.ledger import collective_confidence
from perfmodel.timing.serving.forward_pass import message_time_s, operator_time_s, small_all_reduce
from perfmodel.timing.serving.products import product_kernel, product_time_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedEntry:
    """One operator of one pass."""

    operator: ServedOperator
    repeats: Numeric  # layers that have it
    seconds: Numeric  # of one execution alone
    confidence: str  # measured | interpolated | extrapolated | datasheet


def served_ledger(setup: ServingSetup, tokens: ForwardPass) -> Iterator[ServedEntry]:
    """The operators of one pass (0-d numbers) in their order, each with the seconds of one execution."""
    for operator in forward_operators(setup, tokens):
        seconds = operator_time_s(operator, setup)
        if anywhere(seconds > 0):
            sure = served_confidence(operator, setup)
            yield ServedEntry(operator=operator, repeats=operator.repeats, seconds=seconds, confidence=sure)


def served_confidence(operator: ServedOperator, setup: ServingSetup) -> str:
    """measured, interpolated, extrapolated or datasheet: of products, by the law that takes most of the time."""
    gpu = setup.cluster.gpu
    match operator:
        case Matmul():
            return _of_product(operator, setup)
        case CachedAttention() | KeyChoice() | SparseAttention():
            return _of_cached_keys(operator, setup)
        case FusedAttention():
            law = gpu.attention(operator.precision, backward=False)
            return confidence(law.evidence, {"head_size": operator.head_size, "sequence_length": operator.key_length})
        case MemoryBound():
            known = gpu.kernels.memory_bound["elementwise"].evidence
            word = confidence(known, {"moved_bytes": operator.moved_bytes / operator.kernels})
            return least_sure(
                [word, "datasheet" if operator.role is Role.SCAN else "extrapolated"]
            )  # no engine's steps of states
        case Collective():
            own = small_all_reduce(setup, operator)
            if own is None or collective_time_s(operator, cluster=setup.cluster) < message_time_s(operator, setup) * (1 + 1e-9):
                return collective_confidence(operator, setup.cluster)
            return _of_profile(own.evidence, {"payload_bytes": operator.payload_bytes}, setup)


def _of_cached_keys(operator: CachedAttention | KeyChoice | SparseAttention, setup: ServingSetup) -> str:
    """That of attention over a cache, or of an indexer's part of it."""
    profile = setup.profile
    match operator:
        case CachedAttention():
            law, sizes = profile.attention_over(operator.law).evidence, {"read_bytes": operator.read_bytes}
        case KeyChoice():
            law, sizes = profile.choice_of_keys().evidence, {"keys": operator.keys}
        case SparseAttention():
            law, sizes = profile.sparse_attention_over(operator.law).evidence, {"rows": operator.rows}
    return _of_profile(law, sizes, setup)


def _of_product(product: Matmul, setup: ServingSetup) -> str:
    """That of a product of weights; of scans no engine's were measured."""
    if not isinstance(product, ServedProduct):
        return "datasheet"
    if product_time_s(product, setup)[1]:
        sizes = {"rows": product.rows, "columns": product.columns, "inner": product.inner}
        return least_sure([confidence(setup.cluster.gpu.matmul(product.precision).evidence, sizes), "interpolated"])
    return _of_profile(product_kernel(product, setup).evidence, {"rows": product.rows}, setup)


def _of_profile(evidence: Evidence, sizes: dict[str, Numeric], setup: ServingSetup) -> str:
    """That of a law of the serving profile, which is fitted over all shapes; extrapolated at best from another chip."""
    known = least_sure([confidence(evidence, sizes), "interpolated"])
    return least_sure([known, "extrapolated"]) if setup.profile.carried_over else known
