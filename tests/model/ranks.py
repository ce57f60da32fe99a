"""Runs all cases of two ranks, and then of four: python -m tests.model.ranks FOLDER.

Rank r of n leaves its outcomes in FOLDER/n/r.json, by the name of the case; two of them also answer (answers-r.json). Ranks are
forks of one process: each would need longer to import torch than for its cases.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import multiprocessing.connection
import os
import socket
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.training.launch import started
from tests.model.cases import BY_RANKS, Case, every_outcome
from tests.model.generated import GENERATED, answer, layout_of

SEVERAL = [ranks for ranks in BY_RANKS if ranks > 1]
GENERATING = 2


def _groups(case: Case, device: torch.device) -> Groups:
    return make_groups(device, case.model, case.layout)


def every_case(folder: Path) -> None:
    """Every rank runs every case."""
    with started("cpu") as device:
        found = every_outcome(lambda case: _groups(case, device), dist.get_world_size(), folder)
        (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))
        if dist.get_world_size() == GENERATING:
            answers = {each.name: answer(each, make_groups(device, each, layout_of(GENERATING))) for each in GENERATED}
            (folder / f"answers-{dist.get_rank()}.json").write_text(json.dumps(answers))


def _as_rank(rank: int, ranks: int, port: int, folder: Path) -> None:
    """In the environment that torchrun would give it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    every_case(folder)


def main() -> None:
    """Exit code 1 when a rank failed; the others are stopped then."""
    importlib.import_module("torch._dynamo")  # as the first optimizer would, in each of them
    fork = multiprocessing.get_context("fork")
    for ranks in SEVERAL:
        folder = Path(sys.argv[1]) / str(ranks)
        folder.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        processes = [fork.Process(target=_as_rank, args=(rank, ranks, port, folder), daemon=True) for rank in range(ranks)]
        for process in processes:
            process.start()
        waiting = {process.sentinel: process for process in processes}
        while waiting:
            for sentinel in multiprocessing.connection.wait(list(waiting)):
                if waiting.pop(sentinel).exitcode:  # type: ignore[arg-type]
                    sys.exit(1)  # its traceback is on stderr


if __name__ == "__main__":
    main()
