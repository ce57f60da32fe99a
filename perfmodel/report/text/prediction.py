"""How predictions look on a terminal: the verdict first, then tables that fit 80 columns; plain text when piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.memory.fit import DOES_NOT_FIT, FITS, TIGHT, fit_verdict
from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.json.prediction import envelope
from perfmodel.report.text.experts import experts_section
from perfmodel.report.text.measured.own_runs import own_runs_line
from perfmodel.report.text.terminal import bar_text, percent_text, plain_table, section, titled, value_text
from perfmodel.report.words import DEGREES, LABELS, SETTINGS
from perfmodel.spec.axes import DATA
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.uncertainty import Estimate
from perfmodel.units import (
    GIBIBYTE,
    HOURS_PER_DAY,
    SECONDS_PER_DAY,
    gibibytes_text,
    gpus_text,
    large_text,
    seconds_interval_text,
    seconds_text,
)

MOST_COLUMNS: Final = 6  # stages side by side in 80 columns
STAGE_HEADINGS: Final = (DATA.short, "GPUs", "batch", "iteration s", "90 % interval", "MFU %", "tokens/s/GPU", "days")
PUBLISHED_HEADINGS: Final = ("iteration s", "MFU %", "days")
MOST_BESIDE_BARS: Final = 3  # of them leave room for bars
UNITS: Final = (("days", 1.0), ("hours", 1.0 / HOURS_PER_DAY), ("minutes", 60.0 / SECONDS_PER_DAY))  # of a run, in days
TERA: Final = 1e12
CONVENTION_WORDS: Final = {"full": "attention counted in full", "causal": "causal half of attention counted"}
FIT_WORDS: Final = {FITS: "yes", TIGHT: "tight", DOES_NOT_FIT: "no"}  # in a column of a table


def prediction_report(
    prediction: Prediction,
    *,
    assumptions: Sequence[str],
    candidates: Sequence[tuple[Mapping[str, Any], Prediction]] = (),
    consequences: Sequence[str] = (),
    remedies: Sequence[str] = (),
    convention: str = "full",
) -> Group:
    """Verdict, stages, candidates and economics where there are some, breakdown, memory and assumptions of one run.

    `consequences` are what settings changed beside what was asked: they stand under the verdict, as do `remedies`, the options
    with which it would fit. `convention` is how MFU counts attention.
    """
    own = own_runs_line(prediction.stages[-1][1])
    parts: list[RenderableType] = [verdict(prediction, convention=convention), *([] if own is None else [own])]
    parts += [] if prediction.may_fit else [Text(remedy_sentence(remedies))]
    parts += [Text(f"Note: {sentence}.", style="yellow") for sentence in consequences]
    parts += [description(prediction.run), _stage_table(prediction, convention)]
    if any(stage.published for stage, _ in prediction.stages):
        parts.append(_published_table(prediction))
    if len(candidates) > 1:
        parts.append(candidate_table(candidates))
    parts += [breakdown_table(prediction), memory_table(prediction), *experts_section(prediction)]
    parts += _economics(prediction)
    told = [("-", sentence) for sentence in assumptions if sentence not in consequences]
    return Group(*parts, *([section("Assumptions", told)] if told else []))


def remedy_sentence(remedies: Sequence[str]) -> str:
    """What would make a run fit.

    >>> remedy_sentence(["--set recompute=full", "--gpus 32"])
    'It fits with --set recompute=full, or with --gpus 32.'
    """
    if not remedies:
        return "No single change that was tried makes it fit; perfmodel plan searches all layouts."
    return f"It fits {', or '.join(f'with {each}' for each in remedies)}."


def _economics(prediction: Prediction) -> list[RenderableType]:
    """The outlook under the terms of the run, where it has some; runs without do not wait for its modules."""
    if prediction.run.economics is None:
        return []
    from perfmodel.economics.outlook import outlook
    from perfmodel.report.text.plans.economics import economics_section

    return [economics_section(outlook(prediction, prediction.run.economics))]


def verdict(prediction: Prediction, *, convention: str = "full") -> Text:
    """Whether the run fits, how fast its last stage is, and what the whole takes: three sentences, a line each."""
    run, last = prediction.run, prediction.stages[-1][1]
    if run.fine_tuning is not None:
        from perfmodel.report.text.fine_tuning import tuning_verdict

        return tuning_verdict(prediction)
    need = need_text(most_memory_bytes(prediction), run.cluster)
    fits = fit_sentence(need, prediction.fit_probability, name=run.name)
    return Text.assemble(fits, f"\n{_speed_text(prediction, convention)}.\n{_whole_text(prediction, last)}.")


def _speed_text(prediction: Prediction, convention: str) -> str:
    """Time with its interval, MFU with its convention, and what a GPU does in a second, of the last stage."""
    last = prediction.stages[-1][1]
    low, high = (float(end) for end in last.iteration_time_interval_s)
    seconds = seconds_text(float(last.iteration_time_s))
    which = f"Stage {len(prediction.stages)} of {len(prediction.stages)}: " if len(prediction.stages) > 1 else ""
    rate = f"{float(last.flop_per_s_per_gpu(convention)) / TERA:,.0f} TFLOP/s/GPU"
    mfu = f"MFU {100 * float(last.mfu_in(convention)):.1f} % ({CONVENTION_WORDS[convention]})"
    time = f"{seconds} an iteration (90 %: {seconds_interval_text(low, high, around_s=float(last.iteration_time_s))})"
    return f"{which}{time}, {mfu}, {rate}, {float(last.tokens_per_s_per_gpu):,.0f} tokens/s/GPU"


def _whole_text(prediction: Prediction, last: StagePrediction) -> str:
    """Days with their interval, beside what was published of them; GPUs and parameters."""
    days, model = prediction.total_training_days, prediction.run.model
    published = [stage.published.days for stage, _ in prediction.stages if stage.published.days is not None]
    words = [] if days is None else [_length_text(days)]
    if days is not None and len(published) == len(prediction.stages):
        words.append(f"{sum(published):.1f} published ({percent_text(float(days.median) / sum(published) - 1)})")
    size = size_text(model) or f"{large_text(float(parameter_count(model).total))} parameters"
    whole = ", ".join([*words, gpus_text(int(last.layout.gpus)), size])
    return f"{whole[0].upper()}{whole[1:]}"


def _length_text(days: Estimate) -> str:
    """How long a run takes, in the largest unit of which it is one.

    >>> _length_text(Estimate(median=12.34, low=11.0, high=14.0)), _length_text(Estimate(median=0.1, low=0.05, high=0.2))
    ('12.3 days predicted (90 %: 11.0 to 14.0)', '2.4 hours predicted (90 %: 1.2 to 4.8)')
    """
    name, unit = next((each for each in UNITS if float(days.median) >= each[1]), UNITS[-1])
    median, low, high = (float(each) / unit for each in (days.median, days.low, days.high))
    return f"{median:,.1f} {name} predicted (90 %: {_fixed(low, 1)} to {_fixed(high, 1)})"


def _days_ends(days: Estimate) -> str:
    return f"{_fixed(float(days.low), 1)}-{_fixed(float(days.high), 1)}"


def fit_sentence(need: str, probability: float, *, name: str = "") -> Text:
    """Whether it fits in memory, with the odds where that is tight."""
    verdict, joint = fit_verdict(probability), ", " if name else ": "
    if verdict == TIGHT:
        words, style = f"tight in memory{joint}{need}, {odds_text(probability)}.", "yellow"
    elif verdict == DOES_NOT_FIT:
        words, style = f"does not fit in memory{joint}needs {need}.", "bold red"
    else:
        words, style = f"fits in memory{joint}{need}.", "green"
    return Text(f"{name}: {words}" if name else f"{words[0].upper()}{words[1:]}", style=style)


def odds_text(probability: float) -> str:
    """The odds that something fits, for people.

    >>> odds_text(0.868)
    'odds of 87 % that it fits'
    """
    return f"odds of {100 * probability:.0f} % that it fits"


def need_text(used_bytes: float, cluster: Cluster) -> str:
    """14.4 GiB of the GPU's 79.1 GiB."""
    return f"{gibibytes_text(used_bytes)} of the GPU's {gibibytes_text(float(cluster.gpu.memory_bytes))}"


