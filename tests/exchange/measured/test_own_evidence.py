"""Is what own runs say read back as it was written, and does it reach every question that is asked with it?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.evidence.own_calibration import OwnCalibration, own_calibration
from perfmodel.evidence.time_scores import compare_time
from perfmodel.exchange.measured.own_evidence import evidence_text, with_evidence
from perfmodel.exchange.presets import cluster_preset
from perfmodel.exchange.questions.plan_arguments import read_plan_request
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.evidence.own_runs import OwnShift
from tests.evidence.test_groups import RAMP, row

FASTER = 0.9  # of the predicted time, what the run took


def calibration() -> OwnCalibration:
    """What one run of the ramp's first stage says, which took a tenth less than predicted."""
    compared = compare_time(
        replace(row(replace(RAMP, stages=RAMP.stages[:1])).measured, run=replace(RAMP, stages=RAMP.stages[:1]))
    )
    measured = replace(compared.measured, iteration_time_s=FASTER * (compared.predicted_s or 0.0))
    return own_calibration([replace(compared, measured=measured)])


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of evidence of that run."""
    path = tmp_path / "mine.yaml"
    path.write_text(evidence_text(calibration(), table="runs.csv", day="2026-11-29", version="1.2"))
    return path


def seconds(mapping: str | dict[str, object], *settings: tuple[str, object]) -> float:
    """The iteration time of the first ramp stage."""
    candidate = read_candidates(mapping, settings)[0]
    return float(api.predict(candidate.run).stages[0][1].iteration_time_s)


def test_what_is_written_is_read_back(mine: Path) -> None:
    """To six digits; beside what published runs say, with the table, the day and the version."""
    evidence = replace(
        RAMP, cluster=read_candidates("nemotron-4-15b", with_evidence((), str(mine)))[0].run.cluster
    ).cluster.evidence
    found = calibration()
    assert evidence.cells == cluster_preset("dgx-h100").evidence.cells
    assert evidence.version == "1.2"
    assert [each.settings for each in evidence.own_shifts] == [each.settings for each in found.shifts]
    assert [each.shift for each in evidence.own_shifts] == pytest.approx([each.shift for each in found.shifts], abs=1e-6)
    assert [each.weight for each in evidence.own_runs] == pytest.approx([each.weight for each in found.runs], abs=1e-6)
    source = yaml.safe_load(mine.read_text())["source"]
    assert source == "1 row of runs.csv, against predictions of perfmodel 1.2 on 2026-11-29"


def test_a_cluster_may_name_it_in_its_own_folder(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run file and a cluster file, read from anywhere, shift as --evidence does."""
    monkeypatch.chdir("/")
    (tmp_path / "cluster.yaml").write_text("extends: dgx-h100\nevidence: mine.yaml\n")
    text = Path(__file__).parents[3].joinpath("perfmodel/data/runs/nemotron-4-15b.yaml").read_text()
    for place, cluster in enumerate(("{extends: dgx-h100, evidence: mine.yaml}", "cluster.yaml")):
        (tmp_path / f"{place}.yaml").write_text(text.replace("cluster: dgx-h100", f"cluster: {cluster}"))
    expected_s = seconds("nemotron-4-15b", ("cluster.evidence", str(mine)))
    assert expected_s == pytest.approx(seconds("nemotron-4-15b") * np.exp(calibration().shifts[-1].shift))
    assert expected_s < 0.95 * seconds("nemotron-4-15b")
    for place in (0, 1):
        assert seconds(str(tmp_path / f"{place}.yaml")) == expected_s


def test_evidence_is_not_another_run(mine: Path) -> None:
    """Published figures stay beside it, and no number of the cluster is taken for a slip."""
    plain, shifted = (read_candidates("nemotron-4-15b", with_evidence((), name))[0] for name in (None, str(mine)))
    assert shifted.run.stages == plain.run.stages
    assert shifted.run.stages[0].published
    assert shifted.assumptions == plain.assumptions


def test_a_scenario_on_another_cluster_keeps_the_evidence(mine: Path) -> None:
    """What all of somebody's runs share is known of other GPUs too; each result says whose runs shift it."""
    compared = api.whatif("nemotron-4-15b", {"H200": {"cluster": "dgx-h200"}}, evidence=str(mine))
    groups = [each.stage(0).work.setup.own_shift.group for each in (compared.before, *compared.scenarios)]
    assert [each and each.kin for each in groups] == ["of this configuration", "of other software or GPUs"]
    assert compared.scenarios[0].settings == ("cluster=dgx-h200",)
    assert any("Runs of runs.csv" in sentence for sentence in compared.taken)


