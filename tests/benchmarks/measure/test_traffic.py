"""Is what microbenchmarks call the traffic of an operator what the forecast counts of it?"""

from __future__ import annotations

import pytest

from perfmodel.benchmarks.measure.kernels.plan import NOT_IN_FP32, PHASES
from perfmodel.benchmarks.measure.kernels.traffic import KERNELS, moved_bytes
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import MemoryBound
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.machines.coefficients import MEMORY_BOUND_KERNELS, STATE_KERNELS
from tests.setups import layer_of, setup_of

RUN = read_candidates("nemotron-4-15b", ["stack=reference", "precision=bf16", "tensor_parallel=1"])[0].run
LAYOUT = RUN.layout(RUN.stages[0])
MODEL = model_preset("nemotron-4-15b")


def counted() -> list[MemoryBound]:
    """The memory-bound operators of a real model."""
    work = iteration(setup_of(MODEL, LAYOUT, stack_preset("reference")))
    blocks = (work.embedding, layer_of(work).again, work.head)
    operators = [op for block in blocks for op in block.operators]
    operators += work.synchronisation
    return [op for op in operators if isinstance(op, MemoryBound) and op.kernel]


def test_every_kernel_of_the_forecast_is_measured_and_no_other() -> None:
    """And copies, for the rate of the memory; but none of mixers that the reference model does not run."""
    assert set(KERNELS) == {*MEMORY_BOUND_KERNELS, "copy"} - {*STATE_KERNELS} == set(PHASES)


@pytest.mark.parametrize(("name", "columns"), [("layer.mlp.norm", "hidden_size"), ("layer.mlp.activation", "ffn_hidden_size")])
def test_the_traffic_of_a_tensor_is_that_of_the_same_operator_in_a_model(name: str, columns: str) -> None:
    """Forwards and backwards."""
    tokens = int(LAYOUT.tokens_per_micro_batch)
    for each in (op for op in counted() if op.name == name):
        width = int(getattr(MODEL, columns))
        assert moved_bytes(each.kernel, each.phase, precision="bf16", rows=tokens, columns=width) == float(each.moved_bytes)


@pytest.mark.parametrize("kernel", PHASES)
def test_traffic_grows_with_the_tensor(kernel: str) -> None:
    """Twice the rows, twice the bytes; a table of embeddings grows with them."""
    precision = "bf16" if kernel in NOT_IN_FP32 else "fp32"
    for phase in PHASES[kernel]:
        one, two = (
            moved_bytes(kernel, phase, precision=precision, rows=rows, columns=256, table_rows=4 * rows) for rows in (64, 128)
        )
        assert two == pytest.approx(2 * one)


def test_adam_moves_28_bytes_a_parameter_in_fp32_and_30_in_bf16() -> None:
    """Reads a gradient, reads and writes three states; writes the 16-bit parameter too."""
    assert moved_bytes("adam", "optimizer", precision="fp32", rows=8, columns=256) == pytest.approx(28 * 2048)
    assert moved_bytes("adam", "optimizer", precision="bf16", rows=8, columns=256) == pytest.approx(30 * 2048)
