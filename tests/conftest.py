"""What several files of tests use: the command line, run as the console script does; and which tests go to one worker."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import pytest

from perfmodel.commands import app

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest-xdist has one core
gc.set_threshold(100_000, 20, 50)  # as the command line has it: most of what tests make is freed without a pass over it


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist and --dist loadgroup a file stays together, for what its tests share, and all that start processes.

    Two of those beside each other would take the cores that each measures with. Files that look at the predictions of the whole
    published table (tests/comparisons.py) stay together too: they are made once.
    """
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            module = getattr(item, "module", None)
            alone = "published" if hasattr(module, "compared") or hasattr(module, "measured") else str(item.path)
            item.add_marker(pytest.mark.xdist_group("processes" if item.get_closest_marker("processes") else alone))


class Outcome:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def is_refused(self, code: int, sentence: str) -> bool:
        """Whether it ended with this code, nothing on stdout, and on stderr one sentence that says so."""
        said = self.err.startswith("perfmodel: ") and sentence in self.err and self.err.count("\n") == 1
        return said and (self.code, self.out) == (code, "")

    def __repr__(self) -> str:
        return f"exit code {self.code}, stdout {self.out[:200]!r}, stderr {self.err!r}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command as the console script does."""

    def _run(*arguments: object, columns: int = 80) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["perfmodel", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return _run
