"""Fits the kernels of mixers that keep a state: causal convolutions, and how long scans take against what is counted of them.

    python -m perfmodel.benchmarks.fit.scans    # adds them to the shipped profiles

The tables are serving libraries' (aiconfigurator-core, linear_attention), forward kernels alone. Convolutions (causal_conv1d
and the forks of it) are fitted as other memory-bound kernels are. Scans are those of flash-linear-attention's gated delta rule,
in Triton, as TensorRT-LLM calls them; vLLM's are FlashInfer's on Hopper and Blackwell, which training software does not run.
On Blackwell, with 2.4 times the memory rate and 2.3 times the peak rate of H100, both gain 1.3 to 1.4 times: they are bound by
the instructions that multiprocessors issue.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from perfmodel.benchmarks.fit.memory_bound import FREE
from perfmodel.benchmarks.fit.profile import source_entry, write_profile
from perfmodel.benchmarks.fit.regression import Fit, Floats, Free, fit_of_few
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, NAMES, Package
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.count.parts.mixers import gated_delta_rule
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.errors import PerfmodelError
from perfmodel.exchange.presets import DATA, cluster_preset, gpu_preset, model_preset, stack_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.coefficients import MemoryBoundCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.models.layer_parts import GatedDelta
from perfmodel.spec.setup import Setup
from perfmodel.timing.kernel_times import kernel_times_s
from perfmodel.timing.kernels import plain_memory_bound_time_s

CONVOLUTION: Final = "convolution"
SCAN: Final = "scan"
LEAST_TOKENS: Final = 4096  # shorter calls are starts, which training does not see
BACKWARD_SPREAD: Final = 0.3  # prior: no table has backward kernels; they read twice as much, and sum over the sequence
TOKENS_OF_A_SCAN: Final = 65536  # longer calls are of one long batch, more than a micro-batch
HEADS: Final = 16  # fewer leave multiprocessors idle, which a step of the chain stands for
HEAD_SIZE: Final = 128  # of the tables
MODEL, CLUSTER, STACK = "qwen3-next-80b-a3b", "dgx-h100", "megatron-core"  # what a setup needs beside the heads and the GPU
WORK: Final = Free(start=1.0, low=0.1, high=20.0)


def convolution(rows: pd.DataFrame, gpu: Gpu) -> tuple[dict[str, Any], Fit]:
    """The mapping of the convolution, and its fit: t0 + 4 bytes a token and channel / (M*e); each number of channels held out.

    Calls whose input and output the cache holds are left out. `rows` are those of Package.convolutions.
    """
    is_long = (rows.tokens >= LEAST_TOKENS) & (4.0 * rows.tokens * rows.channels > 2.0 * float(gpu.cache_bytes))
    long = rows[is_long].reset_index(drop=True)
    moved = MemoryBound(name=CONVOLUTION, moved_bytes=4.0 * (long.tokens * long.channels).to_numpy(dtype=float))

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(plain_memory_bound_time_s(moved, MemoryBoundCoefficients(**_both_ways(values)), gpu=gpu))

    found = fit_of_few(equation, FREE, long.seconds.to_numpy(dtype=float), long.groupby("channels").ngroup().to_numpy())
    error = found.held_out_error()["p90"]
    sizes = {"moved_bytes": f"{np.min(moved.moved_bytes):.4g} {np.max(moved.moved_bytes):.4g}"}
    spread = {
        "fixed_s": found.spread.get("fixed_s", 0.0),
        "efficiency": error,
        "backward_efficiency": max(error, BACKWARD_SPREAD),
    }
    return _both_ways(found.found) | {"evidence": {"basis": "measured", "sizes": sizes}, "spread": spread}, found


def _both_ways(values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{way}{name}": values[name] for way in ("", "backward_") for name in FREE}


def scan(rows: pd.DataFrame, gpu: Gpu) -> tuple[dict[str, Any], Fit]:
    """The mapping of scans, and its fit: one factor on products and traffic of the rule; each number of heads held out.

    `rows` are those of Package.delta_rules.
    """
    chosen = rows[(rows.tokens >= LEAST_TOKENS) & (rows.tokens <= TOKENS_OF_A_SCAN) & (rows.value_heads >= HEADS)]
    chosen = chosen[chosen.sequence_length >= LEAST_TOKENS].reset_index(drop=True)
    work_s, chain_s = rule_times_s(chosen, gpu)

    def equation(values: Mapping[str, Any]) -> Floats:
        return np.asarray(values["work"] * work_s + chain_s)

    heads = chosen.groupby("value_heads").ngroup().to_numpy()
    found = fit_of_few(equation, {"work": WORK}, chosen.seconds.to_numpy(dtype=float), heads)
    sizes = {
        column: " ".join(f"{value:g}" for value in sorted(set(chosen[column]))) for column in ("value_heads", "sequence_length")
    }
    spread = {"work": found.held_out_error()["p90"]}
    return {"work": found.found["work"], "evidence": {"basis": "measured", "sizes": sizes}, "spread": spread}, found


def rule_times_s(rows: pd.DataFrame, gpu: Gpu) -> tuple[Floats, Floats]:
    """What products and traffic of the delta rule of each row take at the rates of the library, and what its chain does [s]."""
    columns = ("key_heads", "value_heads", "sequences", "sequence_length")
    key_heads, value_heads, sequences, length = (rows[name].to_numpy(dtype=float) for name in columns)
    delta = GatedDelta(key_heads=key_heads, value_heads=value_heads, key_head_size=HEAD_SIZE, value_head_size=HEAD_SIZE)
    layout = Layout(
        precision="bf16",
        tensor_parallel=1,
        data_parallel=1,
        sequence_parallel=False,
        sharding="none",
        recompute="none",
        micro_batch_size=sequences,
        global_batch_size=sequences,
        sequence_length=length,
    )
    stack = stack_preset(STACK)
    cluster = replace(cluster_preset(CLUSTER), gpu=gpu)
    setup = Setup(model=replace(model_preset(MODEL), delta=delta), cluster=cluster, stack=stack, layout=layout)
    rule = gated_delta_rule(StreamOperators(setup), "rule").forward
    operators = [operator for operator in rule if not isinstance(operator, Collective)]
    seconds = np.sum([each + np.zeros(len(rows)) for each in kernel_times_s(operators, cluster=cluster, stack=stack)], axis=0)
    chained = np.sum([each.chained + np.zeros(len(rows)) for each in operators if isinstance(each, MemoryBound)], axis=0)
    return seconds, chained * float(stack.fusion.scan_step_s)


def state_kernels(name: str, gpu: Gpu, package: Package) -> dict[str, Any]:
    """memory_bound, scan and sources of a GPU; of each only what the package has a table of."""
    convolutions, rules = package.convolutions(name), package.delta_rules(name)
    known: dict[str, Any] = {"sources": {}}
    mapping, found = convolution(convolutions, gpu) if len(convolutions) else ({}, None)
    if found is not None and "efficiency" not in found.at_bounds:  # on A100 one library's, faster than the memory
        known["memory_bound"] = {CONVOLUTION: mapping}
        what = "causal_conv1d of serving libraries, forward; no table has backward passes, which take its rate"
        known["sources"][f"memory_bound.{CONVOLUTION}"] = source_entry(AIC_SOURCE, found, what=what)
    if len(rules):
        known[SCAN], found = scan(rules, gpu)
        what = "the gated delta rule in Triton, forward, over the products and traffic that are counted of it"
        known["sources"][SCAN] = source_entry(AIC_SOURCE, found, what=what)
    return known


def with_state_kernels(profile: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """`profile` with these kernels and their sources in place of those that it had, the rest as it stands."""
    rest = {key: value for key, value in profile.items() if key not in (SCAN, "sources")}
    rest["memory_bound"] = dict(profile["memory_bound"]) | dict(known.get("memory_bound", {}))
    sources = {key: value for key, value in profile["sources"].items() if key not in (SCAN, f"memory_bound.{CONVOLUTION}")}
    section = {SCAN: known[SCAN]} if SCAN in known else {}
    return rest | section | {"sources": sources | dict(known["sources"])}


def main() -> None:
    """Add them to every shipped profile whose GPU has a table."""
    package = Package()
    try:
        for name in NAMES:
            path = DATA / "kernels" / f"{name}.yaml"
            write_profile(path, with_state_kernels(read_mapping(path), state_kernels(name, gpu_preset(name), package)))
    except PerfmodelError as error:
        sys.exit(f"fit: {error}")


if __name__ == "__main__":
    main()
