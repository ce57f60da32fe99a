"""How far is the forecast from real steps on this machine's CPU? Three models, three layouts, two lengths, two precisions.

    python -m perfmodel.benchmarks.project.measured --output docs/measured
    python -m perfmodel.benchmarks.project.measured --output docs/measured_mixtures --models mixtures

Calibrations and measurements take turns, because a machine's speed drifts; the profile is fitted on all of its calibrations
together. Everything that was measured is kept in the folder; started again, it goes on where it was. A record that says
of itself that it should be measured again is, some times. Exit code 1 over a bar.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Final

import yaml

from perfmodel.benchmarks.measure.calibrate import calibrate, records_beside, write_fitted
from perfmodel.benchmarks.measure.core_distance import is_near, near_s
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.benchmarks.measure.steps.ranks import measure_run
from perfmodel.errors import PerfmodelError
from perfmodel.evidence.steps.compared import ComparedOperator
from perfmodel.evidence.steps.pass_records import InferRecord
from perfmodel.evidence.steps.step_comparison import StepComparison, compare_step
from perfmodel.evidence.steps.step_records import StepRecord, step_record
from perfmodel.exchange.output import write_bytes, write_text
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict

SHAPES: Final[dict[str, dict[str, Any]]] = {
    "nemotron-21m": {
        "layers": 4,
        "hidden_size": 512,
        "attention_heads": 8,
        "kv_heads": 4,
        "ffn_hidden_size": 2048,
        "activation": "squared_relu",
        "norm": "layernorm",
        "rotary_fraction": 0.5,
        "vocab_size": 8192,
    },
    "llama-64m": {
        "layers": 6,
        "hidden_size": 768,
        "attention_heads": 12,
        "kv_heads": 4,
        "ffn_hidden_size": 2048,
        "activation": "swiglu",
        "norm": "rmsnorm",
        "vocab_size": 16384,
    },
    "nemotron-102m": {
        "layers": 6,
        "hidden_size": 1024,
        "attention_heads": 16,
        "kv_heads": 8,
        "ffn_hidden_size": 4096,
        "activation": "squared_relu",
        "norm": "layernorm",
        "rotary_fraction": 0.5,
        "vocab_size": 16384,
    },
}
MIXTURES: Final[dict[str, dict[str, Any]]] = {
    "mixtral-62m": {  # few wide experts
        "layers": 4,
        "hidden_size": 512,
        "attention_heads": 8,
        "kv_heads": 4,
        "ffn_hidden_size": 1024,
        "activation": "swiglu",
        "norm": "rmsnorm",
        "vocab_size": 8192,
        "mixture": {"experts": 8, "experts_per_token": 2, "ffn_hidden_size": 1024},
    },
    "qwen3-moe-62m": {  # many narrow ones
        "layers": 4,
        "hidden_size": 512,
        "attention_heads": 8,
        "kv_heads": 4,
        "ffn_hidden_size": 1024,
        "activation": "swiglu",
        "norm": "rmsnorm",
        "qk_norm": "head",
        "vocab_size": 8192,
        "mixture": {"experts": 32, "experts_per_token": 4, "ffn_hidden_size": 256},
    },
    "deepseek-35m": {  # latent attention, a dense first layer, shared experts
        "layers": 4,
        "hidden_size": 512,
        "attention_heads": 8,
        "kv_heads": 8,
        "head_size": 96,
        "ffn_hidden_size": 2048,
        "activation": "swiglu",
        "norm": "rmsnorm",
        "vocab_size": 8192,
        "layer_kinds": {"dense": {"attention": "latent"}, "sparse": {"attention": "latent", "feed_forward": "experts"}},
        "first_layers": ["dense"],
        "layer_pattern": ["sparse"],
        "latent": {
            "query_rank": 192,
            "kv_rank": 128,
            "nope_head_size": 64,
            "rotary_head_size": 32,
            "value_head_size": 64,
        },
        "mixture": {
            "experts": 16,
            "experts_per_token": 4,
            "ffn_hidden_size": 256,
            "shared_experts": 1,
            "shared_ffn_hidden_size": 256,
            "groups": 4,
            "groups_per_token": 2,
        },
    },
}
LAYOUTS: Final = {"one": (1, 1, 1), "TP2": (2, 1, 1), "DP2": (1, 2, 1), "EP2": (1, 2, 2)}  # tensor, data, expert parallel
MODELS: Final = {"dense": (SHAPES, ("one", "TP2", "DP2")), "mixtures": (MIXTURES, ("one", "EP2"))}
DEFAULT: Final = "dense"
LENGTHS: Final = (512, 1024)
PRECISIONS: Final = ("bf16", "fp32")
OF_TWO_RANKS: Final = ((1024, "bf16"), (512, "fp32"))  # they take turns over lengths and precisions; one rank has all four
ROUNDS: Final = 2  # of calibration, before and after the measurements
TRIES: Final = 3  # of a run whose record says that it should be measured again
SECONDS: Final = 6.0
BARS: Final = {"median step": 0.10, "worst step": 0.25, "worst peak memory": 0.10, "worst operator of 90 %": 0.25}


def run_file(shape: str, layout: str, length: int, precision: str, *, cluster: str) -> dict[str, Any]:
    """One run of the grid, as a run file has it."""
    tensor, data, expert = LAYOUTS[layout]
    name = f"{shape}-{layout.lower()}-{length}-{precision}"
    return {
        "name": name,
        "model": {"name": shape, "head_size": 64, **(SHAPES | MIXTURES)[shape]},
        "cluster": cluster,
        "stack": "reference",
        "precision": precision,
        "tensor_parallel": tensor,
        "expert_parallel": expert,
        "sequence_length": length,
        "micro_batch_size": 1,
        "recompute": "none",
        "stages": [{"data_parallel": data, "global_batch_size": data}],
    }


def grid(models: str, cluster: str) -> list[dict[str, Any]]:
    """Every run of some MODELS, so ordered that neighbours differ in everything."""
    shapes, layouts = MODELS[models]
    every = [
        run_file(shape, layout, length, precision, cluster=cluster)
        for shape, layout, length, precision in product(shapes, layouts, LENGTHS, PRECISIONS)
        if layout == "one" or (length, precision) in OF_TWO_RANKS
    ]
    return [each for start in range(5) for each in every[start::5]]


def measure_all(folder: Path, models: str) -> Iterator[str]:
    """Calibrate and measure what `folder` does not hold yet; says before each step what it does."""
    (folder / "records").mkdir(parents=True, exist_ok=True)
    profiles = [folder / f"calibration-{number}.yaml" for number in range(1, ROUNDS + 1)]
    runs = grid(models, str(profiles[0]))
    share = -(-len(runs) // (ROUNDS - 1))
    for number, profile in enumerate(profiles):
        if not profile.is_file():
            yield f"calibration {number + 1} of {ROUNDS}"
            calibrate(profile, device="cpu")
        usual_s = near_s(each.provenance for each in read_records(records_beside(profile)))
        for run in runs[number * share : (number + 1) * share]:
            record = folder / "records" / f"{run['name']}.json"
            if is_doubtful(record, usual_s):
                yield run["name"]
                path = folder / "run.yaml"
                write_text(path, yaml.safe_dump(run, sort_keys=False))
                keep_surest(record, partial(measure_run, str(path), device="cpu", seconds=SECONDS), usual_s)
                path.unlink()


def is_doubtful(record: Path, usual_s: float = math.inf) -> bool:
    """Whether a record is missing or should be measured again, for what it says of itself."""
    return not record.is_file() or has_doubts(json.loads(record.read_text(encoding="utf-8")), usual_s)


def has_doubts(record: Mapping[str, Any], usual_s: float) -> bool:
    """Whether it warns of itself, or its cores were farther apart than those of a calibration usually were [s]."""
    return bool(record["warnings"]) or not is_near(record["provenance"], usual_s)


def keep_surest(record: Path, measure: Callable[[], StepRecord | InferRecord], usual_s: float = math.inf) -> None:
    """Measure until no record has a doubt, some times at most; of these and the one in the file the least spread is kept."""
    found = [json.loads(record.read_text(encoding="utf-8"))] if record.is_file() else []
    for _ in range(TRIES):
        found.append(measure().document())
        if not has_doubts(found[-1], usual_s):
            break
    surest = min(found, key=lambda each: (has_doubts(each, usual_s), spread_of(each)))
    write_text(record, json.dumps(surest, indent=1) + "\n")


def spread_of(record: Mapping[str, Any]) -> float:
    """The spread of the steps of a record, or of its passes' the widest."""
    return float(record["spread"] if "spread" in record else max(record[name]["spread"] for name in ("prefill", "decode")))


