"""Is what a command is asked about a run, whichever way it is named, with the parts that are given beside it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.questions.asked_runs import asked_run, is_model
from perfmodel.exchange.questions.plan_arguments import planned_source
from perfmodel.exchange.run_files import read_candidates
from tests.exchange.importers.scripts import LLAMA


def test_a_run_without_anything_beside_it_stays_as_it_is_named() -> None:
    """A preset run is one, though a model has its name."""
    assert asked_run("nemotron-4-15b") == "nemotron-4-15b"
    assert not is_model("nemotron-4-15b")
    assert is_model("llama-3.1-8b")


def test_hardware_beside_a_run_takes_the_place_of_its_own() -> None:
    """Every stage then has these GPUs, and figures of the paper are no longer of it."""
    run = api.load(asked_run("nemotron-4-15b", cluster="dgx-h200", gpus="768", tokens="9T"))
    assert run.cluster.name == "DGX H200"
    assert [int(run.layout(stage).gpus) for stage in run.stages] == [768, 768, 768]
    assert [float(stage.tokens or 0) for stage in run.stages] == [200e9, 200e9, 8600e9]
    assert not any(stage.published for stage in run.stages)


def test_a_model_becomes_a_run_in_its_fastest_layout() -> None:
    """As plan finds it, and everything that was chosen is said."""
    asked = asked_run("llama-3.1-8b", cluster="dgx-h100", gpus="16", tokens="1T")
    run = api.load(asked)
    best = api.plan("llama-3.1-8b", cluster="dgx-h100", gpus=16, tokens="1T").best
    assert best is not None
    assert float(api.predict(asked).stages[0][1].iteration_time_s) == pytest.approx(best.iteration_time_s)
    assert int(run.layout(run.stages[0]).gpus) == 16
    assert isinstance(asked, dict)
    assert any("fastest that fits" in each for each in asked["assumptions"])
    assert float(run.stages[0].tokens or 0) == 1e12


def test_settings_beside_a_model_are_what_its_layout_is_searched_with() -> None:
    """The GPUs stay as they were asked for, and no other layout of these degrees and this length is faster."""
    settings = ["tensor_parallel=4", "pipeline_parallel=2", "sequence_length=8192", "stages[*].global_batch_size=64"]
    asked = asked_run("llama-3.1-8b", cluster="dgx-h100", gpus="16", settings=settings)
    run = api.load(asked, settings)
    best = api.plan(
        "llama-3.1-8b",
        cluster="dgx-h100",
        gpus=16,
        sequence_length=8192,
        global_batch_size=64,
        choose={"tensor_parallel": 4, "pipeline_parallel": 2},
    ).best
    assert best is not None
    assert int(run.layout(run.stages[0]).gpus) == 16
    assert float(api.predict(asked, settings).stages[0][1].iteration_time_s) == pytest.approx(best.iteration_time_s)
    assert isinstance(asked, dict)
    assert not any("sequence length" in each or "global batch" in each for each in asked["assumptions"])


def test_settings_that_fit_nowhere_keep_the_gpus_too() -> None:
    """Degrees that do not divide them are refused."""
    settings = ["tensor_parallel=2", "recompute=none"]
    run = api.load(asked_run("llama-3.1-405b", cluster="dgx-h100", gpus="8", settings=settings), settings)
    assert (int(run.tensor_parallel), int(run.layout(run.stages[0]).gpus), run.recompute) == (2, 8, "none")
    with pytest.raises(InputError, match="gpus: 8 GPUs are no multiple of tensor_parallel 3"):
        asked_run("llama-3.1-405b", cluster="dgx-h100", gpus="8", settings=["tensor_parallel=3"])


def test_replicas_of_a_model_alone_follow_from_its_gpus() -> None:
    """Whoever gives both could mean either."""
    with pytest.raises(InputError, match=r"stages\[\*\]\.data_parallel: of a model alone it follows from --gpus"):
        asked_run("llama-3.1-8b", gpus="64", settings=["stages[*].data_parallel=16"])


def test_factors_and_candidates_change_the_layout_that_is_found() -> None:
    """They are about a value that stands there."""
    changes = ["micro_batch_size=x2", "tensor_parallel=[1, 2]"]
    assert asked_run("llama-3.1-8b", gpus="8", settings=changes) == asked_run("llama-3.1-8b", gpus="8")


def test_the_load_of_experts_is_said_once() -> None:
    """By the run, which says so itself, and not in the words of a plan as well."""
    asked = asked_run("mixtral-8x7b", cluster="dgx-h100", gpus="64")
    assert len([each for each in read_candidates(asked)[0].assumptions if "expert_load" in each]) == 1


def test_a_model_alone_takes_one_node_of_the_usual_cluster() -> None:
    """Both are said."""
    asked = asked_run(model="llama-3.1-8b")
    assert isinstance(asked, dict)
    assert asked["cluster"] == "dgx-h100"
    assert {"no cluster is given: dgx-h100 is assumed", "no number of GPUs is given: one node of 8 is assumed"} <= {
        *asked["assumptions"]
    }


def test_a_model_that_fits_nowhere_is_shown_with_what_it_lacks() -> None:
    """Its run exists, and does not fit."""
    assert not api.predict(asked_run("llama-3.1-405b", cluster="dgx-h100", gpus="8")).may_fit


def test_a_script_with_hardware_beside_it_is_a_run(tmp_path: Path) -> None:
    """Its own GPUs give way."""
    path = tmp_path / "train.sh"
    path.write_text(LLAMA.replace("EXTRA", ""))
    run = api.load(asked_run(str(path), cluster="dgx-h100", gpus=64))
    assert int(run.stages[0].data_parallel) == 32


def test_a_plan_takes_a_script(tmp_path: Path) -> None:
    """Its model, its batch and its tokens, on the GPUs that are asked for."""
    path = tmp_path / "train.sh"
    path.write_text(LLAMA.replace("EXTRA", ""))
    found = api.plan(str(path), cluster="dgx-h100", gpus=16, choose={"recompute": "none", "precision": "bf16"})
    assert found.best is not None
    assert (found.best.gpus, found.question.stages[0].global_batch_size) == (16, 128)


def test_too_few_tokens_for_a_ramp_are_refused() -> None:
    """All but the last stage keep theirs."""
    with pytest.raises(InputError, match="tokens: 1e\\+09 are not more than the 4e\\+11 of all stages but the last"):
        asked_run("nemotron-4-15b", tokens="1B")


def test_what_a_script_does_not_say_is_asked_for(tmp_path: Path) -> None:
    """With the option that gives it."""
    path = tmp_path / "train.sh"
    path.write_text(LLAMA.replace("EXTRA", "").replace("torchrun ${DISTRIBUTED_ARGS[@]}", "python"))
    with pytest.raises(InputError, match=r"cluster: missing; give one, as in --cluster dgx-h100"):
        api.load(asked_run(str(path), gpus=64))
    path.write_text(path.read_text().replace("#SBATCH", "#"))
    with pytest.raises(
        InputError, match=r"stages\[0\]\.data_parallel: missing; give it, or the GPUs of the run, as in --gpus 64"
    ):
        api.load(asked_run(str(path), cluster="dgx-h100"))


def test_a_repository_that_is_known_is_a_model() -> None:
    """A preset by another name, or one whose dimensions are in a table."""
    assert asked_run("meta-llama/Llama-3.1-8B-Instruct", gpus="8") == asked_run("llama-3.1-8b", gpus="8")
    assert api.load(asked_run("qwen/qwen2.5-7b", gpus="8")).model.layers == 28
    assert planned_source("meta-llama/Llama-3.1-8B", model=None, cluster=None, gpus=None) == "llama-3.1-8b"
    beside = asked_run("nemotron-4-15b", model="meta-llama/Llama-3.1-8B")
    assert api.load(beside).model.name == "Llama 3.1 8B"


def test_a_misspelt_model_is_told_its_name() -> None:
    """As a misspelt run is."""
    with pytest.raises(InputError, match=r"neither a run file nor a preset run or model; did you mean llama-3\.1-8b"):
        asked_run("llama-3.1-8x", gpus="8")


def test_nothing_at_all_is_refused() -> None:
    """With what would be something."""
    with pytest.raises(InputError, match="neither a run file, a preset run nor a model"):
        asked_run()
    with pytest.raises(InputError, match="is a model itself"):
        asked_run("llama-3.1-8b", model="llama-3.1-70b")