def most_memory_bytes(prediction: Prediction) -> float:
    """Memory of the ramp stage that needs most [bytes]."""
    return max(float(predicted.memory.total_bytes) for _, predicted in prediction.stages)


def description(run: Run) -> Text:
    """What runs on what, and how."""
    words = [run.cluster.name, run.stack.name, *layout_words(run.layout(run.stages[0]), DEGREES)]
    if run.fine_tuning is not None:
        from perfmodel.report.text.fine_tuning import tuning_words

        words = [run.model.name, *tuning_words(run.fine_tuning), *words]
    return Text(", ".join(words), style="dim")


def size_text(model: TransformerModel) -> str:
    """Parameters of a mixture of experts, and those that a token passes; nothing of other models, where both are one.

    >>> from perfmodel.exchange.presets import model_preset
    >>> size_text(model_preset("mixtral-8x7b"))
    '46.70B parameters (12.88B active)'
    """
    if model.mixture is None:
        return ""
    every, active = float(parameter_count(model).total), float(active_parameter_count(model))
    return f"{large_text(every)} parameters ({large_text(active)} active)"


def layout_words(layout: Layout, degrees: Mapping[str, str]) -> list[str]:
    """A layout without what is 1 or off, its degrees by these names: bf16, tensor parallel 8, micro-batch 1, zero1."""
    named = {name: int(getattr(layout, degree)) for degree, name in degrees.items()}
    words = [layout.precision, *(f"{name} {ranks}" for name, ranks in named.items() if ranks > 1)]
    words += [layout.pipeline_schedule] if layout.pipeline_schedule != "1f1b" else []
    words += [f"{SETTINGS['micro_batch_size'].label} {int(layout.micro_batch_size)}"]
    words += [layout.sharding] if layout.sharding != "none" else []
    words += [SETTINGS["sequence_parallel"].label] if layout.sequence_parallel and layout.tensor_parallel > 1 else []
    if layout.recompute != "none":
        number = layout.recompute_layers
        layers = "" if number is None else f" of {int(number)} layer{'' if number == 1 else 's'} a stage"
        modules = f" of {', '.join(layout.recompute_modules)}" if layout.recompute_modules else ""
        words.append(f"{layout.recompute} recompute{layers}{modules}")
    return words


