"""Are the ranks of GPUs left to torchrun itself? What forks do is in test_processes.py, through `start`."""

from __future__ import annotations

import sys

import pytest
import torch
import torch.distributed.run

from perfmodel.benchmarks.measure import forked_ranks


def test_with_gpus_torchrun_starts_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA does not survive a fork; nothing is imported here, and all arguments go on."""
    seen: list[list[str]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed.run, "main", seen.append)
    monkeypatch.setattr(sys, "argv", ["forked_ranks", "8", "no.such.module", "--device", "cuda"])
    forked_ranks.main()
    assert seen == [["--standalone", "--nproc-per-node=8", "-m", "no.such.module", "--device", "cuda"]]
