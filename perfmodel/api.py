"""What `import perfmodel as pm` offers: each question of the command line as a function that returns a typed result.

A run is the name of a preset or a file, a mapping such as a run file holds, or a spec.run.Run. Settings are those of `--set`:
a mapping of key paths to values, or texts such as "tensor_parallel=4".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.events.timeline import Timeline
from perfmodel.events.timeline import timeline as timeline_of
from perfmodel.evidence.steps.speed_meter import WINDOW, SpeedMeter
from perfmodel.evidence.time_scores import TimeScores, time_scoreboard
from perfmodel.exchange.presets import source_of
from perfmodel.exchange.prices import prices_of
from perfmodel.exchange.questions.diagnosed_runs import run_diagnosis
from perfmodel.exchange.questions.plan_arguments import PlanArguments, read_plan_request
from perfmodel.exchange.questions.varied_runs import run_sweep, scenario_comparison, stage_index
from perfmodel.exchange.run_files import RunSource, Settings, listed_sources, read_candidates, setting_pairs
from perfmodel.exchange.sources import run_sources
from perfmodel.explanation.explanation import Explanation, explanation
from perfmodel.explanation.measured.diagnosis import Diagnosis
from perfmodel.prediction import Prediction
from perfmodel.prediction import predict as predict_run
from perfmodel.search.hardware import HardwarePlans
from perfmodel.search.plan import Plan
from perfmodel.search.plan import plan as best_plan
from perfmodel.serving.forecast import ServingForecast
from perfmodel.serving.service_plan import ServerPlan
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import Run
from perfmodel.variation.scenarios import WhatIf
from perfmodel.variation.sweep import Sweep

if TYPE_CHECKING:
    from perfmodel.exchange.questions.compared_records import Comparison


def load(run: RunSource, settings: Settings = ()) -> Run:
    """The run with `settings` changed; where a value is a list of candidates, the first.

    >>> load("nemotron-4-15b", {"tensor_parallel": 4}).tensor_parallel
    4
    """
    return read_candidates(run, setting_pairs(settings))[0].run


def predict(run: RunSource, settings: Settings = ()) -> Prediction:
    """Iteration time, MFU, memory and days of each stage of the run.

    >>> round(float(predict("nemotron-4-15b").total_days))
    13
    """
    return predict_run(load(run, settings))


def infer(
    model: str | Mapping[str, Any] | TransformerModel,
    *,
    gpu: str,
    tensor_parallel: int | str | Sequence[int] = 1,
    engine: str = "vllm",
    precision: str | None = None,
    kv_precision: str = "bf16",
    input_tokens: int = 1000,
    output_tokens: int = 500,
    concurrency: int | str | Sequence[int | str] = "1,8,64,max",
    expert_parallel: int = 1,
    dollars_per_gpu_hour: float | None = None,
    settings: Iterable[str] = (),
) -> tuple[ServingForecast, ...]:
    """Whether a model serves on one replica of each of some numbers of GPUs, with how much context, and how fast.

    Without a `precision` weights are in that of a config.json with a quantization_config, else in bf16. `settings` are of the
    engine, as in "memory.fraction=0.95". Errors: InputError for a name that is not known.

    >>> (alone,) = infer("nemotron-4-15b", gpu="h100-sxm-80gb", input_tokens=2000)
    >>> alone.verdict, alone.longest_context > 200_000
    ('fits', True)
    """
    from perfmodel.exchange.questions.serving.asked_servers import asked_servers

    return asked_servers(
        model,
        gpu=gpu,
        tensor_parallel=tensor_parallel,
        engine=engine,
        precision=precision,
        kv_precision=kv_precision,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        concurrency=concurrency,
        expert_parallel=expert_parallel,
        dollars_per_gpu_hour=dollars_per_gpu_hour,
        settings=settings,
    )


def plan_service(
    model: str | Mapping[str, Any] | TransformerModel,
    *,
    requests_per_s: float | str,
    ttft: float | str | None = None,
    tpot: float | str | None = None,
    **arguments: Any,
) -> ServerPlan:
    """The servers that answer so many requests a second within limits of TTFT and TPOT, cheapest first, and what others lack.

    `arguments` are those of `perfmodel plan --serve`: gpu, precision, kv_precision, tensor_parallel and expert_parallel (one
    or several, as in "1,2,4"), engine, input_tokens, output_tokens, confidence, price, most_gpus, settings.

    >>> found = plan_service("llama-3.1-8b", requests_per_s=5, tpot="20ms", gpu="h100-sxm-80gb,h200-sxm-141gb")
    >>> found.best.gpus, found.best.odds > 0.9, len(found.options)
    (1, True, 8)
    """
    from perfmodel.exchange.questions.serving.asked_services import asked_service

    return asked_service(model, requests_per_s=requests_per_s, ttft=ttft, tpot=tpot, **arguments)


def validate(
    files: str | Path | Sequence[str | Path] = (),
    *,
    mixtures: bool = False,
    leave_source_out: bool = False,
    evidence: str | None = None,
) -> TimeScores:
    """Predictions beside measured iteration times: of tables, logs and folders, or of the published runs that are shipped.

    `mixtures` takes the shipped runs of mixtures of experts in place of those of dense models. With `leave_source_out` each
    source is scored with everything that was fitted on runs estimated anew without it. `evidence` is what
    `perfmodel calibrate --from-runs` wrote.

    >>> scores = validate(leave_source_out=True)  # doctest: +SKIP
    >>> scores.overall.by_source.median_abs_error < 0.1  # doctest: +SKIP
    True
    """
    from perfmodel.exchange.tables.validated_runs import compared, validated_table, with_own_runs, without_own_source

    named = [files] if isinstance(files, str | Path) else files
    table = validated_table([Path(each) for each in named], mixtures=mixtures)
    measured = table.rows if evidence is None else with_own_runs(table.rows, evidence)[0]
    comparisons = compared(measured)
    if leave_source_out:
        comparisons = without_own_source(comparisons, measured)
    return time_scoreboard(comparisons, table.unread)


def compare(run: RunSource, measured: str | Path, settings: Settings = (), *, stage: int | None = None) -> Comparison:
    """The prediction of a run beside what a file measured of it: each operator of a record, the steps of a log, or a profile.

    What the file holds is recognised by its content: a record that `perfmodel measure` wrote, a log of training software, or a
    trace of torch.profiler. `stage` is the ramp stage of a log or a profile, counted from 1; a record names its own.

    >>> compare("laptop", "record.json")  # doctest: +SKIP
    <StepComparison: laptop, 1 rank: 0.217 s predicted, 0.221 s measured>
    """
    from perfmodel.exchange.questions.compared_records import measured_comparison

    return measured_comparison(load(run, settings), Path(measured), stage=stage)


def whatif(
    run: RunSource,
    scenarios: Mapping[str, Settings],
    *,
    base: Settings = (),
    stage: int | None = None,
    same_gpus: bool = False,
    evidence: str | None = None,
) -> WhatIf:
    """The run beside itself with the settings of each scenario changed.

    `base` are settings of both sides. `stage` is the ramp stage to compare, counted from 1; the last by default. With
    `same_gpus`, data parallelism changes so that every ramp stage keeps its number of GPUs. `evidence` is what
    `perfmodel calibrate --from-runs` wrote, for all of them, whatever their clusters.

    >>> whatif("nemotron-4-15b", {"H200": {"cluster": "dgx-h200"}}).to_pandas()["scenario"].tolist()
    ['before', 'H200']
    """
    return scenario_comparison(run, scenarios, base=base, stage=stage, same_gpus=same_gpus, evidence=evidence)


def sweep(
    runs: RunSource | Sequence[RunSource],
    vary: Mapping[str, str | Iterable[Any]] = MappingProxyType({}),
    *,
    settings: Settings = (),
    stage: int | None = None,
    weak: bool = False,
    grow_gpus: bool = False,
    evidence: str | None = None,
) -> Sweep:
    """One stage of a run, or of several, at every combination of the values of one or two axes.

    Values are a sequence, or a text as in `--vary`: "1,2,4", "1..8", "96..3072x6". The axis `gpus` sets data_parallel; with
    `weak` the global batch grows with it. Where other degrees of parallelism are varied, every point keeps the GPUs of its run,
    and data parallelism adapts; with `grow_gpus` it stays, and they grow. A layout that may not exist is a point with a
    `refusal`. `evidence` is what `perfmodel calibrate --from-runs` wrote, for every point.

    >>> swept = sweep("nemotron-4-15b", {"tensor_parallel": [4, 8], "cluster": ["dgx-h100", "dgx-h200"]})
    >>> [point.labels for point in swept.points if point.fits][:2]
    [('4', 'dgx-h100'), ('4', 'dgx-h200')]
    """
    return run_sweep(
        listed_sources(runs),
        list(vary.items()),
        settings=settings,
        stage=stage,
        is_weak=weak,
        grow_gpus=grow_gpus,
        evidence=evidence,
    )


def explain(run: RunSource, settings: Settings = (), *, stage: int | None = None) -> Explanation:
    """Where the time of one stage of the run goes, from the peak to the prediction, and what would change it.

    `stage` is the ramp stage, counted from 1; the last by default. `.term(name)` has the equations and numbers of one term.

    >>> explained = explain("nemotron-4-15b")
    >>> round(explained.term("data_parallel").share, 1)
    0.3
    """
    first = read_candidates(run, setting_pairs(settings))[0]
    source = partial(source_of, sources=run_sources(run, setting_pairs(settings)))
    return explanation(first.run, place=stage_index(first.run, stage), source=source, chosen=first.values)


def diagnose(
    run: RunSource,
    measured: str | float,
    settings: Settings = (),
    *,
    stage: int | None = None,
    nccl_tests: str | Path | Sequence[str | Path] = (),
    profile: str | Path | None = None,
) -> Diagnosis:
    """Which single number or setting explains a measured speed of one stage of the run, ranked by plausibility.

    `measured` is a text as in `--measured`, "200tokens/s/gpu" or "mfu=31%", or an iteration time in seconds; `stage` is the
    ramp stage, counted from 1, the last by default. `nccl_tests` are texts that nccl-tests printed, `profile` a trace of
    torch.profiler: what they say counts for or against each cause.

    >>> found = diagnose("nemotron-4-15b", 2.0)
    >>> found.is_expected, found.causes[0].name
    (False, 'network')
    """
    texts = [nccl_tests] if isinstance(nccl_tests, str | Path) else nccl_tests
    return run_diagnosis(
        run,
        measured,
        settings=settings,
        stage=stage,
        nccl_tests=[Path(each) for each in texts],
        profile=None if profile is None else Path(profile),
    )


def timeline(
    run: RunSource,
    settings: Settings = (),
    *,
    stage: int | None = None,
    detail: str | None = None,
    micro_batches: int | None = None,
) -> Timeline:
    """One iteration of one stage of the run in time: a row for every pass, operator, message and wait of each pipeline stage.

    `stage` is the ramp stage, counted from 1; the last by default. `detail` is operators, layers or passes; `micro_batches` is
    how many at each end are drawn one by one. By default there is as much as a viewer opens quickly. It draws what the
    equations say: which operator own runs make longer, nobody knows.

    >>> drawn = timeline("nemotron-4-15b", {"pipeline_parallel": 4, "stages[*].data_parallel": 24})
    >>> len(drawn.layers), round(drawn.span_s / float(drawn.predicted.iteration_time_s), 9)
    (4, 1.0)
    """
    chosen = load(run, settings).without_own_runs
    place = stage_index(chosen, stage)
    predicted = predict_run(chosen).stages[place][1]
    return timeline_of(chosen, predicted, stage=place, detail=detail, micro_batches=micro_batches)


class MFUMeter(SpeedMeter):
    """A meter that a training loop feeds with the seconds of its steps: MFU, TFLOP/s and tokens/s a GPU, and the prediction.

    `stage` is the ramp stage, counted from 1; the last by default. `.update(seconds)` gives the speed of a step, `.recent`
    that of the median of the last `window` steps.

    >>> meter = MFUMeter("nemotron-4-15b")
    >>> speed = meter.update(0.62)
    >>> round(speed.mfu_full, 2), round(speed.tokens_per_s_per_gpu), speed.is_expected
    (0.31, 3303, True)
    """

    def __init__(self, run: RunSource, settings: Settings = (), *, stage: int | None = None, window: int = WINDOW) -> None:
        """A meter for one stage of a run."""
        chosen = load(run, settings)
        super().__init__(predict_run(chosen).stages[stage_index(chosen, stage)][1], window=window)


def plan(
    model: str | Mapping[str, Any] | TransformerModel,
    *,
    most_gpus: int = 32768,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    **arguments: Unpack[PlanArguments],
) -> Plan:
    """The best layouts of a model, and how many GPUs a deadline or a budget needs; `arguments` are described at PlanArguments.

    `on_progress` is called with the number of layouts that were looked at. Ctrl-C ends the search with the best found so far.

    >>> found = plan("llama-3.1-8b", cluster="dgx-h100", gpus=16, global_batch_size=64, choose={"recompute": "none"})
    >>> found.best.gpus, found.to_pandas()["rank"].tolist()[:3]
    (16, [1, 2, 3])
    """
    request = read_plan_request(model, **arguments)
    return best_plan(request.question, request.gpus, most_gpus=most_gpus, workers=workers, on_progress=on_progress)


def plan_hardware(
    model: str | Mapping[str, Any] | TransformerModel,
    clusters: str | Sequence[str],
    *,
    most_gpus: int = 32768,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
    **arguments: Unpack[PlanArguments],
) -> HardwarePlans:
    """The same plan on each of some clusters (a list, or names between commas), side by side; `arguments` are those of `plan`.

    `price` may be "on-demand" or "reserved": what the cloud of each lists, where that is known, or a price for each of them
    between commas. A cluster that cannot do what is asked (its GPU has no such precision, say) is listed with the reason.

    >>> found = plan_hardware("llama-3.1-8b", ["dgx-h100", "dgx-b200"], gpus=16, choose={"recompute": "none"})
    >>> found.to_pandas()["cluster"].tolist(), found.fastest
    (['dgx-h100', 'dgx-b200'], 'dgx-b200')
    """
    names = [each.strip() for each in clusters.split(",")] if isinstance(clusters, str) else list(clusters)
    if not names:
        raise InputError("no cluster is given", key="cluster")
    plans, refused = {}, {}
    for name, price in zip(names, prices_of(arguments.get("price"), names), strict=True):
        own: PlanArguments = {**arguments, "cluster": name, "price": price}
        try:
            request = read_plan_request(model, **own)
            plans[name] = best_plan(
                request.question, request.gpus, most_gpus=most_gpus, workers=workers, on_progress=on_progress
            )
        except NotSupportedError as error:
            refused[name] = str(error)
    if not plans:
        raise NotSupportedError("; ".join(f"{name}: {reason}" for name, reason in refused.items()))
    return HardwarePlans(plans=plans, refused=refused)
