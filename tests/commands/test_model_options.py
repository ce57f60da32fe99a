"""Do commands that name runs or models in another way than `predict` take --model, --cluster and --gpus as it does?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.commands.choices.test_plan_command import FEW, document, said

pytestmark = pytest.mark.usefixtures("known_searches")


def test_a_model_may_be_an_option(run: Any) -> None:
    """As in the other commands; not twice."""
    few = ("--cluster", "dgx-h100", "--gpus", 8, *FEW)
    assert document(run, "plan", "--model", "llama-3.1-8b", *few) == document(run, "plan", "llama-3.1-8b", *few)
    assert "'llama-3.1-8b' is a model itself; leave out --model" in said(run, "plan", "llama-3.1-8b", "--model", "phi-4", *few)
    assert "name a model or a run" in said(run, "plan", *few)


def test_a_run_may_have_another_model(run: Any) -> None:
    """Beside the batch and the length that it has."""
    found = document(run, "plan", "runs/nemotron-4-15b", "--model", "llama-3.1-8b", "--gpus", 128, *FEW)
    assert found["model"] == "Llama 3.1 8B"


def test_a_model_alone_is_reported(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its fastest layout; nothing at all is refused."""
    monkeypatch.chdir(tmp_path)
    outcome = run("report", "--model", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", 8)
    assert outcome.code == 0
    assert "Llama 3.1 8B on 8 GPUs" in (tmp_path / "report.html").read_text()
    assert run("report").is_refused(2, "name one, as in llama-3.1-8b --gpus 64")
