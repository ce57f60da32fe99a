"""How a fitted law of an engine's kernel stands in a file of perfmodel/data/serving, and beside what stands there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from perfmodel.benchmarks.fit.regression import Fit, rounded
from perfmodel.benchmarks.fit.served.experts import FREE, MOST_TOKENS
from perfmodel.benchmarks.fit.served.products import MOST_ROWS as MOST_PRODUCT_ROWS
from perfmodel.benchmarks.fit.served.products import any_engines
from perfmodel.benchmarks.fit.served.sparse import BLOCK_HEADS, FREE_CHOICE, LEAST_ROWS, MOST_CONTEXT, MOST_ROWS
from perfmodel.benchmarks.fit.served.state_steps import MOST_SEQUENCES
from perfmodel.benchmarks.fit.served.tables import BALANCED, ENGINES, SIXTEEN_BITS, STEPS, ExpertTable, ProductTable
from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.serving.profile import INDEX_LAW, OF_FAMILY, ServingProfile
from perfmodel.spec.serving.setup import ServingSetup

PACKAGE: Final = "aiconfigurator-core 0.12.0, Apache-2.0"
SPARSE_TABLES: Final = f"{PACKAGE}, sparse_attention tables of this GPU"
BLOCKS: Final = (
    "attention modules of 64 heads take as long as of 8, 128 twice as long "
    "(SGLang 0.5.14; aiconfigurator-core 0.12.0, Apache-2.0, sparse_attention tables)"
)
SHORTEST_IN_US: Final = 1e-8
SHORTEST_S: Final = 1e-13  # what is left of a time that rows do not ask for
LEAST_SPREAD: Final = 0.05
BETWEEN: Final = "between versions of one engine"
APART: Final = "routing and moving tokens charged apart"
OF_FIT: Final = "median error of the fit"
STEP_SPREADS: Final = {"fixed_s": ("20%", "prior, between engines"), "efficiency": ("10%", OF_FIT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLaw:
    """One law as a file has it: the section and the name it stands under, its lines, and its numbers."""

    section: str
    name: str
    lines: tuple[str, ...]
    found: Mapping[str, float]
    fit: Fit


def expert_law(table: ExpertTable, law: str, fit: Fit) -> ServedLaw:
    """The law of fused experts, which stands under the family of its engine."""
    release = f"{ENGINES[table.engine]} {table.version}"
    also = f"; {table.also}" if table.also else ""
    load = "balanced tokens" if table.routing == BALANCED else f"tokens ({table.routing}; none are balanced)"
    what = f"fused experts of 1 to {MOST_TOKENS:,} {load}, {release}"
    where = f"{PACKAGE}, moe tables of this GPU)"
    long = f"fit on {len(fit.measured_s):,} {what} ({table.kernel}, {table.number}; {where}, {APART}"
    short = f"fit on {what}, {table.number} ({where}"
    error = fit.held_out_error()["median"]
    spreads = {
        "computing": ("25%", BETWEEN),
        "fixed_s": ("25%", BETWEEN),
        "efficiency": (f"{max(error, LEAST_SPREAD):.0%}", OF_FIT),
    }
    bounds = f"; at an end of what makes sense: {', '.join(fit.at_bounds)}" if fit.at_bounds else ""
    sources = dict.fromkeys(FREE, short) | {"computing": f"{long}{also}; {_errors(fit)}{bounds}"}
    lines = ["    evidence: {basis: measured, sizes: {rows: [1, 2048]}}"]
    lines += [_line(name, fit.found[name], sources[name], spreads.get(name)) for name in ("computing", *_others("computing"))]
    return ServedLaw(section="expert_products", name=table.law(law), lines=tuple(lines), found=fit.found, fit=fit)


def _others(first: str) -> list[str]:
    return [name for name in FREE if name != first]


def step_law(step: str, fit: Fit) -> ServedLaw:
    """The law of one step of a mixer that keeps a state."""
    where = f"{PACKAGE}, linear_attention tables of this GPU)"
    what = f"fit on {len(fit.measured_s):,} steps of 1 to {MOST_SEQUENCES} sequences, SGLang 0.5.14 ({STEPS[step]}; {where}"
    sources = {"fixed_s": f"{what}; {_errors(fit)}", "efficiency": what}
    lines = tuple(_line(name, fit.found[name], sources[name], STEP_SPREADS[name]) for name in sources)
    return ServedLaw(section="small_kernels", name=step, lines=lines, found=fit.found, fit=fit)


def product_law(table: ProductTable, setup: ServingSetup, fit: Fit) -> ServedLaw:
    """The law of products with few rows, which stands under the family of its engine; with many as in any engine."""
    law, computing = setup.weights.law, float(np.asarray(any_engines(setup).computing))
    what = (
        f"fit on {len(fit.measured_s):,} products of 1 to {MOST_PRODUCT_ROWS} rows of {ENGINES[table.family]} {table.version}"
    )
    what += f", {table.number} ({PACKAGE}, gemm tables of this GPU)"
    error = f"{max(fit.held_out_error()['median'], LEAST_SPREAD):.0%}"
    spreads = {"fixed_s": ("15%", BETWEEN), "efficiency": (error, OF_FIT)}
    sources = dict.fromkeys(fit.found, what) | {"fixed_s": f"{what}; {_errors(fit)}"}
    lines = [_evidence(f"{{rows: [1, {MOST_PRODUCT_ROWS}]}}")]
    if computing != 1.0:
        lines.append(
            _line("computing", computing, f"that of {law} in any engine", ("15%", "between the libraries of the tables"))
        )
    lines += [_line(name, value, sources[name], spreads.get(name)) for name, value in fit.found.items()]
    return ServedLaw(
        section="small_products", name=f"{table.family}{OF_FAMILY}{law}", lines=tuple(lines), found=fit.found, fit=fit
    )


def choice_law(fit: Fit) -> ServedLaw:
    """The law of an indexer's scores and choices."""
    what = f"fit on {len(fit.measured_s)} scores and choices of GLM-5, SGLang 0.5.14 (deep_gemm.fp8_mqa_logits"
    what += f", fast_topk_transform_fused; {SPARSE_TABLES})"
    spreads = dict.fromkeys(FREE_CHOICE, ("25%", OF_FIT)) | {"choose_s": ("50%", "how alike the scores are")}
    sizes = f"{{keys: [{LEAST_ROWS // 2}, {MOST_ROWS // 2 + MOST_CONTEXT}]}}"
    return _sparse_law("key_choice", INDEX_LAW, fit, what, spreads, _evidence(sizes))


