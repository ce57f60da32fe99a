"""Puts the fits of one GPU together as a kernel profile: products, attention, memory-bound classes, each with its source."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import pandas as pd

from perfmodel.benchmarks.fit import memory_bound
from perfmodel.benchmarks.fit.attention import kernels as attention
from perfmodel.benchmarks.fit.attention.kernels import AttentionFit
from perfmodel.benchmarks.fit.matmul import kin, products
from perfmodel.benchmarks.fit.profile import source_entry
from perfmodel.benchmarks.fit.regression import Fit
from perfmodel.benchmarks.fit.tables import AIC_SOURCE, CUDNN_NAMES, CUDNN_SOURCE, RECORDS_SOURCE, Folder, Package, Records
from perfmodel.exchange.presets import gpu_preset
from perfmodel.spec.machines.coefficients import NORM_CLASSES
from perfmodel.spec.machines.hardware import Gpu

# a new kernel of the same chip, on other days: half of 90 % of the errors of a law on tables that it was not fitted on
CARRIED_SPREAD: Final = 0.10
LEAST_ATTENTION_SPREAD: Final = 0.04  # tables of a few shapes of one model understate the error on other shapes
ELEMENTWISE_SPREAD: Final = 0.08
OPTIMIZER_SPREAD: Final = 0.20
FORMATS_FITTED: Final = ("bf16", "fp8", "nvfp4")
OF_A_LIBRARY: Final = {
    "bf16": "median of the serving libraries",
    "fp8": "median of the serving libraries, cuBLASLt kernels (torch._scaled_mm) with their cast charged apart",
    "nvfp4": "the FP4 products of TensorRT-LLM with their cast charged apart",
}
CASTS: Final = {  # class of kernels by the format of the products that they come with
    "fp8": ("cast", "the cast with a scale of the moment that comes with these products"),
    "nvfp4": ("cast-nvfp4", "the cast with scales of blocks, and that of the tensor known, that comes with these products"),
}


@dataclass(frozen=True)
class GpuFits:
    """All fits of one GPU; `tables` holds the training kernels, `package` the serving ones."""

    name: str
    package: Package
    tables: Folder
    records: Records | None = None

    @cached_property
    def gpu(self) -> Gpu:
        """Its datasheet; what it knew of kernels before plays no part."""
        return gpu_preset(self.name)

    @cached_property
    def matmul(self) -> dict[str, products.ProductFit]:
        """The fits of matrix products, by precision."""
        own = self.records.products() if self.records else pd.DataFrame()
        table = own if len(own) else self.package.products(self.name)
        return {
            precision: products.fit_products(table, self.gpu, precision)
            for precision in FORMATS_FITTED
            if precision in self.gpu.peak_flop_per_s and (table.precision == precision).any()
        }

    @cached_property
    def serving(self) -> AttentionFit:
        """Forward attention of a serving library."""
        return attention.fit_serving(self.package.attention(self.name), self.name, self.gpu)

    @cached_property
    def attention(self) -> dict[str, AttentionFit]:
        """The fits of attention in training, by direction."""
        if self.name in CUDNN_NAMES:
            table = self.tables.training_attention(self.name)
            return {
                direction: attention.fit_training(table, self.name, self.gpu, self.serving, direction)
                for direction in ("forward", "backward")
            }
        if self.name in attention.TWINS:
            twin = self.other(attention.TWINS[self.name])
            faster = attention.speed_ratio(
                self.package.attention(self.name), self.package.attention(twin.name), self.name
            ) * float(twin.gpu.peak("bf16") / self.gpu.peak("bf16"))
            return {direction: attention.carried_over(fit, faster) for direction, fit in twin.attention.items()}
        twin = self.other("h200-sxm-141gb")
        back = attention.backward_like(self.serving, twin.attention["forward"], twin.attention["backward"])
        return {"forward": self.serving, "backward": back}

    @cached_property
    def norms(self) -> dict[str, dict[str, Fit]]:
        """By class and direction; of the twin where this GPU has no table."""
        twin = memory_bound.TWINS.get(self.name)
        if twin:
            return self.other(twin).norms
        return memory_bound.fit_norms(self.tables.norms(self.name), self.gpu)

    def other(self, name: str) -> GpuFits:
        """The fits of another GPU from the same tables."""
        return GpuFits(name=name, package=self.package, tables=self.tables)

    def profile(self) -> dict[str, Any]:
        """The mapping of perfmodel/data/kernels."""
        sources: dict[str, Any] = {}
        return {
            "name": f"Kernels of {self.gpu.name}",
            "matmul": {precision: self._matmul(precision, sources) for precision in self.matmul},
            "attention_forward": self._attention("forward", sources),
            "attention_backward": self._attention("backward", sources),
            "memory_bound": self._memory_bound(sources),
            "sources": sources,
        }

    def _matmul(self, precision: str, sources: dict[str, Any]) -> dict[str, Any]:
        found = self.matmul[precision]
        what = f"x @ W^T, {OF_A_LIBRARY[precision]}; short bursts near boost clock"
        source = AIC_SOURCE
        if self.records and len(self.records.products()):
            source, what = RECORDS_SOURCE, "forward products that this project measured"
        sources[f"matmul.{precision}"] = source_entry(source, found.fit, what=what, errors=found.errors())
        sources[f"matmul.{precision}.weight_gradient_factor"] = products.KEPT_SOURCE
        factor = self.records.weight_gradient_factor() if self.records else None
        coefficients = found.coefficients()
        split = products.SPLIT_ACCUMULATION.get((self.gpu.generation, precision))
        if split is not None:
            coefficients["split_accumulator_factor"] = split
            coefficients["spread"]["split_accumulator_factor"] = products.SPLIT_SPREAD
            sources[f"matmul.{precision}.split_accumulator_factor"] = products.SPLIT_SOURCE
        if source is AIC_SOURCE and self.name in kin.KIN and precision in kin.FORMATS:
            new = {each: self.matmul[each].law() for each in kin.FORMATS}
            coefficients["burst_clocks"] = kin.burst_clocks_among_kin(self.name, new, self.package.products)[precision]
            coefficients["spread"]["burst_clocks"] = kin.BURST_SPREAD
            sources[f"matmul.{precision}.burst_clocks"] = kin.BURST_SOURCE
        if factor is None:
            return coefficients
        sources[f"matmul.{precision}.weight_gradient_factor"] = "median over the shapes that this project measured both ways"
        return coefficients | {"weight_gradient_factor": max(factor, 1.0)}

    def _attention(self, direction: str, sources: dict[str, Any]) -> dict[str, Any]:
        found, key = self.attention[direction], f"attention_{direction}"
        if found.fit is None:
            origin = attention.TWINS.get(self.name, "h200-sxm-141gb")
            law = f"the law of {origin}, carried over"
            sources[key] = f"{law} as benchmarks/fit/attention/kernels.py says; no table of this GPU"
            return found.coefficients | {"evidence": {"basis": "transferred"}, "spread": {"efficiency": CARRIED_SPREAD}}
        trained = self.name in CUDNN_NAMES
        source = CUDNN_SOURCE if trained else AIC_SOURCE
        what = "cuDNN training kernels, bf16" if trained else "forward kernels of a serving library (FlashAttention), bf16"
        sources[key] = source_entry(source, found.fit, what=what)
        sources[f"{key}.longest_rows"] = source_entry(AIC_SOURCE, self.serving.fit or found.fit, what="the serving kernels")
        sizes = {
            column: " ".join(f"{value:g}" for value in sorted(set(found.rows[column])))
            for column in ("head_size", "sequence_length")
        }
        known = found.fit.spread
        spread = {name: known[name] for name in found.coefficients if name in known}
        spread["efficiency"] = max(found.fit.held_out_error()["p90"], LEAST_ATTENTION_SPREAD)
        return found.coefficients | {"evidence": {"basis": "measured", "sizes": sizes}, "spread": spread}

    def _memory_bound(self, sources: dict[str, Any]) -> dict[str, Any]:
        twin = memory_bound.TWINS.get(self.name)
        result = {}
        for kernel_class in NORM_CLASSES:
            fits = self.norms[kernel_class]
            basis = "transferred" if twin else "measured"
            moved = memory_bound.moved_range(self.tables.norms(twin or self.name))
            result[kernel_class] = memory_bound.coefficients(fits["forward"], fits["backward"], basis=basis, moved=moved)
            what = f"{kernel_class} RMSNorm of 2-byte numbers on {twin or self.name}"
            sources[f"memory_bound.{kernel_class}.evidence"] = f"the RMSNorms in {CUDNN_SOURCE.table}"
            for direction, prefix in (("forward", ""), ("backward", "backward_")):
                for number in ("fixed_s", "efficiency"):
                    key = f"memory_bound.{kernel_class}.{prefix}{number}"
                    sources[key] = source_entry(CUDNN_SOURCE, fits[direction], what=f"{what}, {direction}")
        like = "the fused RMSNorm, forward, as no table has these kernels; STREAM copies reach 0.78-0.95 of the memory rate"
        sources["memory_bound.elementwise"] = sources["memory_bound.optimizer"] = like
        result["elementwise"] = memory_bound.alike(result, ELEMENTWISE_SPREAD)
        result["optimizer"] = memory_bound.alike(result, OPTIMIZER_SPREAD)
        for precision, (kernel, what) in CASTS.items():
            if precision in self.matmul:
                result[kernel] = memory_bound.cast_coefficients(self.matmul[precision].fit, self.gpu, precision)
                sources[f"memory_bound.{kernel}"] = sources[f"matmul.{precision}"] | {"what": what}
        return result
