"""Is a step profiled under the names of its operators?"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from perfmodel.benchmarks.measure.steps.profiled_step import write_profile
from perfmodel.evidence.steps.profiled_step import profiled_step
from perfmodel.model.operators import named, operator


def step() -> None:
    """Two operators forwards, and what autograd makes of one of them."""
    weight = torch.ones(8, 8, requires_grad=True)
    with operator("layer.mlp.fc1"):
        product = torch.ones(4, 8) @ weight
    named("layer.mlp.activation", torch.relu, product).sum().backward()


def test_a_profile_has_the_second_of_two_steps_with_the_names_of_operators(tmp_path: Path) -> None:
    """The first is the profiler's own warm-up; names have their phase."""
    path = tmp_path / "profile.json"
    write_profile(step, torch.device("cpu"), path)
    found = profiled_step(json.loads(path.read_text()))
    names = {event.name for event in found.events if event.name.startswith("layer.")}
    activation = "layer.mlp.activation"
    assert names == {"layer.mlp.fc1 (forward)", f"{activation} (forward)", f"{activation} (data_gradient)"}
    assert "aten::mm" in {event.name for event in found.events}
    assert 0 < found.duration_s < 10


def test_a_rank_without_a_file_takes_part(tmp_path: Path) -> None:
    """In both steps, and writes nothing."""
    calls: list[int] = []
    write_profile(lambda: calls.append(1), torch.device("cpu"), None)
    assert calls == [1, 1]
    assert not list(tmp_path.iterdir())
