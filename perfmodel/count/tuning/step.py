"""The optimizer step of a fine-tuning: what it moves of the parameters that are trained, and what Muon multiplies."""

from __future__ import annotations

from collections.abc import Iterator

from perfmodel.count.data_parallel import shards
from perfmodel.count.layer import layer_parts
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator
from perfmodel.count.parameters import ParameterCount
from perfmodel.count.parts.adapters import is_frozen
from perfmodel.count.roles import Role
from perfmodel.count.tuning.trained import tuned_numbers
from perfmodel.spec.layout import world_group
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import FineTuning
from perfmodel.spec.tuning.optimizers import optimizer


def tuned_steps(setup: Setup, held: ParameterCount, tuning: FineTuning) -> tuple[Operator, ...]:
    """The norm of the gradients, and the step itself, where that is not the host's."""
    layers = {kind: setup.model.layers_of(kind, 0, setup.model.layers) for kind in setup.model.kinds}
    numbers = tuned_numbers(setup.model, held, layers, tuning)
    each, owned = state_bytes(setup.layout, setup.stack, tuning), numbers.trained / shards(setup.layout, "optimizer")
    norm = MemoryBound(
        name="optimizer.gradient_norm",
        phase=OPTIMIZER,
        role=Role.STEP,
        kernel="square_sum",
        moved_bytes=owned * each.gradient,
        kernels=2,
    )
    joined = Collective(
        name="optimizer.gradient_norm.all_reduce",
        phase=OPTIMIZER,
        role=Role.STEP,
        kind="all_reduce",
        payload_bytes=4.0,
        group=world_group(setup.layout),
    )
    if "optimizer" in tuning.offload:
        return norm, joined
    step = MemoryBound(
        name=f"optimizer.{tuning.optimizer}",
        phase=OPTIMIZER,
        role=Role.STEP,
        kernel="adam",
        moved_bytes=owned * each.adam,
        kernels=4,
        family="optimizer",
        precision=setup.layout.recipe.rest,
    )
    return (norm, joined, step, *_orthogonalised(setup, tuning))


def _orthogonalised(setup: Setup, tuning: FineTuning) -> Iterator[Matmul]:
    """Three products of each trained matrix for every iteration of Newton and Schulz: X X^T, its square, and their sum times X.

    Source: KellerJordan/Muon, zeropower_via_newtonschulz5; the shorter side of a matrix is its rows.
    """
    times = optimizer(tuning.optimizer).iterations
    if not times:
        return
    for kind in setup.model.kinds:
        layers = setup.model.layers_of(kind, 0, setup.model.layers) / shards(setup.layout, "optimizer")
        for part in layer_parts(setup.model, setup.model.kinds[kind], 1):
            for linear in part.separate:
                if is_frozen(linear.component, tuning):
                    continue
                short, long = sorted((float(linear.inner), float(linear.columns)))
                for what, inner, columns in (("gram", long, short), ("square", short, short), ("update", short, long)):
                    yield Matmul(
                        name=f"optimizer.{linear.name}.{what}",
                        phase=OPTIMIZER,
                        role=Role.STEP,
                        repeats=times * layers * linear.number,
                        rows=short,
                        columns=columns,
                        inner=inner,
                        precision=setup.layout.recipe.linear_formats[-1],
                        has_weight=False,
                    )
