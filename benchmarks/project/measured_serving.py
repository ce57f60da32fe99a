"""How far is the forecast of a server from real passes on this machine's CPU? Six models, two loads each, in 16 bits.

    python -m perfmodel.benchmarks.project.measured_serving --output docs/measured_serving

Calibrations and measurements take turns, because a machine's speed drifts; the profile is fitted on all of its calibrations
together. Everything that was measured is kept in the folder; started again, it goes on where it was. A record that says
of itself that it should be measured again is, some times. Exit code 1 over a bar.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

from perfmodel.benchmarks.measure.calibrate import calibrate, records_beside, write_fitted
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.benchmarks.measure.steps.ranks import ServedLoad, measure_served
from perfmodel.benchmarks.project.measured import MIXTURES, ROUNDS, SHAPES, is_doubtful, keep_surest
from perfmodel.errors import PerfmodelError
from perfmodel.evidence.steps.pass_comparison import InferComparison, PassComparison, compare_passes
from perfmodel.evidence.steps.pass_records import infer_record
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.exchange.output import write_text
from perfmodel.exchange.questions.serving.measured_servers import served_setup
from perfmodel.exchange.run_files import read_candidates

WINDOWS: Final = {  # a layer with a window, a layer without
    "windows-64m": SHAPES["llama-64m"]
    | {
        "layer_kinds": {"near": {"attention": "sliding", "window": 256}, "far": {"attention": "full"}},
        "layer_pattern": ["near", "far"],
    }
}
MODELS: Final[Mapping[str, dict[str, Any]]] = (
    {name: SHAPES[name] for name in ("llama-64m", "nemotron-102m")} | WINDOWS | MIXTURES
)
LOADS: Final = (
    ServedLoad(sequences=1, input_tokens=1024, output_tokens=32),
    ServedLoad(sequences=8, input_tokens=256, output_tokens=32),
)
SECONDS: Final = 6.0
MOST: Final = 0.9  # of a pass: the operators that the page lists
BARS: Final = {"median prefill": 0.12, "median decode": 0.12, "median operator of 90 %": 0.12}


def grid() -> list[tuple[str, ServedLoad]]:
    """Every model under every load, so ordered that neighbours differ in both."""
    every = list(product(MODELS, LOADS))
    return [each for start in range(3) for each in every[start::3]]


def run_file(model: str, *, cluster: str) -> dict[str, Any]:
    """A run of a model, as a run file has it."""
    return {
        "name": model,
        "model": {"name": model, "head_size": 64, **MODELS[model]},
        "cluster": cluster,
        "stack": "reference",
        "precision": "bf16",
        "sequence_length": 1024,
        "micro_batch_size": 1,
        "stages": [{"data_parallel": 1, "global_batch_size": 1}],
    }


def named(model: str, load: ServedLoad) -> str:
    """What the record of a model under a load is called."""
    return f"{model}-{load.sequences}x{load.input_tokens}"


def profiles(folder: Path) -> list[Path]:
    """Where the calibrations lie."""
    return [folder / f"calibration-{number}.yaml" for number in range(1, ROUNDS + 1)]


def measure_all(folder: Path) -> Iterator[str]:
    """Calibrate and measure what `folder` does not hold yet; says before each step what it does."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    first, *later = profiles(folder)
    if not first.is_file():
        yield f"calibration 1 of {ROUNDS}"
        calibrate(first, device="cpu")
    for model, load in grid():
        record = folder / "records" / f"{named(model, load)}.json"
        if is_doubtful(record):
            yield named(model, load)
            path = folder / "run.yaml"
            write_text(path, yaml.safe_dump(run_file(model, cluster=str(first)), sort_keys=False))
            keep_surest(record, partial(measure_served, str(path), load, device="cpu", seconds=SECONDS))
            path.unlink()
    for number, profile in enumerate(later, start=2):
        if not profile.is_file():
            yield f"calibration {number} of {ROUNDS}"
            calibrate(profile, device="cpu")


def comparisons(folder: Path) -> list[tuple[str, InferComparison]]:
    """Every record beside its forecast, on the profile of all calibrations together."""
    together = folder / "profile.yaml"
    write_fitted(together, [each for profile in profiles(folder) for each in read_records(records_beside(profile))])
    found = []
    for model, load in sorted(grid(), key=lambda entry: named(*entry)):
        path = folder / "run.yaml"
        write_text(path, yaml.safe_dump(run_file(model, cluster=str(together)), sort_keys=False))
        run = read_candidates(str(path))[0].run
        layout = run.layout(run.stages[0])
        text = (folder / "records" / f"{named(model, load)}.json").read_text(encoding="utf-8")
        compared = compare_passes(
            served_setup(run, layout), run.model, layout, infer_record(json.loads(text)), serving_evidence()
        )
        found.append((named(model, load), compared))
        path.unlink()
    return found


