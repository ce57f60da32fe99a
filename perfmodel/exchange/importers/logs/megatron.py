"""Logs of Megatron-LM in all its versions, of Megatron-Bridge, Megatron-DeepSpeed and other forks.

A log is split at `|` into keys and values, whatever keys there are. The block of arguments at its head is a run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import NotSupportedError, PerfmodelError
from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine, field_of, line_of, number_in, pairs_of
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step
from perfmodel.exchange.translation.megatron.facts import from_arguments, from_flags
from perfmodel.exchange.translation.words.word_table import UNKNOWN, WITHOUT_EFFECT
from perfmodel.light_dataclass import replace

NAME: Final = "Megatron-LM log"
TIME: Final = "elapsed time per iteration (ms)"
RATES: Final = ("tokens/sec/gpu", "tokens/s/GPU", "tokens per gpu per second (tgs)", "tokens per GPU (tokens/s/GPU)")
FLOPS: Final = ("throughput per GPU (TFLOP/s/GPU)", "compute per GPU (TFLOP/s/GPU)", "TFLOPs")
ITERATION: Final = re.compile(r"\biteration\s+(\d+)\s*/")
BRIDGE: Final = re.compile(r"Step Time : ([\d.]+)s GPU utilization: ([\d.]+)\s*MODEL_TFLOP/s/GPU")
MARKS: Final = (b"elapsed time per iteration", b"Step Time :", b"memory (")
MEMORY: Final = {  # key: kind, and bytes of its unit
    "max allocated": ("allocated", 2.0**20),
    "max reserved": ("reserved", 2.0**20),
    "mem-max-allocated-gigabytes": ("allocated", 1e9),
    "mem-max-reserved-gigabytes": ("reserved", 1e9),
}
BLOCK: Final = re.compile(r"(?<!-)-{10,} (?:end of )?arguments -{10,}")
ARGUMENT: Final = re.compile(r"\s*([A-Za-z_]\w*) \.{2,} ?(.*)")


def _convert(document: Document) -> Conversion:
    bridge = SteadySteps()  # Megatron-Bridge prints a line of its own beside Megatron-LM's
    steps = steps_of(document, MARKS, lambda line, into: _take(line, into, bridge))
    found = _described(document)
    run = found.run or {}
    length, gpus = run.get("sequence_length"), run.get("gpus")
    convention = "full" if bridge.is_empty else "causal"  # Megatron-Bridge counts for both of its lines
    own = steps.record(convention=convention, sequence_length=length, gpus=gpus)
    beside = bridge.record(convention="causal", sequence_length=length, gpus=gpus)
    if own is None:
        return replace(found, record=beside and replace(beside, memory_bytes=steps.most_memory, memory_kind=steps.memory_kind))
    if beside is not None and own.printed_tflop_per_s_per_gpu is None:
        printed = beside.printed_tflop_per_s_per_gpu
        own = replace(own, printed_tflop_per_s_per_gpu=printed, tflop_convention=beside.tflop_convention)
    return replace(found, record=own)


def _take(line: LogLine, steps: SteadySteps, bridge: SteadySteps) -> bool:
    """Hand over what a line says: a step, or memory."""
    if found := BRIDGE.search(line.text):
        bridge.add(Step(time_s=float(found[1]), tflop_per_s_per_gpu=float(found[2]), rank=line.rank))
        return True
    if "memory (" in line.text and "|" in line.text:
        return _memory(line.text, steps)
    if TIME not in line.text:
        return False
    iteration, time_ms = ITERATION.search(line.text), field_of(line.text, TIME)
    if time_ms is None or iteration is None or time_ms <= 0:
        steps.broken()
        return True
    batch = field_of(line.text, "global batch size")
    steps.add(
        Step(
            iteration=int(iteration[1]),
            time_s=time_ms / 1e3,
            tokens_per_s_per_gpu=field_of(line.text, *RATES),
            tflop_per_s_per_gpu=field_of(line.text, *FLOPS),
            batch=int(batch) if batch else None,
            rank=line.rank,
        )
    )
    return True


def _memory(text: str, steps: SteadySteps) -> bool:
    for key, value in pairs_of(text, ends=False).items():
        if key in MEMORY and (size := number_in(value)) is not None:
            kind, unit = MEMORY[key]
            steps.holds(kind, size * unit)
    return True


def _described(document: Document) -> Conversion:
    """The run of the block of arguments; one that cannot be read, or is not there, is no run."""
    arguments = dict(arguments_in(document.text))
    if not arguments:
        return Conversion(format=NAME)
    name = document.path.stem if document.path else Path("run").stem
    try:
        found = from_flags(from_arguments(arguments), format_name=NAME, name=name)
    except NotSupportedError as error:
        return Conversion(format=NAME, refused=(str(error),))
    except PerfmodelError as error:
        return Conversion(format=NAME, ignored=(f"the block of arguments: {error}",))
    return replace(found, ignored=tuple(_together(found.ignored)))


def _together(sentences: tuple[str, ...]) -> Iterator[str]:
    """Sentences, with those of arguments that nobody knows in one: a block has every argument that there is."""
    unknown = [each.partition(":")[0] for each in sentences if each.endswith(UNKNOWN)]
    yield from (each for each in sentences if not each.endswith((UNKNOWN, WITHOUT_EFFECT)))
    if unknown:
        yield f"{' '.join(unknown)}: nobody here knows these arguments; they are not read"


def arguments_in(text: str) -> Iterator[tuple[str, Any]]:
    """The arguments between the lines `---- arguments ----` and `---- end of arguments ----` of a log."""
    is_inside = False
    for raw in text.splitlines():
        line = line_of(raw).text
        if found := BLOCK.search(line):
            if is_inside and "end of" in found[0]:
                return
            is_inside = True
        elif is_inside and (argument := ARGUMENT.fullmatch(line)):
            yield argument[1], _value(argument[2].strip())


def _value(text: str) -> Any:
    """A value as Python prints it."""
    if text.startswith(("[", "(", "{")) or text in ("None", "True", "False"):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return text
        return list(value) if isinstance(value, tuple) else value
    return text.removeprefix("torch.")


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
