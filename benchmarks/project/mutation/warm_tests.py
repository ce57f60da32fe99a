"""Runs of pytest that end soon: forked from a process that has loaded all libraries, and with the quickest tests first.

The process knows nothing of perfmodel, which a run loads anew from the tree in which it stands, with whatever is changed there.
It reads the arguments of a run, one line of JSON, and writes the exit code, until its standard input ends. Thousands of quick
tests take less than a few slow ones, and notice most of what these notice.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Self

LONGEST_S: Final = 1200  # that a run may take before it counts as failed: a change made a loop endless
NICE: Final = ("nice",) if shutil.which("nice") else ()
SECONDS: Final = "seconds_of_tests.json"  # in a tree: what each test took when that was last seen
OPTIONS: Final = ("-x", "-q", "--tb=no", "--assert=plain", "-p", "no:cacheprovider")  # whether a test fails, not why
LIBRARIES: Final = (
    "hypothesis", "matplotlib.figure", "numpy", "pandas", "pytest", "rich.console", "scipy.optimize",
    "torch.utils.flop_counter", "transformers", "typer", "xdist.scheduler", "yaml",
)  # fmt: skip


class WarmTests:
    """The tests of one tree, run one after the other by a process that stays."""

    def __init__(self, tree: Path, *, libraries: Sequence[str] = LIBRARIES, compiles: bool = False) -> None:
        """With `compiles` runs leave compiled files behind, which later ones find of all that has not been written since."""
        flags = ("-P",) if compiles else ("-P", "-B")
        environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [*NICE, sys.executable, *flags, __file__, *libraries],
            cwd=tree, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def fail(self, arguments: Sequence[str]) -> bool:
        """Whether one of some tests fails."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the process has no pipes")
        self._process.stdin.write(json.dumps([*OPTIONS, *arguments]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline()) != 0


class QuickestFirst:
    """A plugin of pytest: tests in the order of their seconds, which a run of all of them leaves for later ones."""

    def __init__(self, seconds: Path) -> None:
        self._path, self._seen = seconds, dict[str, float]()
        self._known: dict[str, float] = json.loads(seconds.read_text(encoding="ascii")) if seconds.exists() else {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Tests of which nothing is known stay where they are, before all others."""
        items.sort(key=lambda item: self._known.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """The preparation of a test counts as well."""
        self._seen[report.nodeid] = self._seen.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Only the first run is kept, of the tree as it is."""
        if not self._known and not exitstatus:
            self._path.write_text(json.dumps(self._seen), encoding="ascii")


def run(arguments: Sequence[str]) -> None:
    """One run in a process of its own, which ends with it."""
    import pytest

    signal.alarm(LONGEST_S)
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    os._exit(int(pytest.main([*arguments], plugins=[QuickestFirst(Path(SECONDS))])))


def serve(libraries: Sequence[str]) -> None:
    """Load libraries, then fork for each line."""
    for name in libraries:
        import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            run(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1:])
