"""Setups and their parts, as tests ask for them: a model and a layout, under a stack and on a cluster that may be left out."""

from __future__ import annotations

from typing import Final

from perfmodel.count.data_parallel import NAMES
from perfmodel.count.iteration import Iteration, LayerBlocks, iteration
from perfmodel.count.operators import Collective, moves_data_parallel
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

GRADIENT_REDUCTION: Final = NAMES[Role.GRADIENT_REDUCTION]
REPLICA_REDUCTION: Final = NAMES[Role.REPLICA_REDUCTION]
PARAMETER_GATHER: Final = NAMES[Role.PARAMETER_GATHER]
BACKWARD_GATHER: Final = NAMES[Role.BACKWARD_GATHER]
DATA_PARALLEL: Final = tuple(NAMES.values())
CLUSTER: Final = cluster_preset("dgx-h100")
STACK: Final = stack_preset("megatron-core")


def setup_of(model: TransformerModel, layout: Layout, stack: SoftwareStack = STACK, *, cluster: Cluster = CLUSTER) -> Setup:
    """What a layout of a model is counted and timed for; counts do not depend on the cluster."""
    return Setup(model=model, cluster=cluster, stack=stack, layout=layout)


def layer_of(work: Iteration) -> LayerBlocks:
    """The layer of an iteration whose layers are all alike."""
    (blocks,) = work.layers.values()
    return blocks


def data_parallel_calls(setup: Setup) -> tuple[Collective, ...]:
    """The collectives that data parallelism needs in an iteration."""
    return tuple(op for op in iteration(setup).synchronisation if isinstance(op, Collective) and moves_data_parallel(op))