def comparisons(folder: Path, models: str) -> list[StepComparison]:
    """Every record beside its prediction, on the profile of all calibrations together."""
    profiles = [folder / f"calibration-{number}.yaml" for number in range(1, ROUNDS + 1)]
    every = [each for profile in profiles for each in read_records(records_beside(profile))]
    together = folder / "profile.yaml"
    write_fitted(together, every)
    found = []
    for run in sorted(grid(models, str(together)), key=lambda each: each["name"]):
        path = folder / "run.yaml"
        write_text(path, yaml.safe_dump(run, sort_keys=False))
        prediction = predict(read_candidates(str(path))[0].run)
        record = (folder / "records" / f"{run['name']}.json").read_text(encoding="utf-8")
        found.append(compare_step(prediction, step_record(json.loads(record))))
        path.unlink()
    return found


def scores(found: Sequence[StepComparison]) -> dict[str, float]:
    """What the bars are held against."""
    steps = [abs(each.step.error or 0.0) for each in found]
    return {
        "median step": statistics.median(steps),
        "worst step": max(steps),
        "worst peak memory": max(abs(each.memory["peak_bytes"].error or 0.0) for each in found),
        "worst operator of 90 %": max(abs(pair.error or 0.0) for each in found for pair in each.largest(0.9)),
    }


