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
from tests.model.cases import every_outcome
from tests.model.ranks import SEVERAL

ROOT = Path(__file__).parents[2]


class Outcomes:
    """What every rank found of every case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._found: dict[int, list[dict[str, Any]]] = {}

    def of(self, ranks: int) -> list[dict[str, Any]]:
        """Rank by rank, by the names of the cases; the processes run when somebody first asks."""
        if ranks not in self._found:
            self._found |= {1: [every_outcome(lambda _: one_rank(), 1, self.folder)]} if ranks == 1 else self._together()
        return self._found[ranks]

    def _together(self) -> dict[int, list[dict[str, Any]]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            start(["tests.model.ranks", str(self.folder)], timeout_s=300)
        files = {ranks: [self.folder / str(ranks) / f"{rank}.json" for rank in range(ranks)] for ranks in SEVERAL}
        return {ranks: [json.loads(file.read_text()) for file in of_ranks] for ranks, of_ranks in files.items()}


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
