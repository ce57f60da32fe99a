"""What a profile has beside the newest library: older products, other attention, single memory-bound kernels; with sources.

    python -m perfmodel.benchmarks.fit.matmul.libraries --tables FOLDER    # adds them to the shipped profiles

FOLDER holds serving_ops_h100_a100.csv.gz. H200 has the chip of H100, whose numbers it takes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Final

from perfmodel.benchmarks.fit.attention import flash
from perfmodel.benchmarks.fit.matmul import older_products
from perfmodel.benchmarks.fit.matmul.products import KEPT_SOURCE
from perfmodel.benchmarks.fit.profile import source_entry, write_profile
from perfmodel.benchmarks.fit.serving_ops import (
    GPUS,
    SOURCE,
    TABLE,
    fit_kernel,
    read_serving_ops,
    serving_kernels,
    serving_products,
)
from perfmodel.errors import PerfmodelError
from perfmodel.exchange.presets import DATA, gpu_preset
from perfmodel.exchange.syntax.documents import read_mapping

TWINS: Final = {"h200-sxm-141gb": "h100-sxm-80gb"}
HOPPER: Final = "h100-sxm-80gb"
KERNELS: Final = ("residual", "fused_swiglu", "gelu")
UNALIGNED: Final = {"a100-sxm-80gb": 13.7e12}
UNALIGNED_SPREAD: Final = 0.3
UNALIGNED_SOURCE: Final = (
    "prior, 0.7 of the 19.5 TFLOP/s of fp32 outside of the tensor cores (NVIDIA A100 datasheet), less than the 0.9 of large "
    "fp32 products because such operands are loaded by single numbers; that tensor cores want multiples of 16 bytes says "
    "NVIDIA's Matrix Multiplication Background guide. Not fitted; BigScience's runs with a head size of 108 test it"
)
ROTARY: Final = {  # of the same engine on both GPUs; its rows are not in the table
    **dict.fromkeys(("efficiency", "backward_efficiency"), 0.45),
    **dict.fromkeys(("fixed_s", "backward_fixed_s"), 2e-6),
    "evidence": {"basis": "transferred"},
    "spread": dict.fromkeys(("efficiency", "backward_efficiency"), 0.15),
}
ROTARY_SOURCE: Final = (
    "microsoft/vidur (MIT), rotary kernels of a serving engine on H100 and A100, 0.4 to 0.5 of the memory rate"
)


def libraries(name: str, tables: Path) -> dict[str, Any]:
    """matmul_libraries, attention_laws, memory_bound and sources of a GPU; those of its twin are marked transferred.

    Nothing where the folder `tables` has no table of the GPU.
    """
    origin, paths = TWINS.get(name, name), sorted(tables.glob(f"{TABLE}.csv*"))
    if origin not in GPUS or not paths:
        return {}
    table, gpu = read_serving_ops(paths[0]), gpu_preset(origin)
    sources: dict[str, Any] = {}
    known: dict[str, Any] = {
        "matmul_libraries": {older_products.NAME: {"matmul": {"bf16": _products(table, origin, sources)}}},
        "memory_bound": {"fused_rotary": dict(ROTARY)},
    }
    sources["memory_bound.fused_rotary"] = ROTARY_SOURCE
    for kernel in KERNELS:
        mapping, found = fit_kernel(serving_kernels(table, GPUS[origin]), gpu, kernel)
        known["memory_bound"][kernel] = mapping
        sources[f"memory_bound.{kernel}"] = source_entry(
            SOURCE, found, what=f"{kernel} of a serving engine, forward; each half of its layouts is predicted by the other"
        )
    if origin == HOPPER:
        known["attention_laws"] = {flash.NAME: _flash(sources)}
    if origin != name:
        _mark_transferred(known)
        sources = {key: _transferred_source(value, origin) for key, value in sources.items()}
    return known | {"sources": sources}


def _products(table: Any, origin: str, sources: dict[str, Any]) -> dict[str, Any]:
    mapping, found = older_products.fit_older(serving_products(table, GPUS[origin]), gpu_preset(origin))
    key = f"matmul_libraries.{older_products.NAME}.matmul.bf16"
    what = "x @ W^T of a serving engine of 2024; each half of the shapes (n, k) is predicted by the other"
    sources[key] = source_entry(SOURCE, found, what=what)
    for kept in older_products.kept_numbers(mapping, found):
        sources[f"{key}.{kept}"] = "the table does not tell: that of the newest library on this GPU"
    sources[f"{key}.weight_gradient_factor"] = KEPT_SOURCE
    return mapping


def _flash(sources: dict[str, Any]) -> dict[str, Any]:
    rows, source = flash.read_points()
    laws = {}
    for direction in ("forward", "backward"):
        laws[direction], found = flash.fit_flash(rows, gpu_preset(HOPPER), direction)
        what = f"FlashAttention-2, {direction}, clocks fixed at 1830 MHz; every second length is predicted by the others"
        key = f"attention_laws.{flash.NAME}.{direction}"
        sources[key] = source_entry(source, found, what=what)
        sources |= {f"{key}.{kept}": flash.KEPT_SOURCE for kept in flash.KEPT if kept not in found.found}
        sources[f"{key}.fill_power"] = flash.FILL_POWER_SOURCES[direction]
    sources[f"attention_laws.{flash.NAME}.backward.sequence_half"] = (
        "that without a mask and half a block of 128 keys, which the causal mask hides and the kernel computes; not measured"
    )
    return laws


def _mark_transferred(known: Any) -> None:
    """Write `transferred` into every evidence below."""
    for key, value in known.items():
        if key == "evidence":
            value["basis"] = "transferred"
        elif isinstance(value, dict):
            _mark_transferred(value)


def _transferred_source(source: Any, origin: str) -> Any:
    return source | {"what": f"{source['what']}; on {origin}"} if isinstance(source, dict) else source


def _with_unaligned(products: dict[str, Any], rate: float) -> dict[str, Any]:
    """The mapping of 16-bit products with their rate off the tensor cores."""
    return products | {"unaligned_flop_per_s": rate, "spread": products["spread"] | {"unaligned_flop_per_s": UNALIGNED_SPREAD}}


def add_libraries(name: str, profile: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """`profile` with what `known` has, the rest as it stands."""
    result = dict(profile)
    if name in UNALIGNED:
        result["matmul"] = profile["matmul"] | {"bf16": _with_unaligned(profile["matmul"]["bf16"], UNALIGNED[name])}
        key = "matmul.bf16.unaligned_flop_per_s"
        known = known | {"sources": known.get("sources", {}) | {key: UNALIGNED_SOURCE}}
    for key, value in known.items():
        result[key] = dict(profile.get(key, {})) | value if key in ("memory_bound", "sources") else value
    return {key: value for key, value in result.items() if key != "sources"} | {"sources": result["sources"]}


def main() -> None:
    """Add the libraries to every shipped profile that has them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, required=True, metavar="FOLDER")
    chosen = parser.parse_args()
    try:
        for name in (*GPUS, *TWINS):
            path = DATA / "kernels" / f"{name}.yaml"
            write_profile(path, add_libraries(name, read_mapping(path), libraries(name, chosen.tables)))
    except PerfmodelError as error:
        sys.exit(f"libraries: {error}")


if __name__ == "__main__":
    main()
