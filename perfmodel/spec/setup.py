"""What one iteration is counted and timed for: a model on a cluster under a stack, in one layout."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """The four specs that every count and every time depends on; numbers of each may be arrays that broadcast."""

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    layout: Layout
