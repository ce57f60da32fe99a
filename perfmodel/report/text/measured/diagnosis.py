"""How a diagnosis looks on a terminal: what was measured, what explains it and how plausibly, what to measure next."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.operators import Collective
from perfmodel.explanation.measured.diagnosis import Cause, Diagnosis
from perfmodel.explanation.measured.hypotheses import STACK, OffNumber
from perfmodel.explanation.measured.next_measurements import (
    CLOCK_QUERY,
    NETWORK,
    NODE,
    PROFILE,
    Measurement,
    NextMeasurements,
)
from perfmodel.explanation.measured.plausibility import Finding
from perfmodel.explanation.measured.readings import NETWORK_CALLS, NODE_CALLS, OTHER_KERNELS
from perfmodel.report.text.terminal import plain_table, setting_text, titled
from perfmodel.report.words import SHORT
from perfmodel.spec.axes import CONTEXT, DATA, TENSOR
from perfmodel.spec.setup import Setup
from perfmodel.units import gpus_text, seconds_interval_text, seconds_text

HOW: Final[Mapping[str, tuple[str, str]]] = {
    PROFILE: (
        "Measure next: a profile of one step",
        "torch.profiler with ProfilerActivity.CUDA, then --profile FILE; seconds of kernels of one GPU",
    ),
    CLOCK_QUERY: (
        "Measure next: clocks of all GPUs while it trains, over those of a healthy run",
        "nvidia-smi --query-gpu=index,clocks.sm,clocks_throttle_reasons.active,power.draw --format=csv -l 1",
    ),
}
SOFTWARE: Final[Mapping[str, str]] = {  # settings of the stack as people say them
    "stack.overlap.data_parallel": "data-parallel overlap",
    "stack.overlap.tensor_parallel": "tensor-parallel overlap",
    "stack.host.cuda_graphs": "CUDA graphs",
    "stack.fusion.attention": "fused attention",
    "stack.fusion.attention_library": "attention kernels of",
    "stack.fusion.matmul_library": "products of",
}
CLOSEST: Final = 3  # causes that are shown where none explains the measurement
LEAST_SHOWN: Final = 0.005  # of the plausibility
PROGRAMS: Final = {"all_to_all": "alltoall", "point_to_point": "sendrecv"}  # in nccl-tests, where they are called otherwise
KERNEL_LABELS: Final = {
    "matmul": "products",
    "attention": "attention",
    OTHER_KERNELS: "others",
    NODE_CALLS: "NCCL node",
    NETWORK_CALLS: "NCCL net",
}


def diagnosis_report(found: Diagnosis, following: NextMeasurements, *, every: bool = False) -> Group:
    """The verdict, the causes, and what tells them apart; with `every`, all alternatives of all causes."""
    parts: list[RenderableType] = [*verdict(found), causes_table(found, every=every), *notes(found)]
    labels = ["as predicted", *(each.hypothesis.cause for each in following.contenders)]
    parts += [_measurement_block(each, labels, found) for each in following.measurements]
    return Group(*parts)


def verdict(found: Diagnosis) -> Iterator[Text]:
    """What was measured beside what was predicted, and what explains the difference best."""
    low_s, high_s = (float(each) for each in found.predicted.iteration_time_interval_s)
    median_s = float(found.predicted.iteration_time_s)
    interval = f"{seconds_text(median_s)} (90 %: {seconds_interval_text(low_s, high_s, around_s=median_s)})"
    stage = f", stage {found.place + 1} of {len(found.run.stages)}" if len(found.run.stages) > 1 else ""
    yield Text(
        f"{found.run.name}{stage}: measured {found.stated}, an iteration of {seconds_text(found.measured_s)}; "
        f"predicted {interval}."
    )
    if found.is_expected:
        yield Text("Nothing needs explaining: the measured time lies within the 90 % interval of the prediction.")
        return
    yield Text(_difference(found))
    if found.is_explained:
        yield Text(f"Most plausible, {_most_plausible(found.explaining[0], found)}.")
        return
    closest = found.closest
    yield Text(
        f"Nothing alone explains it plausibly. What comes closest: {need_text(closest, found)}; {_missing(closest, found)}."
    )


def _difference(found: Diagnosis) -> str:
    """How much longer the run takes than predicted, and what that means in the units that people measure."""
    predicted = found.predicted
    ratio = found.measured_s / float(predicted.iteration_time_s)
    times = f"{ratio:.3g} times as long as predicted" if ratio > 1 else f"{ratio:.3g} of the predicted time"
    mfu = f"MFU {100 * float(predicted.mfu) / ratio:.3g} % instead of {100 * float(predicted.mfu):.3g} %"
    rate = float(predicted.tokens_per_s_per_gpu)
    return f"It takes {times}: {mfu}, {rate / ratio:,.4g} tokens/s/GPU instead of {rate:,.4g}."


def _most_plausible(cause: Cause, found: Diagnosis) -> str:
    """A cause with its odds; of several alternatives, the likeliest with its own."""
    best = cause.best
    need, left = need_text(best, found), "" if best.explains else f"; {_missing(best, found)}"
    if _is_shared(cause):
        need = f"{cause.name}, of which the likeliest, {_percent(best.plausibility)}, is {need}"
    return f"{_percent(cause.plausibility)}: {need}{left}"


def _is_shared(cause: Cause) -> bool:
    """Whether a cause owes its odds to several alternatives, as they are shown in whole percents."""
    return _percent(cause.best.plausibility) != _percent(cause.plausibility)


def _missing(finding: Finding, found: Diagnosis) -> str:
    """How far a finding gets, and how plausible it is where it gets there."""
    if finding.explains:
        return f"it would, at {_percent(finding.plausibility)}"
    left = max(finding.time_s / found.measured_s, found.measured_s / finding.time_s)
    return f"that makes {seconds_text(finding.time_s)}, which is a factor of {left:.3g} away"


def causes_table(found: Diagnosis, *, every: bool) -> RenderableType:
    """Every cause that explains the measurement alone, with what it takes."""
    table = plain_table("cause")
    table.add_column("what it takes", overflow="fold", ratio=1)
    for heading in ("iteration", "plausible"):
        table.add_column(heading, justify="right", no_wrap=True)
    for cause, finding in _shown(found, every=every):
        share = finding.plausibility if every else cause.plausibility
        need = Text(need_text(finding, found) + ("" if every else _others(cause)))
        table.add_row(cause.name, need, seconds_text(finding.time_s), _percent(share))
    table.add_section()
    table.add_row(
        "nothing",
        "several numbers, each a little off",
        seconds_text(float(found.predicted.iteration_time_s)),
        _percent(found.nothing),
    )
    table.add_row("elsewhere", "something that the model has no number for", "", _percent(found.elsewhere))
    return titled("What would explain it alone" if every or found.explaining else "What comes closest", table)


def _shown(found: Diagnosis, *, every: bool) -> list[tuple[Cause, Finding]]:
    """All findings; or the best of each cause that explains the measurement; or those that come closest where none does."""
    if every:
        return [(cause, finding) for cause in found.causes for finding in cause.findings]
    shown = [(cause, cause.best) for cause in found.explaining if cause.plausibility >= LEAST_SHOWN]
    nearest = [(cause, min(cause.findings, key=lambda each: abs(each.gap))) for cause in found.causes]
    return shown or sorted(nearest, key=lambda each: abs(each[1].gap))[:CLOSEST]


def _others(cause: Cause) -> str:
    """The odds of a cause's best finding, where it has others, and how many of those explain the measurement too."""
    others = sum(each.explains for each in cause.findings[1:])
    words = [_percent(cause.best.plausibility)] if _is_shared(cause) else []
    words += [f"or {others} other{'s' if others > 1 else ''}"] if others else []
    return f" ({', '.join(words)})" if words else ""


