"""Does `import perfmodel as pm` answer as the command line does, and does the page that shows it tell the truth?"""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from typing import Any, cast

import pytest

import perfmodel as pm
from perfmodel.frames import Tabular

PAGE = Path(__file__).parents[1] / "docs" / "api.md"
PRESET = "nemotron-4-15b"
CLOSE = 0.05  # numbers move a little with every better fit; the page is wrong when they move more
TOKEN = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|[^\s\d]+")


def blocks(text: str) -> list[tuple[str, str]]:
    """The code of a page, each piece with what it prints ("" where the page does not say)."""
    found = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", text, flags=re.DOTALL)
    return [(code, printed) for code, printed in found]


def assert_alike(found: str, shown: str) -> None:
    """The same words, and numbers that are close."""
    for one, other in zip_longest(TOKEN.findall(found), TOKEN.findall(shown)):
        if one is not None and other is not None and one[0].isdigit() and other[0].isdigit():
            value, expected = (float(number.replace(",", "")) for number in (one, other))
            assert value == pytest.approx(expected, rel=CLOSE, abs=0.011), f"the page shows:\n{shown}\nit prints:\n{found}"
        else:
            assert one == other, f"the page shows:\n{shown}\nit prints:\n{found}"


@pytest.mark.slow
def test_the_page_prints_what_it_shows() -> None:
    """All its blocks, one after the other, as in a notebook."""
    pieces, names = blocks(PAGE.read_text()), {"__name__": "page"}
    assert len(pieces) >= 8
    for code, shown in pieces:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page is ours
        assert_alike(printed.getvalue(), shown)