def page(found: Sequence[StepComparison], models: str, folder: Path) -> str:
    """The page beside `folder`: what was measured where, the scores, every run, and every operator that matters."""
    first = found[0].record
    total = scores(found)
    lines = [
        "# Predicted and measured on a CPU",
        "",
        f"{len(found)} runs of the reference model (`model/`) on {first.provenance['gpu'].removeprefix('cpu: ')}, a core for",
        f"each rank, {first.provenance['software']}, {first.provenance['date']}. The command",
        f"`python -m perfmodel.benchmarks.project.measured --output {folder}{_chosen(models)}`",
        "calibrated the machine, ran real training steps and wrote this page; the records and the fitted profile lie in",
        f"`{folder.name}/`. No coefficient was fitted on a step.",
        "",
        "| | measured | bar |",
        "|---|---|---|",
        *(f"| {name} error | {total[name]:.1%} | {bar:.0%} |" for name, bar in bars(models).items()),
        "",
        "| run | measured s | spread | predicted s | error | in 90 % | peak MB | predicted | operators | worst of them |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_row(each) for each in found),
        "",
        "## Operators",
        "",
        "Those that stand among the operators that make up 90 % of a step, in how many runs, and how far they are off there.",
        within_sentence([pair for each in found for pair in each.largest(0.9)]),
        "",
        "| operator | phase | runs | median error | bias | worst |",
        "|---|---|---|---|---|---|",
        *_operator_rows(found),
        "",
        f"What the steps spend in no operator (the interpreter, autograd) is {_between(found):.1%} of them at the median.",
        "",
        f"![Errors of predicted steps]({folder.name}/steps.png)",
    ]
    return "\n".join(lines) + "\n"