def index_law(fit: Fit) -> ServedLaw:
    """The law of what an indexer runs between its products and its scores."""
    modules = "attention modules of GLM-5 with an indexer, less modules of GLM-5.2 that take over a choice"
    what = f"fit on {len(fit.measured_s)} {modules}, SGLang 0.5.14"
    spreads = {"fixed_s": ("20%", "prior, between engines"), "efficiency": ("25%", OF_FIT)}
    return _sparse_law("small_kernels", "index", fit, f"{what} ({SPARSE_TABLES}), products, scores and choice apart", spreads)


def sparse_law(law: str, fit: Fit) -> ServedLaw:
    """The law of attention of prompts over chosen keys of a cache in one format."""
    how = "timed alone" if law == SIXTEEN_BITS else "by what a whole module takes more or less than with a 16-bit cache"
    what = f"fit on {len(fit.measured_s)} lengths, flash_mla_sparse_fwd of SGLang 0.5.14, {how} ({SPARSE_TABLES})"
    block = f'    block_heads: {{value: {BLOCK_HEADS}, source: "{BLOCKS}"}}'
    sizes = f"{{rows: [{LEAST_ROWS}, {MOST_ROWS}]}}"
    return _sparse_law(
        "sparse_attention", law, fit, what, {"key_s": ("15%", "between kernels of one GPU")}, _evidence(sizes), block
    )


def _evidence(sizes: str) -> str:
    return f"    evidence: {{basis: measured, sizes: {sizes}}}"


def _sparse_law(
    section: str, name: str, fit: Fit, what: str, spreads: Mapping[str, tuple[str, str]], *before: str
) -> ServedLaw:
    """With lines `before` those of what was fitted."""
    first, *others = fit.found
    sources = dict.fromkeys((first, *others), what) | {first: f"{what}; {_errors(fit)}"}
    lines = tuple(_line(each, value, sources[each], spreads[each]) for each, value in fit.found.items())
    return ServedLaw(section=section, name=name, lines=(*before, *lines), found=fit.found, fit=fit)


def _errors(fit: Fit) -> str:
    error = fit.held_out_error()
    return f"{100 * error['median']:.3g}/{100 * error['p90']:.3g} % off shapes that were left out"


def _line(name: str, value: float, source: str, spread: tuple[str, str] | None) -> str:
    number = _duration(value) if name.endswith("_s") else _plain(name, value)
    width = f'spread: {{value: {spread[0]}, source: "{spread[1]}"}}, ' if spread else ""
    return f'    {name}: {{value: {number}, {width}source: "{source}"}}'


def _duration(value: float) -> str:
    if value < SHORTEST_S:
        return "0us"
    return f"{rounded(value * 1e6, 3):g}us" if value >= SHORTEST_IN_US else f"{rounded(value, 3):g}"


def _plain(name: str, value: float) -> str:
    return f"{value:.0f}" if name == "inner_half" else str(rounded(value, 3))


def replaced(text: str, law: ServedLaw) -> str:
    """A file with the lines of this law in place of those under its name. Errors: InputError where it has none."""
    head = f"  {law.name}:\n"
    before = rf"^{law.section}:\n(?:  .*\n)*?{re.escape(head)}"
    new = "".join(f"{line}\n" for line in law.lines)
    changed, number = re.subn(rf"({before})(?:    .*\n?)+", lambda found: found[1] + new, text, flags=re.MULTILINE)
    if number != 1:
        raise InputError(f"the file has no {law.name} under {law.section}")
    return changed


def shown(law: ServedLaw, profile: ServingProfile) -> str:
    """What is found, what is shipped, and how wrong the law is of shapes that were left out."""
    pairs = (f"{name} {value:.3g} ({_shipped(law, profile, name)})" for name, value in law.found.items())
    return f"{law.name:22} {len(law.fit.measured_s):5} rows  {', '.join(pairs)}  {_errors(law.fit)}"


def _shipped(law: ServedLaw, profile: ServingProfile, name: str) -> str:
    has = getattr(getattr(profile, law.section).get(law.name), name, None)
    return "none" if has is None else f"{float(np.asarray(has)):.3g}"