def need_text(finding: Finding, found: Diagnosis) -> str:
    """What a finding takes, as a person says it: 20 GB/s a GPU instead of 49."""
    hypothesis, setup = finding.hypothesis, found.predicted.work.setup
    if isinstance(hypothesis, OffNumber):
        words = NUMBERS.get(hypothesis.key)
        return words(setup, finding) if words else f"{hypothesis.key} {finding.after:.3g} instead of {hypothesis.value:.3g}"
    if hypothesis.key == STACK:
        return f"{hypothesis.after} instead of {hypothesis.before}"
    name = SOFTWARE.get(hypothesis.key) or SHORT.get(hypothesis.key, hypothesis.key)
    return f"{name} {setting_text(hypothesis.after)} instead of {setting_text(hypothesis.before)}"


def _network(setup: Setup, finding: Finding) -> str:
    rate = float(setup.cluster.network_bytes_per_s_per_gpu)
    given = f"{finding.after * rate / 1e9:.3g} GB/s instead of {rate / 1e9:.3g} GB/s a GPU"
    return f"the network gives {finding.after:.2g} of its published rate: {given}"


def _node(setup: Setup, finding: Finding) -> str:
    link = setup.cluster.links.node
    rate = float(link.bandwidth_bytes_per_s)
    given = f"{finding.after * rate / 1e9:.3g} GB/s instead of {rate / 1e9:.3g} GB/s a GPU"
    return f"{link.name} gives {finding.after:.2g} of its rate: {given}"