def _chosen(models: str) -> str:
    """What the command says of the models, where they are not those that it takes by itself."""
    return "" if models == DEFAULT else f" --models {models}"


def bars(models: str) -> dict[str, float]:
    """What the errors of some models may be at most: a mixture has operators that no calibration measures."""
    return BARS | ({"median step": 0.12} if models == "mixtures" else {})


def within_sentence(pairs: Sequence[ComparedOperator]) -> str:
    """How many operators are within the bar, of which kind the others are, and how many of these their measurement allows."""
    bar = BARS["worst operator of 90 %"]
    over = [pair for pair in pairs if abs(pair.error or 0.0) > bar]
    found = f"Of {len(pairs)} such operators in all runs {len(pairs) - len(over)} are within {bar:.0%}; the others are"
    if not over:
        return f"{found} none."
    kinds = Counter(pair.kind.replace("_", "-") for pair in over).most_common()
    allowed = sum(bool(pair.is_within) for pair in over)
    return (
        f"{found} {', '.join(f'{number} {kind}' for kind, number in kinds)},\n"
        f"{allowed} of them inside the 90 % interval of their measurement."
    )


def _row(each: StepComparison) -> str:
    step, peak, record = each.step, each.memory["peak_bytes"], each.record
    low, high = (float(end) for end in each.predicted.iteration_time_interval_s)
    top = each.largest(0.9)
    worst = max(top, key=lambda pair: abs(pair.error or 0.0))
    inside = "yes" if low <= step.measured <= high else "no"
    return (
        f"| {record.name} | {step.measured:.3f} | {record.spread:.1%} | {step.predicted:.3f} | {step.error or 0.0:+.1%} | "
        f"{inside} | {peak.measured / 1e6:.1f} | {peak.error or 0.0:+.2%} | {len(top)} | "
        f"{worst.name} {worst.phase} {worst.error or 0.0:+.0%} |"
    )


def _between(found: Sequence[StepComparison]) -> float:
    return statistics.median(each.record.between_s / each.record.profiled_iteration_time_s for each in found)


def _operator_rows(found: Sequence[StepComparison]) -> Iterator[str]:
    errors: dict[tuple[str, str], list[float]] = {}
    for each in found:
        for pair in each.largest(0.9):
            errors.setdefault((pair.name, pair.phase), []).append(pair.error or 0.0)
    for (name, phase), values in sorted(errors.items(), key=lambda entry: -len(entry[1])):
        sizes = [abs(value) for value in values]
        yield (
            f"| {name} | {phase} | {len(values)} | {statistics.median(sizes):.1%} | {statistics.median(values):+.1%} | "
            f"{max(sizes):.1%} |"
        )


def main() -> None:
    """Measure what is missing, compare, and write page and picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--models", choices=MODELS, default=DEFAULT, help="which of them run")
    parser.add_argument("--only-compare", action="store_true", help="with what the folder holds")
    chosen = parser.parse_args()
    from perfmodel.report.figures.measured.accuracy import picture, steps_figure

    try:
        for doing in () if chosen.only_compare else measure_all(chosen.output, chosen.models):
            print(doing, file=sys.stderr, flush=True)
        found = comparisons(chosen.output, chosen.models)
    except PerfmodelError as error:
        sys.exit(f"measured: {error}")
    write_text(chosen.output.with_suffix(".md"), page(found, chosen.models, chosen.output))
    write_bytes(chosen.output / "steps.png", picture(steps_figure(found), "png"))
    most = bars(chosen.models)
    over = [f"{name} {value:.1%}" for name, value in scores(found).items() if value > most[name]]
    for name, value in scores(found).items():
        print(f"{name:24} {value:6.1%}   bar {most[name]:.0%}")
    if over:
        sys.exit(1)


if __name__ == "__main__":
    main()
