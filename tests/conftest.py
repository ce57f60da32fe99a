"""What several files of tests use: the command line, run as the console script does; and which tests go to one worker."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from perfmodel.benchmarks.measure.processes import start
from perfmodel.commands import app
from tests.json_documents import check_json

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest-xdist has one core
ROOT: Final = Path(__file__).parents[1]
RANKS: Final = "pytest.mark.ranks"
SHARED: Final = ("tests.comparisons", "tests.report.runs", "tests.search.small_plans")
settings.register_profile("always the same", derandomize=True, deadline=None, database=None)  # a busy machine is no failure
settings.load_profile("always the same")
gc.set_threshold(100_000, 20, 50)  # as the command line has it: most of what tests make is freed without a pass over it


class FilesTogether(LoadScopeScheduling):  # type: ignore[misc]
    """Hands a worker whole files, for what their tests share, and all that must not be apart: see `together`.

    Groups of pytest-xdist itself (--dist loadgroup, 3.8) do nothing under pytest 9.2: a test no longer has the id they write.
    """

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid.partition("::")[0])


@cache
def together(file: str) -> str:
    """Files of one name go to one worker, one after the other.

    Two starts of ranks beside each other would take the cores that each measures with. What a module of SHARED works out, such
    as the predictions of the whole published table, is worked out once for all who look at it.
    """
    text = _text(file)
    return "ranks" if RANKS in text else next((each for each in SHARED if f"from {each} import" in text), file)


@cache
def _text(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FilesTogether:
    """Files in the order of their collection, which is that of the hook below."""
    config.option.loadscopereorder = False
    return FilesTogether(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With pytest-xdist what takes longest comes first, for all workers to end at the same time: ranks, then slow files."""
    if hasattr(config, "workerinput"):
        order = {"ranks": 0, **dict.fromkeys(SHARED, 1)}
        files = {item: item.nodeid.partition("::")[0] for item in items}
        items.sort(key=lambda item: order.get(together(files[item]), 2 if "mark.slow" in _text(files[item]) else 3))


@pytest.fixture(scope="session")
def collective_records(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The file of collectives, and of memory-bound operators on both cores, that two ranks measured."""
    from perfmodel.benchmarks.measure.kernels.collectives import MODULE

    path = tmp_path_factory.mktemp("collectives") / "records.jsonl"
    start([MODULE, "--device", "cpu", "--smallest", "--output", str(path)], 2, timeout_s=120)
    return path.read_text()


@pytest.fixture(autouse=True, scope="session")
def known_predictions() -> Iterator[None]:
    """Commands and explanations share the predictions of other tests (tests/predictions.py)."""
    from tests.predictions import predicted_once

    with predicted_once():
        yield


@pytest.fixture
def known_searches() -> Iterator[None]:
    """Plans of the test share the searches of other tests (tests/searches.py)."""
    from tests.searches import searched_once

    with searched_once():
        yield


class Outcome:
    """What a command did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def is_refused(self, code: int, sentence: str) -> bool:
        """Whether it ended with this code, on stderr one sentence that says so, and on stdout nothing but the same as JSON."""
        said = self.err.startswith("perfmodel: ") and sentence in self.err and self.err.count("\n") == 1
        error = json.loads(self.out)["error"]["exit_code"] if self.out.startswith("{") else self.out or code
        return said and self.code == code == error

    def __repr__(self) -> str:
        return f"exit code {self.code}, stdout {self.out[:200]!r}, stderr {self.err!r}"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command as the console script does; what it prints as JSON has to be what its schema says."""

    def _run(*arguments: object, columns: int = 80) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["perfmodel", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        try:
            app.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        done = Outcome(code, *capsys.readouterr())
        if "--json" in arguments and done.out:
            check_json(str(arguments[0]), done.out)
        return done

    return _run