@pytest.mark.processes
def test_importing_it_loads_nothing() -> None:
    """Neither NumPy nor YAML until a function is asked for; pandas not until a frame is."""
    script = "import sys, perfmodel as pm; print([name for name in ('numpy', 'yaml') if name in sys.modules])\n"
    script += "pm.predict('laptop'); print([name for name in ('pandas', 'rich', 'torch', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_every_name_that_it_offers_is_there() -> None:
    """And no other."""
    assert set(pm.__all__) <= set(dir(pm))
    for name in pm.__all__:
        assert getattr(pm, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        _ = pm.predikt  # type: ignore[attr-defined]


def test_a_run_may_come_as_a_name_a_file_a_mapping_or_itself(tmp_path: Path) -> None:
    """The same prediction each time."""
    mapping = {"model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 8192}
    mapping |= {"stages": [{"data_parallel": 8, "global_batch_size": 64}]}
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{model: llama-3.1-8b, cluster: dgx-h100, stack: megatron-core, sequence_length: 8192,"
        " stages: [{data_parallel: 8, global_batch_size: 64}]}"
    )
    sources: list[Any] = [mapping, str(path), pm.load(mapping)]
    rows = [pm.predict(source, {"tensor_parallel": 2}).rows() for source in sources]
    assert [{**row[0], "run": ""} for row in rows] == [{**rows[0][0], "run": ""}] * 3


def test_settings_may_be_texts_or_pairs() -> None:
    """As --set has them, or as Python does."""
    texts = ["tensor_parallel=4", "cluster=dgx-h200", "stages[*].global_batch_size=x2"]
    pairs = {"tensor_parallel": 4, "cluster": "dgx-h200", "stages[*].global_batch_size": "x2"}
    assert pm.load(PRESET, texts) == pm.load(PRESET, pairs)


def test_results_are_tables() -> None:
    """Each kind has rows and a data frame of the same columns, with plain values."""
    results: list[Tabular] = [
        pm.predict(PRESET),
        pm.whatif(PRESET, {"TP 4": {"tensor_parallel": 4}}),
        pm.sweep(PRESET, {"tensor_parallel": [3, 4]}),
        pm.explain(PRESET),
        pm.diagnose(PRESET, 0.9),
    ]
    for result in results:
        rows = result.rows()
        assert result.to_pandas().columns.tolist() == list(rows[0])
        assert all(isinstance(value, str | int | float | bool | None) for row in rows for value in row.values())


def test_a_prediction_has_a_row_a_stage() -> None:
    """With what the stage is, how long it takes, and parts that sum."""
    frame = pm.predict(PRESET).to_pandas()
    assert frame["stage"].tolist() == [1, 2, 3]
    assert frame["gpus"].tolist() == [768, 1536, 2304]
    assert frame["days"].sum() == pytest.approx(pm.predict(PRESET).total_days, rel=1e-12)
    parts = [str(name) for name in frame if str(name).endswith("_bytes") and name not in {"memory_bytes", "headroom_bytes"}]
    assert frame[parts].sum(axis=1).tolist() == pytest.approx(frame["memory_bytes"].tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda: pm.predict("nemotron"), "'nemotron' is neither a run file nor a preset run"),
        (lambda: pm.predict(cast("str", 3)), "run: 3 is not a run; give the name of a preset"),
        (lambda: pm.sweep(cast("str", None)), "run: nothing is not a run"),
        (lambda: pm.sweep([]), "run: no run is given"),
        (lambda: pm.explain(cast("str", 3.5)), "run: 3.5 is not a run"),
        (lambda: pm.report([PRESET, PRESET], scenarios={"A": {}}), "scenarios compare one run with itself"),
        (lambda: pm.whatif(PRESET, {}), "no scenario is given"),
        (lambda: pm.whatif(PRESET, {"A": {"tp": 4}}), "tp: unknown key; did you mean tensor_parallel?"),
        (lambda: pm.sweep(PRESET), "nothing is varied"),
        (
            lambda: pm.diagnose(PRESET, 0.9, stage=cast("int", "1")),
            "stage: '1' is not the number of a stage: those of Nemotron-4 15B are 1 to 3",
        ),
        (lambda: pm.diagnose(PRESET, 0.9, stage=True), "stage: true is not the number of a stage"),
        (lambda: pm.diagnose(PRESET, "fast"), "measured: 'fast' is not a measured speed; write it like 200tokens/s/gpu"),
        (lambda: pm.sweep(PRESET, {"tensor_parallel": []}), "tensor_parallel: no values to sweep"),
        (
            lambda: pm.sweep([PRESET, PRESET], {"tensor_parallel": [1], "precision": ["fp8"]}),
            "3 axes are given; a sweep has one or two",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence(ask: Any, sentence: str) -> None:
    """An InputError, as the command line prints it."""
    with pytest.raises(pm.InputError, match=re.escape(sentence)):
        ask()


def test_a_path_is_the_file_that_it_names(tmp_path: Path) -> None:
    """A pathlib.Path does what its text does."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        "{model: llama-3.1-8b, cluster: dgx-h100, stack: torchtitan, sharding: zero3, sequence_length: 8192,"
        " stages: [{data_parallel: 8, global_batch_size: 64}]}"
    )
    assert pm.predict(path).rows() == pm.predict(str(path)).rows()
    assert pm.explain(path).source("cluster.gpu.memory_bytes") != ""


def test_validate_scores_a_table_as_the_command_does(tmp_path: Path) -> None:
    """Rows with their predictions, and the scores of all."""
    shipped = (Path(pm.__file__).parent / "data" / "published_runs.csv").read_text().splitlines()
    table = tmp_path / "mine.csv"
    table.write_text("\n".join(shipped[:8]) + "\n")
    scores = pm.validate(table)
    assert isinstance(scores, pm.TimeScores)
    frame = scores.to_pandas()
    assert len(frame) == 7
    assert (frame["predicted_s"] / frame["measured_s"] - 1).tolist() == pytest.approx(frame["relative_error"].tolist())
    assert "median error" in repr(scores)


def test_compare_recognises_a_log_by_its_content(tmp_path: Path) -> None:
    """Its steady steps beside the prediction."""
    log = tmp_path / "train.log"
    log.write_text(
        "\n".join(
            f" iteration {step:8d}/ 100 | elapsed time per iteration (ms): {600 + step % 3}.0 | global batch size: 1152 |"
            for step in range(1, 40)
        )
    )
    found = pm.compare(PRESET, log)
    assert isinstance(found, pm.LogComparison)
    assert found.stage == 3
    assert found.measured_s == pytest.approx(0.601, rel=0.01)
    assert found.rows()[0]["relative_error"] == found.relative_error


def test_compare_has_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of its result, also into a file by its ending."""
    from perfmodel.commands import app

    log = tmp_path / "train.log"
    steps = (
        f" iteration {step:8d}/ 100 | elapsed time per iteration (ms): 600.0 | global batch size: 1152 |"
        for step in range(1, 40)
    )
    log.write_text("\n".join(steps))
    monkeypatch.setattr(sys, "argv", ["perfmodel", "compare", PRESET, str(log), "--csv"])
    with pytest.raises(SystemExit) as stopped:
        app.main()
    assert stopped.value.code == 0
    head, row = capsys.readouterr().out.splitlines()
    assert dict(zip(head.split(","), row.split(","), strict=True))["measured_s"] == "0.6"


@pytest.mark.processes
def test_report_is_a_function_of_the_api_though_a_room_has_its_name() -> None:
    """Before the room was loaded, and after; with a page that has figures and can be saved."""
    script = """
import perfmodel as pm
page = pm.report("laptop")
import perfmodel.report.text.terminal
assert type(pm.report("laptop")) is pm.Page
print(page.fits, "memory" in page.figures, page.html.lower().startswith("<!doctype html>"), len(repr(page)) < 200)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 4
