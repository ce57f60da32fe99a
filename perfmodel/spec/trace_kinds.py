"""To which kind of operators the kernels of a profile belong: patterns of names, and what a prediction has of each kind."""

from __future__ import annotations

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Spec, part, text, words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TraceKind(Spec):
    """One kind: a pattern of names of kernels, and the operators that they run.

    Operators are those with one of `collectives` (count/operators.py), of `kernels` (spec/machines/coefficients.py), of `roles`
    (count/roles.py), or of `types`: matmul, attention.
    """

    name: str = text()
    pattern: str = text()
    collectives: tuple[str, ...] = words(default=())
    kernels: tuple[str, ...] = words(default=())
    roles: tuple[str, ...] = words(default=())
    types: tuple[str, ...] = words(default=())
    source: str = text()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TraceKinds(Spec):
    """All kinds, the one that counts first."""

    kinds: tuple[TraceKind, ...] = part(TraceKind, shape="sequence")
