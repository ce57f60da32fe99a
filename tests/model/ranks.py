"""Runs all cases of as many ranks as were started: python -m torch.distributed.run ... -m tests.model.ranks FOLDER.

Rank r leaves its outcomes in FOLDER/r.json, by the name of the case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from perfmodel.model.groups import Groups, make_groups
from perfmodel.model.launch import started
from tests.model.cases import BY_RANKS, STOPPED, Case, outcome, resumed


def _groups(case: Case, device: torch.device) -> Groups:
    layout = case.layout
    return make_groups(device, tensor_parallel=int(layout.tensor_parallel), data_parallel=int(layout.data_parallel))


def main() -> None:
    """Every rank runs every case."""
    folder = Path(sys.argv[1])
    with started("cpu") as device:
        found: dict[str, dict[str, Any]] = {}
        for case in BY_RANKS[dist.get_world_size()]:
            found[case.name] = outcome(case, _groups(case, device))
        for number, case in enumerate(STOPPED[dist.get_world_size()]):
            found.setdefault(case.name, {}).update(resumed(case, _groups(case, device), folder / f"checkpoints-{number}"))
        (folder / f"{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
