"""How an explanation looks on a terminal: where the peak goes, then what would change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.memory.fit import FITS
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.moves import DEGREES, Move
from perfmodel.explanation.sensitivity import Effect
from perfmodel.explanation.terms import TERMS
from perfmodel.explanation.waterfall import STEPS, WaterfallStep
from perfmodel.report.text.interval import interval_table
from perfmodel.report.text.measured.own_runs import own_runs_line
from perfmodel.report.text.prediction import description, fit_sentence, need_text, size_text
from perfmodel.report.text.terminal import Name, percent_text, plain_table, section, setting_text, titled, value_text
from perfmodel.report.words import LABELS, SHORT
from perfmodel.spec.axes import DATA
from perfmodel.units import gibibytes_text, seconds_text

TERM_LABELS: Final = {name: LABELS[kind.part] if kind.part else SHORT[name] for name, kind in TERMS.items()}
STEP_LABELS: Final = {
    "wider_arithmetic": "parts in other arithmetic",
    "uncounted_flop": "padding, copies of KV heads",
    "causal_mask": "causal mask, counted in full",
    "matmul_kernels": "matrix products below peak",
    "attention_kernels": "attention below peak",
    "clocks": "clocks under load",
    "uneven_stages": "uneven pipeline stages",
} | {name: TERM_LABELS[name] for name in STEPS if name in TERM_LABELS}
NAMED: Final = 3  # of the largest losses, in the first sentence
MOST_ROWS: Final = 8  # of numbers by their key path, unless all are asked for
BAR: Final = 16  # characters of 100 % MFU
LEAST_SHOWN: Final = 5e-5  # of the iteration: less prints as nothing


def explanation_report(explained: Explanation, *, every: bool = False) -> Group:
    """Verdict, waterfall, moves and levers; with `every`, those without effect and moves that cannot be made too."""
    parts: list[RenderableType] = [*verdict(explained), waterfall_table(explained), moves_table(explained)]
    parts += [*notes(explained), *refusals(explained, every=every)]
    parts += [interval_table(explained.predicted), *lever_tables(explained, every=every)]
    return Group(*parts)


def verdict(explained: Explanation) -> Iterator[Text]:
    """Whether it fits, what the iteration takes, what costs most, and which move pays most."""
    predicted, fall = explained.predicted, explained.waterfall
    if predicted.verdict != FITS:
        need = need_text(float(predicted.memory.total_bytes), explained.run.cluster)
        yield fit_sentence(need, float(predicted.fit_probability))
    name = stage_name(explained)
    yield Text(f"{name}: {seconds_text(fall.iteration_time_s)} an iteration, MFU {100 * fall.mfu:.1f} %.")
    yield description(explained.run)
    if size := size_text(explained.run.model):
        yield Text(f"The model has {size}.")
    if (own := own_runs_line(predicted)) is not None:
        yield own
    yield from findings(explained)
    another = "--stage N explains another stage; " if len(explained.run.stages) > 1 else ""
    yield Text(f"{another}--term TERM explains what stands behind one term.", style="dim")


def findings(explained: Explanation) -> Iterator[Text]:
    """Where most of the MFU goes, the move that pays most, and which of several candidates this is."""
    yield from losses(explained)
    yield from advice(explained)


def losses(explained: Explanation) -> Iterator[Text]:
    """The steps that most of the MFU goes to."""
    largest = sorted((step for step in explained.waterfall.steps if step.seconds > 0), key=lambda step: -step.seconds)[:NAMED]
    if largest:
        words = ", ".join(f"{STEP_LABELS[step.name]} {-100 * step.mfu_change:.1f}" for step in largest)
        yield Text(f"Most points of MFU go to {words}.")


def advice(explained: Explanation) -> Iterator[Text]:
    """The move that pays most, and which of several candidates this is."""
    best = _best(explained)
    if best is not None:
        yield Text(f"The fastest move that fits: {_move_text(best)}, {percent_text(best.time_change)} time.")
    elif not explained.predicted.fits:
        yield Text("No single move of the layout makes it fit.")
    if explained.chosen:
        values = ", ".join(f"{key} {value_text(value)}" for key, value in explained.chosen.items())
        yield Text(f"Of the candidates this is the first: {values}.", style="dim")


def _best(explained: Explanation) -> Move | None:
    """The fastest move that fits and leaves the arithmetic as it is; where the run itself fits, only one that pays."""
    fitting = (move for move in explained.moves.possible if move.predicted is not None and move.predicted.fits)
    first = next((move for move in fitting if move.key != "precision"), None)
    return first if first is not None and (first.time_change < 0 or not explained.predicted.fits) else None


def stage_name(explained: Explanation) -> str:
    """The run, and of a ramp which stage of it."""
    number, name = len(explained.run.stages), explained.run.name
    return name if number == 1 else f"{name}, stage {explained.place + 1} of {number}"


def waterfall_table(explained: Explanation) -> RenderableType:
    """From the peak to the prediction, a row a step; those that print as nothing are left out."""
    fall, left = explained.waterfall, 1.0
    table = plain_table("step")
    for heading in ("ms", "points", "MFU %", "without"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_row("model FLOPs at the peak rate", f"{1e3 * fall.ideal_s:.1f}", "", "100.0", "", "#" * BAR)
    for step in fall.steps:
        left += step.mfu_change
        if abs(step.mfu_change) >= LEAST_SHOWN:
            table.add_row(*_step_cells(step, left), _bar(left, left - step.mfu_change))
    table.add_section()
    total = (f"{1e3 * fall.iteration_time_s:.1f}", f"{100 * (fall.mfu - 1):+.1f}", f"{100 * fall.mfu:.1f}", "")
    table.add_row("predicted", *total, _bar(fall.mfu, fall.mfu))
    return titled("Where the peak goes (without: the MFU if that step alone were gone)", table)


def _step_cells(step: WaterfallStep, left: float) -> tuple[str, ...]:
    return (
        STEP_LABELS[step.name],
        f"{1e3 * step.seconds:.1f}",
        f"{100 * step.mfu_change:+.1f}",
        f"{100 * left:.1f}",
        f"{100 * step.mfu_without:.1f}",
    )


def _bar(left: float, before: float) -> Text:
    """What is left of the peak, and what this step takes of it (or, where it saves time, gives)."""
    ends = [min(max(round(BAR * value), 0), BAR) for value in (left, before)]
    kept, changed = "#" * min(ends), abs(ends[1] - ends[0])
    return Text.assemble(kept, ("-" * changed, "red") if left <= before else ("+" * changed, "green"))


def moves_table(explained: Explanation) -> RenderableType:
    """Every single move that can be made, the fastest first."""
    table = plain_table("move")
    for heading in ("time", "MFU %", "memory"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for move in explained.moves.possible:
        if move.predicted is not None:
            there = move.predicted
            memory = gibibytes_text(float(there.memory.total_bytes))
            fits = Text("") if there.fits else Text("but does not fit", style="red")
            fits = Text("and fits", style="green") if there.fits and not explained.predicted.fits else fits
            table.add_row(_move_text(move), percent_text(move.time_change), f"{100 * float(there.mfu):.1f}", memory, fits)
    return titled("One move of the layout, on the same GPUs with the same global batch", table)


def _move_text(move: Move) -> str:
    """TP 8 -> 4 (DP 576)."""
    replicas = f" ({DATA.short} {int(move.layout.data_parallel)})" if move.layout is not None and move.key in DEGREES else ""
    before, after = (_value_text(value) for value in (move.before, move.after))
    return f"{SHORT[move.key]} {before} -> {after}{replicas}"


def _value_text(value: Any) -> str:
    """A value of a setting; of several words, all with nothing between them but commas."""
    return setting_text((",".join(value) or None) if isinstance(value, tuple) else value)


def notes(explained: Explanation) -> Iterator[Text]:
    """What a reader of the moves should know."""
    *others, last = ["", *(str(move.after) for move in explained.moves.possible if move.key == "precision")]
    if last:
        before = f"{', '.join(others[1:])} and " if others[1:] else ""
        yield Text(f"The MFU of {before}{last} is of the peak rate of that precision.", style="dim")


def refusals(explained: Explanation, *, every: bool) -> Iterator[RenderableType]:
    """Why moves cannot be made; unless `every` is wanted, how many there are."""
    refused = explained.moves.refused
    if refused and every:
        yield section("Moves that cannot be made", [(_move_text(move), move.refusal) for move in refused])
    elif refused:
        yield Text(f"{len(refused)} more cannot be made; --all says why.", style="dim")


def lever_tables(explained: Explanation, *, every: bool) -> Iterator[RenderableType]:
    """What each number does to the time: those that a person asks for first, then the hardware, then the software."""
    effects = explained.sensitivity.effects()
    first = [each for each in effects if each.lever.headline]
    yield headline_table(explained, every=every)
    yield from _left_out(first if every else _mattering(first), first, cut=False)
    for kind, title in (("hardware", "Numbers of the hardware"), ("stack", "Numbers of the software")):
        group = [each for each in effects if each.lever.kind == kind and not each.lever.headline]
        shown = group if every else _mattering(group)
        yield _lever_table(title, shown if every else shown[:MOST_ROWS])
        yield from _left_out(shown, group, cut=not every)


def headline_table(explained: Explanation, *, every: bool = False) -> RenderableType:
    """What a person asks for first; with `every`, what has no effect too."""
    first = [each for each in explained.sensitivity.effects() if each.lever.headline]
    return _lever_table("What 10 % of the hardware does", first if every else _mattering(first))


def _mattering(effects: Sequence[Effect]) -> list[Effect]:
    return [each for each in effects if each.matters]


def _left_out(shown: Sequence[Effect], group: Sequence[Effect], *, cut: bool) -> Iterator[Text]:
    rest, without = max(len(shown) - MOST_ROWS, 0) if cut else 0, len(group) - len(shown)
    words = [f"{rest} with less effect"] if rest else []
    words += [f"{without} without any"] if without else []
    if words:
        yield Text(f"Left out: {', '.join(words)}; --all lists them.", style="dim")


def _lever_table(title: str, effects: Sequence[Effect]) -> RenderableType:
    table = plain_table()
    table.add_column("number", overflow="fold", ratio=1)
    for heading in ("moved", "time", "other way", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for effect in effects:
        (step, change), (other_step, other) = effect.helping, effect.hurting
        changes = (step_text(step), change_text(change), step_text(other_step), change_text(other))
        table.add_row(Name(effect.lever.name), *changes)
    return titled(title, table)


def step_text(step: float) -> str:
    """How far a number is moved: +10 %, or less where it may go no further."""
    return f"{100 * step:+.3g} %" if step else "its limit"


def change_text(change: float) -> str:
    """A relative change, to a hundredth of a percent where it is small."""
    percent = 100 * change
    return f"{percent:+.1f} %" if abs(percent) >= 1 else f"{percent:+.2f} %"
