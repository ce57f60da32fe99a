"""Commands on a page with what they print: each is run as a person would type it, when the page is built."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from perfmodel.benchmarks.project.site.fences import Fence
from perfmodel.exchange.syntax.documents import read_mapping

COLUMNS: Final = 80
MOST_LINES: Final = 60
ANSWERS: Final = (0, 1)  # exit codes of a command that worked: yes, and no
OPTIONS: Final = ("lines", "code", "from")
OTHER_PACKAGES: Final = ("pip ", "python3 -m venv", "python -m pip", ". ", "source ")  # shown, and not run


def shell(fence: Fence) -> str:
    """A block of commands, and behind it what they print; `lines=N` cuts it, `code=N` is the exit code that it must have.

    `from=Where_an_iteration` begins with the line that begins so.
    """
    commands = [line for line in fence.body.splitlines() if line.strip()]
    runs = [line for line in commands if not line.startswith(("#", *OTHER_PACKAGES))]
    printed = "".join(output(line, fence.folder, code=fence.option("code")) for line in runs)
    begun = from_line(printed, fence.option("from").replace("_", " "))
    shown = trimmed(begun, int(fence.option("lines", str(MOST_LINES))))
    block = "```sh\n" + "\n".join(commands) + "\n```\n"
    return block + (f"\n```text\n{shown}\n```\n" if shown else "")


def file(fence: Fence) -> str:
    """A file that the commands of the page read, under the name behind the fence."""
    (name, *_) = fence.words
    (fence.folder / name).write_text(fence.body, encoding="utf-8")
    return f"\n`{name}`\n\n```{Path(name).suffix.removeprefix('.') or 'text'}\n{fence.body}```\n"


def output(command: str, folder: Path, *, code: str = "") -> str:
    """What one command prints on standard output, in 80 columns. Errors: RuntimeError where it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "COLUMNS": str(COLUMNS), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )
    if str(done.returncode) != code if code else done.returncode not in ANSWERS:
        raise RuntimeError(f"{command}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout or (done.stderr if code else "")


def trimmed(text: str, lines: int) -> str:
    """The first lines of a text, with a mark where there are more; no blanks at the ends of lines."""
    found = [line.rstrip() for line in text.strip("\n").splitlines()]
    return "\n".join(found if len(found) <= lines else [*found[:lines], "[..]"])


def from_line(text: str, start: str) -> str:
    r"""A text from the first line on that begins with some words. Errors: RuntimeError where no line does.

    >>> from_line("one\ntwo\nthree", "tw")
    'two\nthree'
    """
    lines = text.splitlines()
    places = [place for place, line in enumerate(lines) if line.startswith(start)]
    if text and not places:
        raise RuntimeError(f"no line of the output begins with {start}")
    return "\n".join(lines[places[0] :]) if text else ""


def cookbook(fence: Fence) -> str:
    """Questions with the command that answers each and what it prints, from the file behind the fence."""
    chapters = read_mapping(Path(__file__).resolve().parents[3] / "docs" / fence.words[0])
    return "\n".join(
        part for name, questions in chapters.items() for part in [f"## {name}\n", *map(_question(fence), questions)]
    )


def _question(fence: Fence) -> Any:
    """How one question is written, whose commands run in the folder of the page."""

    def written(asked: Any) -> str:
        words = tuple(f"{name}={asked[name]}".replace(" ", "_") for name in OPTIONS if name in asked)
        answer = shell(Fence(words=words, body=asked["command"], folder=fence.folder))
        return f"### {asked['question']}\n\n{answer}\n{asked.get('note', '')}\n"

    return written
