"""The gallery: runs the commands of docs/gallery.md as a person would, and keeps the pictures that they draw.

    python -m perfmodel.benchmarks.project.gallery

Each picture is in docs/gallery, and in the page under the command that made it. The README's pictures are of these.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from perfmodel.exchange.output import write_text

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "gallery.md"
PICTURES: Final = DOCS / "gallery"
FOLDER: Final = "report/"  # where a report goes, as the page writes it
ANSWERS: Final = (0, 1)  # exit codes of a command that worked: yes, and no


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """A command and the pictures that are kept of it: names in the gallery, by the file that the command writes, with words.

    A report writes a folder, of which some pictures are kept; any other command writes the one that it is asked for.
    """

    title: str
    words: str
    arguments: Sequence[str]
    pictures: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """As a person types it."""
        return shlex.join(["perfmodel", *self.arguments])


RAMP: Final = {
    "ramp": ("ramp", "Iteration time and MFU of each stage of the ramp, with 90 % intervals, beside what the paper prints."),
    "peak-3": ("peak", "From the model FLOPs at the peak rate down to the MFU: what each step takes of it."),
    "iteration": ("iteration", "The same parts have the same colours in every figure."),
    "memory": ("memory", "What a GPU holds, against what it has."),
    "operators-3": (
        "operators",
        "Every operator under its roof: what computes on the left, what only moves bytes on the right. Larger is more time.",
    ),
    "scaling": ("scaling", "The same batch on fewer and on more GPUs."),
    "layouts-3": ("layouts", "Other layouts of the same GPUs; blank ones cannot be."),
    "levers-3": ("levers", "What a tenth of each number is worth."),
    "cost": ("cost", "The calendar, with failures, checkpoints and restarts on average, and the price."),
    "provenance": ("provenance", "How much of the time rests on measurements of these very sizes."),
}
SHOTS: Final = (
    Shot(
        title="One run",
        words="A page of HTML, and in a folder beside it each of its figures as PNG and SVG.",
        arguments=["report", "nemotron-4-15b", "--set", "economics.dollars_per_gpu_hour=2.5", "-o", FOLDER],
        pictures=RAMP,
    ),
    Shot(
        title="A run that does not fit",
        words="The same command says so first, and what takes the memory.",
        arguments=["report", "nemotron-4-15b", "--set", "tensor_parallel=1", "--set", "cluster=dgx-a100", "-o", FOLDER],
        pictures={
            "memory": ("memory-too-large", "Hatched: what a GPU does not have."),
            "layouts-3": ("layouts-too-large", "Hatched: other layouts that do not fit either."),
        },
    ),
    Shot(
        title="Scenarios side by side",
        words="What if it were another cluster, or another layout?",
        arguments=[
            *("report", "nemotron-4-15b", "--scenario", "H200: cluster=dgx-h200", "--scenario", "B200: cluster=dgx-b200"),
            *("--scenario", "TP 4: tensor_parallel=4", "--same-gpus", "-o", FOLDER),
        ],
        pictures={"iteration": ("scenarios", "Each beside the run as it is.")},
    ),
    Shot(
        title="A plan",
        words="The page of a plan, with its figures: what could be, what was chosen, and why nothing else.",
        arguments=[
            *("plan", "llama-3.1-70b", "--cluster", "dgx-h200", "--deadline", "30d", "--tokens", "2T", "--price", "2.5"),
            *("--report", FOLDER),
        ],
        pictures={
            "map": ("plan-map", "Each cell the best layout of its tensor and pipeline parallel, all else chosen anew."),
            "rejected": ("plan-rejected", "What each other choice costs, and the part of the iteration that loses most."),
            "rivals": ("plan-rivals", "Where the iterations of the nearest rivals go."),
            "front": ("plan-front", "What less memory costs in time."),
            "options": ("plan-options", "How long each number of GPUs takes, against what it costs."),
        },
    ),
    Shot(
        title="A sweep of two axes",
        words="Every combination of their values; blank ones cannot be, hatched ones do not fit.",
        arguments=[
            *("sweep", "nemotron-4-15b", "--vary", "tensor_parallel=1..8", "--vary", "micro_batch_size=1,2,4"),
            *("--set", "cluster=dgx-a100", "--grow-gpus", "--figure", "map.png"),
        ],
        pictures={"map.png": ("map", "MFU of each.")},
    ),
    Shot(
        title="Weak scaling on three clusters",
        words="The batch grows with the GPUs; bands are 90 % intervals.",
        arguments=[
            *("sweep", "nemotron-4-15b", "--vary", "gpus=96..3072", "--vary", "cluster=dgx-h100,dgx-h200,dgx-b200"),
            *("--weak", "--figure", "weak.png"),
        ],
        pictures={"weak.png": ("weak-scaling", "Tokens a second, and the efficiency against the first point.")},
    ),
    Shot(
        title="How wrong predictions are, run by run",
        words="Every run of dense models of papers and vendors that perfmodel comes with.",
        arguments=["validate", "--figure", "accuracy.png"],
        pictures={"accuracy.png": ("accuracy", "The error of each with its sign and its 90 % interval, by software.")},
    ),
    Shot(
        title="Whether intervals keep what they say",
        words="Each source is scored without what was learned from it.",
        arguments=["validate", "--leave-source-out", "--reliability", "reliability.png"],
        pictures={
            "reliability.png": ("reliability", "Measurements inside intervals, over the share that the intervals state.")
        },
    ),
    Shot(
        title="A measured step, operator by operator",
        words="A record of `perfmodel measure`, beside the prediction on the profile that `perfmodel calibrate` fitted before.",
        arguments=[
            *("compare", "laptop", "docs/measured/records/nemotron-21m-one-512-bf16.json"),
            *("--set", "cluster=docs/measured/profile.yaml", "--figure", "step.png"),
        ],
        pictures={"step.png": ("step", "Those that make up most of the step.")},
    ),
)


def page(shots: Sequence[Shot] = SHOTS) -> str:
    """The page: each command with its pictures below."""
    return "\n".join(_lines(shots)) + "\n"


def _lines(shots: Sequence[Shot]) -> Iterator[str]:
    yield "# Gallery\n"
    yield "Written by `make gallery`, which runs these commands. They need `pip install 'perfmodel[report]'`."
    yield "[Kernels](kernels.md) has a picture of the measured and fitted kernels of each GPU, [measured.md](measured.md)"
    yield "one of all steps that this project measured."
    for shot in shots:
        yield f"\n## {shot.title}\n{shot.words}\n```\n{shot.command}\n```"
        for name, words in shot.pictures.values():
            yield f"\n{words}\n\n![{words}](gallery/{name}.png)"


def taken(shot: Shot, folder: Path) -> Iterator[tuple[str, Path]]:
    """Run the command in a folder; the name and the file of each picture that is kept. Raises when it fails."""
    arguments = [_in(folder, argument) for argument in shot.arguments]
    command = [sys.executable, "-m", "perfmodel", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=DOCS.parent)
    if done.returncode not in ANSWERS:
        raise RuntimeError(f"{shot.command}: exit code {done.returncode}: {done.stderr.strip()}")
    for file, (name, _) in shot.pictures.items():
        yield name, folder / (file if file.endswith(".png") else f"{FOLDER}{file}.png")


def _in(folder: Path, argument: str) -> str:
    """What a command writes, it writes to the folder."""
    return f"{folder}/{argument}" if argument == FOLDER or argument.endswith(".png") else argument


def main() -> None:
    """Take every picture anew, and write the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    kept = set()
    for shot in SHOTS:
        print(shot.command, file=sys.stderr, flush=True)
        with TemporaryDirectory() as folder:
            for name, file in taken(shot, Path(folder)):
                shutil.copyfile(file, PICTURES / f"{name}.png")
                kept.add(f"{name}.png")
    for other in PICTURES.glob("*.png"):
        if other.name not in kept:
            other.unlink()
    write_text(PAGE, page())
    print(f"wrote {len(kept)} pictures and {PAGE}")


if __name__ == "__main__":
    main()
