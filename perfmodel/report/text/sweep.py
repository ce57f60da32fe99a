"""How a sweep looks on a terminal: the verdict, every point, the scaling curve, and why points were refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from perfmodel.count.memory.fit import DOES_NOT_FIT, FITS, TIGHT, fit_verdict
from perfmodel.report.text.prediction import description
from perfmodel.report.text.terminal import Name, bar_text, plain_table, section, titled
from perfmodel.report.words import SHORT
from perfmodel.units import GIBIBYTE, dollars_text, large_text, seconds_text
from perfmodel.variation.scaling_curve import ScalingCurve
from perfmodel.variation.sweep import Sweep, SweptPoint


def _large(number: float) -> str:
    """A count in four digits."""
    return large_text(float(f"{number:.4g}"))


FIT_CELLS: Final = {FITS: "yes", TIGHT: "tight", DOES_NOT_FIT: "no"}
COLUMNS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "GPUs": lambda numbers: f"{numbers['gpus']:,}",
    "batch": lambda numbers: f"{numbers['global_batch_size']:,}",
    "time s": lambda numbers: f"{numbers['iteration_time_s']:.3f}",
    "90 % interval": lambda numbers: f"{numbers['iteration_time_low_s']:.2f}-{numbers['iteration_time_high_s']:.2f}",
    "MFU %": lambda numbers: f"{100 * numbers['mfu']:.1f}",
    "tokens/s/GPU": lambda numbers: f"{numbers['tokens_per_s_per_gpu']:,.0f}",
    "days": lambda numbers: "" if numbers["days"] is None else f"{numbers['days']:.2f}",
    "cost, $": lambda numbers: "" if numbers["dollars"] is None else dollars_text(numbers["dollars"]).removeprefix("$"),
    "GiB": lambda numbers: f"{numbers['memory_bytes'] / GIBIBYTE:.1f}",
    "fits": lambda numbers: FIT_CELLS[fit_verdict(numbers["fit_probability"])],
}
BESTS: Final = (("Fastest", "tokens_per_s", "tokens/s"), ("Most per GPU", "tokens_per_s_per_gpu", "tokens/s/GPU"))


def heading(key: str) -> str:
    """What a key path is called at the head of a column.

    >>> heading("tensor_parallel"), heading("cluster.links.network.bandwidth_bytes_per_s")
    ('TP', 'network.bandwidth')
    """
    last = key.rpartition(".")[2]
    if last in SHORT and (last == key or key.startswith("stages")):
        return SHORT[last]
    return ".".join(key.split(".")[-2:]).removesuffix("_bytes_per_s").removesuffix("_bytes").removesuffix("_s")


def point_name(result: Sweep, point: SweptPoint) -> str:
    """What is varied and the values of a point: TP 4, cluster dgx-h200."""
    return ", ".join(f"{heading(axis.key)} {label}" for axis, label in zip(result.axes, point.labels, strict=True))


def sweep_report(result: Sweep) -> Group:
    """The verdict, the points, the scaling curve where there is one, and the points that were refused."""
    taken = [Text(f"{sentence}.", style="dim") for sentence in result.taken]
    early = [] if result.complete else [Text("Stopped early: these are the points that were reached.", style="yellow")]
    base = [] if result.base is None else [Text.assemble("Varied from ", description(result.base), ".", style="dim")]
    parts: list[RenderableType] = [*early, *_verdict(result), *base, *taken, titled("Points", _points(result))]
    curve = result.scaling
    if curve is not None:
        parts += [titled(scaling_title(result, curve), scaling_table(result, curve))]
    if refused := _refusals(result):
        parts.append(section("Refused", refused))
    return Group(*parts)


def scaling_title(result: Sweep, curve: ScalingCurve) -> str:
    """Which scaling it is, by what stays the same."""
    fitting = [point.numbers for point in result.points if point.fits]
    batches = {numbers["global_batch_size"] for numbers in fitting}
    per_gpu = {f"{numbers['global_batch_size'] / numbers['gpus']:.4g}" for numbers in fitting}
    if curve.kind == "strong":
        return "Strong scaling: the global batch stays" + (f" {min(batches):,} sequences" if len(batches) == 1 else "")
    if curve.kind == "weak":
        return "Weak scaling: the sequences a GPU stay" + (f" {min(per_gpu)}" if len(per_gpu) == 1 else "")
    return "Scaling, neither strong nor weak: batch and GPUs both change"


def _verdict(result: Sweep) -> Iterator[Text]:
    stage = f", stage {result.stage} of {result.stages}" if result.stages > 1 and result.axes[0].key != "run" else ""
    fitting = [point for point in result.points if point.fits]
    if not fitting:
        yield Text(f"{result.name}{stage}: none of {len(result.points)} points can be run.", style="bold red")
        return
    yield Text(f"{result.name}{stage}: {len(fitting)} of {len(result.points)} points can be run.")
    for which, rate, unit in BESTS:
        best = fitting[max(range(len(fitting)), key=[point.numbers[rate] for point in fitting].__getitem__)]
        seconds = seconds_text(best.numbers["iteration_time_s"])
        yield Text(f"{which}: {point_name(result, best)}, {seconds} an iteration, {_large(best.numbers[rate])} {unit}.")
    if stage and fitting[0].numbers["days"] is not None:
        yield Text("Days and costs are those of this stage alone.", style="dim")
    paid = [point for point in fitting if point.numbers["dollars"] is not None]
    if paid:
        cheapest = min(paid, key=lambda point: float(point.numbers["dollars"]))
        yield Text(f"Cheapest: {point_name(result, cheapest)}, ${cheapest.numbers['dollars']:,.0f}.")


def _refusals(result: Sweep) -> list[tuple[str, str]]:
    """Each reason with the first point that has it, and how many more have."""
    names: dict[str, list[str]] = {}
    for point in result.points:
        if point.outcome.refusal:
            names.setdefault(point.outcome.refusal, []).append(point_name(result, point))
    return [(f"{first}{f' and {len(more)} more' if more else ''}", reason) for reason, (first, *more) in names.items()]


def _points(result: Sweep) -> Table:
    """A row a point. GPUs and batches that are swept, or the same everywhere, and what nobody knows have no column.

    Nor have intervals where a cost and two axes fill the width.
    """
    known = [point.numbers for point in result.points if point.numbers]
    bare = {heading(axis.key) for axis in result.axes}
    bare |= {"batch"} if len({numbers["global_batch_size"] for numbers in known}) <= 1 else set()
    bare |= {"days"} if not any(numbers["days"] for numbers in known) else set()
    bare |= (
        {"cost, $"}
        if not any(numbers["dollars"] for numbers in known)
        else {"90 % interval"}
        if len(result.axes) > 1
        else set()
    )
    columns = {name: shape for name, shape in COLUMNS.items() if name not in bare}
    table = plain_table()
    for axis in result.axes:
        is_number = all(label[:1].isdigit() or label[:1] in "x." for label in axis.labels)
        table.add_column(Name(heading(axis.key)), justify="right" if is_number else "left", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for point in result.points:
        cells = [shape(point.numbers) for shape in columns.values()] if point.numbers else [""] * (len(columns) - 1) + ["-"]
        table.add_row(*map(Name, point.labels), *cells)
    return table


def scaling_table(result: Sweep, curve: ScalingCurve) -> Table:
    """Speed against GPUs beside the ideal, a bar for the efficiency; the first point of a series is its measure."""
    table, several = plain_table(), len(curve.series) > 1
    if several:
        table.add_column(Name(heading(result.axes[1 - curve.axis].key)), overflow="fold")
    for name in ("GPUs", "tokens/s", "ideal", "speed-up", "efficiency"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name, places in curve.series.items():
        first = result.points[places[0]].numbers
        for place in places:
            point, efficiency = result.points[place].numbers, curve.efficiency[place]
            ideal = first["tokens_per_s"] * point["gpus"] / first["gpus"]
            cells = [f"{point['gpus']:,}", _large(point["tokens_per_s"]), _large(ideal), f"{curve.speed_up[place]:.2f}"]
            table.add_row(*([Name(name)] if several else []), *cells, f"{100 * efficiency:.1f} %", bar_text(efficiency))
    return table