def _stage_table(prediction: Prediction, convention: str) -> RenderableType:
    table = plain_table()
    rows = [stage_cells(stage, predicted, convention) for stage, predicted in prediction.stages]
    shown = [place for place in range(len(STAGE_HEADINGS)) if any(row[place] for row in rows)]  # without tokens no days
    for place in shown:
        table.add_column(STAGE_HEADINGS[place], justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[place] for place in shown))
    return titled(f"Stages{mfu_peak_words(prediction)}", table)


def mfu_peak_words(prediction: Prediction) -> str:
    """Which peak rate the MFU of a low-precision recipe is of; nothing of others, whose GPU has but one that could be meant."""
    _, predicted = prediction.stages[-1]
    recipe = predicted.layout.recipe
    return f" (MFU of {float(predicted.peak_flop_per_s) / 1e12:,.0f} TFLOP/s, dense {recipe.products})" if recipe.casts else ""


def stage_cells(stage: RampStage, predicted: StagePrediction, convention: str = "full") -> tuple[str, ...]:
    """One stage under STAGE_HEADINGS; days where its tokens are stated."""
    layout = predicted.layout
    low, high = (float(end) for end in predicted.iteration_time_interval_s)
    return (
        *(f"{layout.data_parallel:,}", f"{layout.gpus:,}", f"{layout.global_batch_size:,}"),
        *(_fixed(float(predicted.iteration_time_s), 3), f"{_fixed(low, 2)}-{_fixed(high, 2)}"),
        *(f"{100 * float(predicted.mfu_in(convention)):.1f}", f"{float(predicted.tokens_per_s_per_gpu):,.0f}"),
        "" if stage.tokens is None else _fixed(float(predicted.days(stage.tokens)), 2),
    )


def days_cell(stage: RampStage, predicted: StagePrediction) -> str:
    """The 90 % interval of the days of one stage; empty where its tokens are not stated."""
    return "" if stage.tokens is None else _days_ends(predicted.training_days(stage.tokens))


def _fixed(value: float, decimals: int) -> str:
    """So many decimals; three digits where no column has room for all before the point.

    >>> _fixed(0.62119, 3), _fixed(311409452.0, 2)
    ('0.621', '3.11e+08')
    """
    return f"{value:,.{decimals}f}" if value < 1e5 else f"{value:.3g}"


def stage_labels(prediction: Prediction) -> list[str]:
    """What the stages of a ramp are told apart by: data parallelism, else the batch, else their number."""
    stages = [stage for stage, _ in prediction.stages]
    several = (
        [f"{DATA.short} {stage.data_parallel:,}" for stage in stages],
        [f"batch {stage.global_batch_size:,}" for stage in stages],
    )
    numbered = [f"stage {number}" for number in range(1, len(stages) + 1)]
    return next((labels for labels in several if len(set(labels)) == len(labels)), numbered)


def _published_table(prediction: Prediction) -> RenderableType:
    """Each figure predicted, then published, then how far the prediction is from what was published."""
    table = plain_table()
    for heading in (DATA.short, *(cell for figure in PUBLISHED_HEADINGS for cell in (figure, "published"))):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage, predicted in prediction.stages:
        figures = published_cells(stage, predicted)
        beside = ((own, f"{published} ({change})" if published else "") for own, published, change in figures)
        table.add_row(f"{predicted.layout.data_parallel:,}", *(cell for pair in beside for cell in pair))
    return titled("Predicted beside published (in brackets: the difference, of the MFU in points)", table)


