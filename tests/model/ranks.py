"""Runs all cases of as many ranks as were started: python -m torch.distributed.run ... -m tests.model.ranks FOLDER.

Rank r leaves its outcomes in FOLDER/r.json, by the name of the case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch.distributed as dist

from model.groups import make_groups
from model.launch import started
from tests.model.cases import BY_RANKS, outcome


def main() -> None:
    """Every rank runs every case."""
    with started("cpu") as device:
        found = {}
        for case in BY_RANKS[dist.get_world_size()]:
            layout = case.layout
            groups = make_groups(device, tensor_parallel=int(layout.tensor_parallel), data_parallel=int(layout.data_parallel))
            found[case.name] = outcome(case, groups)
        (Path(sys.argv[1]) / f"{dist.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
