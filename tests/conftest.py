"""What several files of tests use: the command line, run as the console script does."""

from __future__ import annotations

import sys
from typing import Any

import pytest

import cli


class Outcome:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command as the console script does."""

    def _run(*arguments: object, columns: int = 80) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["perfmodel", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return _run
