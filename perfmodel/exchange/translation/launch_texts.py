"""What all launch files have: a head that says which run it is of, how torchrun is started, and files inside a script."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from textwrap import fill
from typing import Final

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import stack_preset
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import whole
from perfmodel.spec.run import RampStage, Run
from perfmodel.units import gpus_text

WIDTH: Final = 110
RENDEZVOUS: Final = (
    "--node-rank ${NODE_RANK:-0} --master-addr ${MASTER_ADDR:-localhost} --master-port ${MASTER_PORT:-29500}"  # of torchrun
)
ON_NODES: Final = "bash FILE, on every node with its NODE_RANK and the MASTER_ADDR of the first"
STEPS: Final = 50  # of a run that does not say for how many tokens it trains
FILE: Final = re.compile(r"^cat\s*>\s*(\S+)\s*<<\s*'(\w+)'\n(.*?)^\2$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The GPUs of one launch, and the nodes that they lie on."""

    gpus: int
    nodes: int
    gpus_per_node: int


def world_of(run: Run, stage: RampStage) -> World:
    """The GPUs of a ramp stage, as nodes of the cluster have them."""
    gpus, each = whole(run.layout(stage).gpus), run.cluster.gpus_per_node
    return World(gpus=gpus, nodes=-(-gpus // each), gpus_per_node=min(gpus, each))


def heading(run: Run, stages: Sequence[RampStage], *, words: str, version: str, start: str, stack: str) -> str:
    """Comments for the head of a file: the run, the version that its words are for, how it is started, and whose kernels count.

    `stack` is the preset with which the file is read again.
    """
    of_stage = "" if len(run.stages) == len(stages) else f", stage {run.stages.index(stages[-1]) + 1} of {len(run.stages)}"
    gpus = gpus_text(whole(run.layout(stages[-1]).gpus))
    about = [
        f"{run.name}{of_stage}: {run.model.name} on {gpus} of {run.cluster.name}, by perfmodel launch.",
        f"{words} of {version}; perfmodel predict FILE --cluster=.. reads them again as the same run.",
    ]
    if run.stack.name != stack_preset(stack).name:
        about.append(f"Predicted with stack {run.stack.name}; read again, kernels are those of {stack}.")
    return "".join(map(comment, about)) + _starting(start)


def _starting(start: str) -> str:
    """How a file is started; a command is not broken into lines."""
    line = f"# Start it with: {start}"
    return f"{line}\n" if len(line) <= WIDTH else f"# Start it with:\n#   {start}\n"


def comment(text: str) -> str:
    """A sentence as lines that begin with #."""
    return fill(text, WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False) + "\n"


def torchrun(world: World) -> str:
    """torchrun on every node, up to the program that it starts."""
    return f"torchrun --nnodes {world.nodes} --nproc-per-node {world.gpus_per_node} {RENDEZVOUS}"


def file_in_script(name: str, text: str) -> str:
    """A file that a script writes before it needs it."""
    return f"cat > {name} <<'END'\n{text}END\n"


def files_in_script(text: str) -> dict[str, str]:
    """The files that a script writes, by their names, with what they hold.

    >>> {name: text.strip() for name, text in files_in_script(file_in_script("a.json", "{}" + chr(10))).items()}
    {'a.json': '{}'}
    """
    return {name: content for name, _, content in FILE.findall(text)}


def steps_of(run: Run, stages: Sequence[RampStage], software: str) -> int:
    """How many iterations the one stage of a launch takes. Errors: NotSupportedError for a ramp of batches."""
    if len(stages) > 1:
        problem = f"a ramp of {len(stages)} batches cannot be said in {software}; --stage N writes one of them"
        raise NotSupportedError(problem, key="stages")
    tokens = stages[-1].tokens
    return STEPS if tokens is None else ceil(round(float(tokens) / float(run.layout(stages[-1]).tokens_per_iteration), 6))
