"""Outcomes of the cases: those of one rank from this process, those of several from real processes, started once a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from perfmodel.benchmarks.measure.processes import start
from perfmodel.model.groups import one_rank
from tests.model.cases import BY_RANKS, STOPPED, outcome, resumed

ROOT = Path(__file__).parents[2]


class Outcomes:
    """What every rank found of every case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[int, list[dict[str, Any]]] = {}

    def of(self, ranks: int) -> list[dict[str, Any]]:
        """Rank by rank, by the names of the cases; the processes run when somebody first asks."""
        if ranks not in self._found:
            self._found[ranks] = [_alone(self.folder)] if ranks == 1 else self._together(ranks)
        return self._found[ranks]

    def _together(self, ranks: int) -> list[dict[str, Any]]:
        folder = self.folder / str(ranks)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            start(["tests.model.ranks", str(folder)], ranks, timeout_s=300)
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]


def _alone(folder: Path) -> dict[str, Any]:
    found = {case.name: outcome(case, one_rank()) for case in BY_RANKS[1]}
    for number, case in enumerate(STOPPED[1]):
        found[case.name].update(resumed(case, one_rank(), folder / f"checkpoints-{number}"))
    return found


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models as small as these wait longer for a second thread than it would help them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Shared by all tests of a session."""
    return Outcomes(tmp_path_factory.mktemp("ranks"))
