"""Every command as people start it, with the files that it reads: what meets each condition of conditions.py."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz import corpus

RUN: Final = "nemotron-4-15b"
ASKED: Final = ("llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "64", "--tokens", "1T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A command and what it is given."""

    arguments: tuple[str, ...]
    output: str = ""  # the file that -o names, where the command can write one
    always_writes: bool = False  # it writes its file also when no condition asks for one
    measures: bool = False  # torch, other processes and times that are never the same; met by some conditions only
    slow: bool = False  # takes several seconds, and is met by some conditions only

    @property
    def name(self) -> str:
        """The command as typed."""
        return " ".join(self.arguments)


PROGRAMS: Final = (
    Program(arguments=("predict", RUN), output="a.json"),
    Program(arguments=("explain", RUN), output="a.md"),
    Program(arguments=("list",), output="a.csv"),
    Program(arguments=("whatif", RUN, "--set", "precision=fp8"), output="a.json"),
    Program(arguments=("convert", "train.sh", "--cluster", "dgx-h100", "--gpus", "64"), output="a.yaml"),
    Program(arguments=("infer", "nemotron-4-15b", "--gpu", "a100-sxm-80gb"), output="a.csv"),
    Program(arguments=("show", "llama-3.1-8b"), output="a.txt"),
    Program(arguments=("timeline", RUN), output="a.json.gz", always_writes=True),
    Program(arguments=("--version",)),
    Program(arguments=("--help",)),
    Program(arguments=("predict", "run.json", "--json"), output="a.json"),
    Program(arguments=("predict", "none.yaml")),
    Program(arguments=("predict", RUN, "--set", "pipeline_parallel=1"), output="a.json"),  # does not fit: exit code 1
    Program(arguments=("explain", RUN, "--term", "tensor_parallel"), output="a.txt"),
    Program(arguments=("sweep", RUN, "--vary", "tensor_parallel=4,8"), output="a.csv"),
    Program(arguments=("plan", *ASKED), output="a.json"),
    Program(
        arguments=("plan", "llama-3.1-8b", "--serve", "--ttft", "1s", "--tpot", "30ms", "--requests-per-s", "20"),
        output="a.json",
    ),
    Program(arguments=("validate", "runs.csv"), output="a.json"),
    Program(arguments=("validate", "--memory", "fits.csv"), output="a.md"),
    Program(arguments=("validate", "train.log", "--cluster", "dgx-h100"), output="a.json"),
    Program(arguments=("calibrate", "--from-runs", "runs.csv"), output="a.yaml", always_writes=True),
    Program(
        arguments=("calibrate", "--from-nccl-tests", "sum.txt", "--cluster", "dgx-h100"), output="a.yaml", always_writes=True
    ),
    Program(arguments=("compare", "train.sh", "train.log", "--cluster", "dgx-h100"), output="a.json"),
    Program(arguments=("compare", RUN, "kineto.json"), output="a.md"),
    Program(arguments=("diagnose", RUN, "--measured", "0.9s"), output="a.json"),
    Program(arguments=("launch", *ASKED), output="a.sh"),
    Program(arguments=("schema", "run"), output="a.json"),
    Program(
        arguments=("infer", "nemotron-4-15b", "--gpu", "a100-sxm-80gb", "--concurrency", "1,8", "--figure", "a.svg"),
        slow=True,
    ),
    Program(arguments=("report", RUN), output="a.html", always_writes=True, slow=True),
    Program(arguments=("measure", "laptop", "--dry-run"), measures=True, slow=True),
    Program(arguments=("measure", "laptop", "--seconds", "0.1"), output="a.json", always_writes=True, measures=True, slow=True),
    Program(arguments=("calibrate", "--smallest"), output="a.yaml", always_writes=True, measures=True, slow=True),
)
QUICK: Final = PROGRAMS[:8]  # what CI tries


def lay_out(folder: Path) -> None:
    """Write what the programs read."""
    files = {
        "train.sh": corpus.CONFIGS_OF_RUNS["train.sh"],
        "train.log": corpus.LOGS["block.log"],
        "run.json": corpus.RUNS["dense.json"],
        "runs.csv": corpus.TABLES["published.csv"],
        "fits.csv": corpus.FITS.encode(),
        "kineto.json": corpus.TRACES["trace.json"],
        "sum.txt": corpus.LINKS["two_nodes.txt"],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