def _clocks(_: Setup, finding: Finding) -> str:
    return f"clocks at {finding.factor:.2g} of those under healthy load (the slowest GPU holds up all)"


def _host(_: Setup, finding: Finding) -> str:
    return f"the CPU takes {finding.factor:.2g} times as long to launch work"


def _beside(setup: Setup, finding: Finding) -> str:
    before = float(setup.stack.host.iteration_s)
    return f"{seconds_text(finding.after)} of an iteration go beside its passes, instead of {seconds_text(before)}"


NUMBERS: Final[Mapping[str, Callable[[Setup, Finding], str]]] = {
    "cluster.network_scale": _network,
    "cluster.node_link_scale": _node,
    "cluster.compute_scale": _clocks,
    "cluster.host_scale": _host,
    "stack.host.iteration_s": _beside,
}


def notes(found: Diagnosis) -> Iterator[RenderableType]:
    """What was measured besides, and what a reader of the table should know."""
    first = found.explaining[0] if found.is_explained and not found.is_expected else None
    setups = [found.predicted.work.setup, *([first.best.setup] if first else [])]
    for reading in found.readings[1:]:
        values = [reading.measured, *(float(reading.predicted(each)) for each in setups)]
        bandwidth = reading.measured > 1e6
        measured, *expected = (f"{each / 1e9:.3g} GB/s" if bandwidth else seconds_text(each) for each in values)
        beside = f", with the first cause {expected[1]}" if expected[1:] and expected[1] != expected[0] else ""
        yield Text(f"Also measured: {reading.name}, {measured}; predicted {expected[0]}{beside}.")
    fits = found.predicted.fit_probability
    if fits < 0.5:
        yield Text("The run as it is described is predicted not to fit, and it ran: something in it is otherwise.", style="dim")


def _measurement_block(measurement: Measurement, labels: list[str], found: Diagnosis) -> RenderableType:
    """How to measure, and what every cause predicts for it."""
    title, how = _how(measurement, found)
    table = plain_table("if it is")
    for name in measurement.quantities:
        table.add_column(KERNEL_LABELS.get(name, name), justify="right", no_wrap=True)
    for place, label in enumerate(labels):
        table.add_row(label, *(_quantity(measurement.kind, values[place]) for values in measurement.quantities.values()))
    return titled(title, Group(Text(how, overflow="fold"), table))


def _quantity(kind: str, value: float) -> str:
    if not isfinite(value):
        return "cannot be"
    if kind == CLOCK_QUERY:
        return f"{value:.2g}"
    return f"{value / 1e9:.3g} GB/s" if kind in (NETWORK, NODE) else seconds_text(value)


def _how(measurement: Measurement, found: Diagnosis) -> tuple[str, str]:
    """The title of a measurement, and the command or the words for it."""
    if measurement.call is not None:
        return _nccl_tests(measurement.call, measurement.kind, found)
    return HOW[measurement.kind] if measurement.setup is None else _one_node(measurement.setup, found)


def _nccl_tests(call: Collective, kind: str, found: Diagnosis) -> tuple[str, str]:
    """The program of nccl-tests for one collective of the run: the same ranks, the same size, as many groups side by side."""
    ranks, stride, size = int(call.group.ranks), int(call.group.stride), round(float(call.payload_bytes))
    program = f"{PROGRAMS.get(call.kind, call.kind)}_perf -b {size} -e {size}"
    if kind == NODE:
        return "Measure next: nccl-tests inside a node", f"{program} -g {ranks}"
    split = f'-x NCCL_TESTS_SPLIT="MOD {stride}" ' if stride > 1 else ""
    start = f"mpirun -np {ranks * stride} -N {found.run.cluster.gpus_per_node} {split}"
    return "Measure next: nccl-tests between nodes", f"{start}{program} -g 1"


def _one_node(setup: Setup, found: Diagnosis) -> tuple[str, str]:
    """The smaller run, in words."""
    layout = setup.layout
    degrees = " ".join(
        f"{axis.short} {int(layout.degree(axis))}" for axis in (TENSOR, CONTEXT, DATA) if layout.degree(axis) > 1
    )
    layers = f"{int(setup.model.layers)} of {int(found.run.model.layers)} layers"
    how = f"{gpus_text(int(layout.gpus))}, {degrees}, {layers}, global batch {int(layout.global_batch_size)}; all else as it is"
    return "Measure next: a run on one node", how


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= LEAST_SHOWN else "< 1 %"