def published_cells(stage: RampStage, predicted: StagePrediction) -> tuple[tuple[str, str, str], ...]:
    """For each of PUBLISHED_HEADINGS: predicted, published, and their difference (relative, or in points of MFU)."""
    days = None if stage.tokens is None else float(predicted.days(stage.tokens))
    mfu, published_mfu = 100 * float(predicted.mfu), stage.published.mfu
    return (
        _beside(float(predicted.iteration_time_s), stage.published.iteration_time_s, "{:.3f}"),
        ("", "", "") if published_mfu is None else _points(mfu, 100 * published_mfu),
        _beside(days, stage.published.days, "{:.2f}"),
    )


def _beside(predicted: float | None, published: float | None, shape: str) -> tuple[str, str, str]:
    if predicted is None or published is None:
        return "", "", ""
    return shape.format(predicted), f"{published:g}", percent_text(predicted / published - 1)


def _points(predicted: float, published: float) -> tuple[str, str, str]:
    return f"{predicted:.1f}", f"{published:.1f}", f"{predicted - published:+.1f}"


def candidate_table(candidates: Sequence[tuple[Mapping[str, Any], Prediction]]) -> RenderableType:
    """Iteration times of each combination of values, and their envelope."""
    table = plain_table()
    table.add_column("candidate", overflow="fold", ratio=1)
    _, first = candidates[0]
    for label in stage_labels(first)[-MOST_COLUMNS:]:
        table.add_column(label, justify="right", no_wrap=True)
    for heading in ("memory", "fits"):
        table.add_column(heading, justify="right", no_wrap=True)
    for values, prediction in candidates:
        label = ", ".join(f"{key} {value_text(value)}" for key, value in values.items())
        table.add_row(
            label, *_seconds(prediction), gibibytes_text(most_memory_bytes(prediction)), FIT_WORDS[prediction.verdict]
        )
    ends = envelope([prediction for _, prediction in candidates])[-MOST_COLUMNS:]
    table.add_section()
    table.add_row("envelope", *("{:.3f}-{:.3f}".format(*end["iteration_time_s"]) for end in ends), "", "")
    return titled("Candidates, s an iteration (the first is shown in full)", table)


def _seconds(prediction: Prediction) -> Iterable[str]:
    return (f"{float(predicted.iteration_time_s):.3f}" for _, predicted in prediction.stages[-MOST_COLUMNS:])


def breakdown_table(prediction: Prediction, *, most: int = MOST_COLUMNS) -> RenderableType:
    """The parts of an iteration, a column for each of the last `most` stages, and their shares in the last."""
    rows = _part_rows(prediction, "breakdown", scale=1e3, shape="{:.1f}", most=most)
    return _part_table("Where an iteration goes, ms", prediction, rows, share=True, most=most)


def memory_table(prediction: Prediction, *, most: int = MOST_COLUMNS) -> RenderableType:
    """The parts of the memory of one GPU, a column for each of the last `most` stages."""
    rows = _part_rows(prediction, "memory", scale=1 / GIBIBYTE, shape="{:.2f}", most=most)
    return _part_table("Memory of one GPU, GiB", prediction, rows, share=False, most=most)


def _part_rows(
    prediction: Prediction, name: Literal["breakdown", "memory"], *, scale: float, shape: str, most: int
) -> list[tuple[str, list[str], float]]:
    """Label, a cell a stage, and the share of the last stage's total, for each part that is not zero everywhere."""
    shown: list[Breakdown | MemoryBytes] = [getattr(predicted, name) for _, predicted in prediction.stages[-most:]]
    totals = [float(parts.total_s if isinstance(parts, Breakdown) else parts.total_bytes) for parts in shown]
    rows = []
    for same in zip(*(parts.items() for parts in shown), strict=True):
        part, values = same[0][0], [float(value) for _, value in same]
        if any(values):
            rows.append((LABELS[part], [shape.format(value * scale) for value in values], values[-1] / totals[-1]))
    rows.append(("total", [shape.format(value * scale) for value in totals], 1.0))
    return rows


def _part_table(
    title: str, prediction: Prediction, rows: list[tuple[str, list[str], float]], *, share: bool, most: int
) -> RenderableType:
    table = plain_table("part")
    for label in stage_labels(prediction)[-most:]:
        table.add_column(label, justify="right")
    bars = share and len(prediction.stages) <= MOST_BESIDE_BARS
    if share:
        table.add_column("share", justify="right")
    if bars:
        table.add_column("", no_wrap=True)
    for label, cells, part in rows:
        if label == "total":
            table.add_section()
        bar = [bar_text(part) if label != "total" else ""] if bars else []
        table.add_row(label, *cells, *([f"{100 * part:.0f} %"] if share else []), *bar)
    left_out = len(prediction.stages) - most
    return titled(title + (f" (without the first {left_out} stages)" if left_out > 0 else ""), table)