def test_a_what_if_names_the_shift_of_the_run_before(mine: Path) -> None:
    """That of the ramp stage that is shown, which is the one between times with and without the evidence."""
    scenario = {"more": {"micro_batch_size": 2}}
    without, compared = (api.whatif("nemotron-4-15b", scenario, stage=1, evidence=each) for each in (None, str(mine)))
    ratio = compared.before.stage(0).iteration_time_s / without.before.stage(0).iteration_time_s
    change = f"{100 * (ratio - 1):+.1f} %"
    said = f"Runs of runs.csv shift the time of the run before by {change}, and each scenario by what they say of it"
    assert compared.taken == (said,)


def test_evidence_that_gives_way_is_named(mine: Path, tmp_path: Path) -> None:
    """By a prediction, a what-if, a sweep and a plan; not where a cluster has that of published runs, or the same."""
    other = tmp_path / "other.yaml"
    other.write_text(mine.read_text().replace("Runs of runs.csv", "Runs of old.csv"))
    cluster = {"extends": "dgx-h100", "evidence": str(other)}
    text = Path(__file__).parents[3].joinpath("perfmodel/data/runs/nemotron-4-15b.yaml").read_text()
    run = {**yaml.safe_load(text), "cluster": cluster}
    said = f"{mine} is taken in place of Runs of old.csv, the evidence that the cluster of the run names"
    assert said in read_candidates(run, with_evidence((), str(mine)))[0].assumptions
    assert said in api.whatif(run, {"more": {"micro_batch_size": 2}}, evidence=str(mine)).taken
    assert said in api.sweep(run, {"micro_batch_size": [1]}, evidence=str(mine)).taken
    request = read_plan_request("nemotron-4-15b", cluster=cluster, gpus=8, evidence=str(mine))
    assert said in request.question.assumptions
    assert not read_candidates(run, with_evidence((), str(other)))[0].replaced
    assert not read_candidates("nemotron-4-15b", with_evidence((), str(mine)))[0].replaced


@pytest.mark.parametrize("cluster", ["dgx-h100", {"extends": "dgx-h100"}, cluster_preset("dgx-h100")])
def test_a_plan_takes_it_with_any_cluster(mine: Path, cluster: object) -> None:
    """Whichever way the cluster is given, the search is of shifted times, and the plan says so."""
    choose = {
        "recompute": "none",
        "tensor_parallel": 8,
        "pipeline_parallel": 1,
        "context_parallel": 1,
        "micro_batch_size": [1, 2],
    }
    wanted = {"cluster": cluster, "gpus": 16, "global_batch_size": 16, "sequence_length": 4096, "choose": choose}
    before, after = (api.plan("nemotron-4-15b", workers=1, **wanted, **more) for more in ({}, {"evidence": str(mine)}))  # type: ignore[arg-type]
    assert before.best is not None
    assert after.best is not None
    assert after.best.iteration_time_s < 0.99 * before.best.iteration_time_s
    assert any("Runs of runs.csv" in sentence for sentence in after.question.assumptions)


@pytest.mark.parametrize(
    ("name", "sentence"), [("runs.csv", "--from-runs runs.csv -o mine.yaml"), ("publisht", "--from-runs runs.csv")]
)
def test_a_table_is_no_evidence(name: str, sentence: str) -> None:
    """The sentence says what makes one of it."""
    with pytest.raises(InputError, match=sentence):
        with_evidence((), name)


def test_of_several_clusters_one_has_to_be_chosen(mine: Path) -> None:
    """Whose evidence it would be, nobody knows; a cluster that is set before it decides."""
    run = yaml.safe_load(Path(__file__).parents[3].joinpath("perfmodel/data/runs/nemotron-4-15b.yaml").read_text())
    several = {**run, "cluster": ["dgx-h100", "dgx-h200"]}
    with pytest.raises(InputError, match="choose one, as in --set cluster=dgx-h100"):
        read_candidates(several, with_evidence((), str(mine)))
    (chosen,) = read_candidates(several, with_evidence(["cluster=dgx-h200"], str(mine)))
    assert chosen.run.cluster.evidence.own_shifts


def test_settings_of_a_group_are_one_text() -> None:
    """A list in a run file would be candidates."""
    shift = OwnShift(settings=("layers=2", "precision=bf16"), runs=1, kin="mine", shift=0.0, remaining=1.0)
    text = evidence_text(replace(calibration(), shifts=(shift,)), table="t", day="d", version="v")
    assert yaml.safe_load(text)["own_shifts"][0]["settings"] == "layers=2 precision=bf16"
