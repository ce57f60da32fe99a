"""The operators of a block as rows of a table that a test writes down by hand."""

from __future__ import annotations

from perfmodel.count.blocks import Block
from perfmodel.count.operators import Collective, Matmul, MemoryBound
from perfmodel.spec.phases import DATA_GRADIENT

Row = tuple[float, ...]


def traffic(block: Block, part: str = "") -> dict[str, Row]:
    """By the last words of its name, of each memory-bound operator: bytes and kernels forwards and backwards, bytes kept."""
    back = {op.name: op for op in block.backward if isinstance(op, MemoryBound) and op.phase == DATA_GRADIENT}
    return {
        op.name.removeprefix(part): tuple(
            float(each)
            for each in (op.moved_bytes, op.kernels, back[op.name].moved_bytes, back[op.name].kernels, op.saved_bytes)
        )
        for op in block.forward
        if isinstance(op, MemoryBound) and op.name.startswith(part)
    }


def products(block: Block, part: str = "") -> dict[str, Row]:
    """The same of products: batch, rows, inner size, columns and kernels of each, and the bytes that it keeps."""
    return {
        op.name.removeprefix(part): tuple(
            float(each) for each in (op.batch, op.rows, op.inner, op.columns, op.kernels, op.saved_bytes)
        )
        for op in block.forward
        if isinstance(op, Matmul) and op.name.startswith(part)
    }


def payloads(block: Block, part: str = "") -> list[tuple[str, str, float]]:
    """Name, kind and payload of every collective, forward and then backward, in the order in which they run."""
    calls = (op for op in block.operators if isinstance(op, Collective) and op.name.startswith(part))
    return [(op.name.removeprefix(part), op.kind, float(op.payload_bytes)) for op in calls]