def scores(found: Sequence[tuple[str, InferComparison]]) -> dict[str, float]:
    """What the bars are held against."""
    passes = {name: [abs(each.passes[name].whole.error or 0.0) for _, each in found] for name in ("prefill", "decode")}
    operators = [abs(pair.error or 0.0) for _, each in found for part in each.passes.values() for pair in part.largest(MOST)]
    return {
        "median prefill": statistics.median(passes["prefill"]),
        "median decode": statistics.median(passes["decode"]),
        "median operator of 90 %": statistics.median(operators),
        "worst prefill": max(passes["prefill"]),
        "worst decode": max(passes["decode"]),
    }


def page(found: Sequence[tuple[str, InferComparison]], folder: Path) -> str:
    """The page beside `folder`: what was measured where, the scores, every run, and every operator that matters."""
    born = found[0][1].record.provenance
    total = scores(found)
    lines = [
        "# Serving, predicted and measured on a CPU",
        "",
        f"{len(found)} loads of the reference model (`model/generation`) on {born['gpu'].removeprefix('cpu: ')}, one core,",
        f"{born['software']}, {born['date']}, in bf16. The command",
        f"`python -m perfmodel.benchmarks.project.measured_serving --output {folder}`",
        "calibrated the machine, read prompts, generated tokens and wrote this page; the records and the fitted profile lie in",
        f"[{folder.name}/]({folder.name}). No coefficient was fitted on a pass.",
        "",
        "| | measured | bar |",
        "|---|---|---|",
        *(f"| {name} error | {value:.1%} | {f'{BARS[name]:.0%}' if name in BARS else ''} |" for name, value in total.items()),
        "",
        "Prefill reads all prompts of a load in one pass; decode adds a token to each, 31 times. 8x256: 8 prompts of 256.",
        "",
        "| load | prefill ms | spread | predicted | error | decode ms | spread | predicted | error | KV cache MB | error |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_row(name, each) for name, each in found),
        "",
        "## Operators",
        "",
        f"Those that make up {MOST:.0%} of a pass, in how many loads, and how far they are off there.",
        "",
        "| operator | pass | loads | median error | bias | worst |",
        "|---|---|---|---|---|---|",
        *_operator_rows(found),
        "",
        f"What passes spend in no operator (the interpreter) is {_between(found, 'prefill'):.1%} of prefill at the median,",
        f"and {_between(found, 'decode'):.1%} of decode.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, each: InferComparison) -> str:
    cache = each.memory["cache_bytes"]
    parts = " | ".join(_of_pass(part) for part in each.passes.values())
    return f"| {name} | {parts} | {cache.measured / 1e6:.2f} | {cache.error or 0.0:+.2%} |"


def _of_pass(part: PassComparison) -> str:
    whole = part.whole
    return f"{1e3 * whole.measured:.2f} | {part.record.spread:.1%} | {1e3 * whole.predicted:.2f} | {whole.error or 0.0:+.1%}"


def _between(found: Sequence[tuple[str, InferComparison]], name: str) -> float:
    return statistics.median(each.passes[name].record.between_s / each.passes[name].record.profiled_s for _, each in found)


def _operator_rows(found: Sequence[tuple[str, InferComparison]]) -> Iterator[str]:
    errors: dict[tuple[str, str], list[float]] = {}
    for _, each in found:
        for name, part in each.passes.items():
            for pair in part.largest(MOST):
                errors.setdefault((pair.name, name), []).append(pair.error or 0.0)
    for (operator, name), values in sorted(errors.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        sizes = [abs(value) for value in values]
        middle, bias, worst = statistics.median(sizes), statistics.median(values), max(sizes)
        yield f"| {operator} | {name} | {len(values)} | {middle:.1%} | {bias:+.1%} | {worst:.1%} |"


def main() -> None:
    """Measure what is missing, compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only-compare", action="store_true", help="with what the folder holds")
    chosen = parser.parse_args()
    try:
        for doing in () if chosen.only_compare else measure_all(chosen.output):
            print(doing, file=sys.stderr, flush=True)
        found = comparisons(chosen.output)
    except PerfmodelError as error:
        sys.exit(f"measured_serving: {error}")
    write_text(chosen.output.with_suffix(".md"), page(found, chosen.output))
    total = scores(found)
    for name, value in total.items():
        print(f"{name:24} {value:6.1%}" + (f"   bar {BARS[name]:.0%}" if name in BARS else ""))
    if any(total[name] > bar for name, bar in BARS.items()):
        sys.exit(1)


if __name__ == "__main__":
    main()
