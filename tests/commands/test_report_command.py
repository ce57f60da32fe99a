"""Does `perfmodel report` write what was asked for, say what it wrote, and refuse the rest in one sentence?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfmodel.report.figures.drawing import style
from perfmodel.report.html import pages
from perfmodel.report.html.document import Page
from tests.evidence.step_examples import SETTINGS, as_predicted, small_prediction
from tests.report.html.parsed_pages import ParsedPage

RUN = """
name: Two GPUs
model: llama-3.1-8b
cluster: dgx-h100
stack: megatron-core
tensor_parallel: 2
sharding: zero1
sequence_parallel: true
micro_batch_size: 1
sequence_length: 4096
stages: [{data_parallel: 4, global_batch_size: 8}]
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(RUN)
    return tmp_path


@pytest.fixture(scope="module")
def drawn() -> dict[str, Page]:
    """The pages of single runs that were drawn so far, by all that was asked of them but the command in their footer."""
    return {}


@pytest.fixture(autouse=True)
def pages_are_drawn_once(monkeypatch: pytest.MonkeyPatch, drawn: dict[str, Page]) -> None:
    """A page takes seconds, and several tests only look at where it goes."""
    draw = pages.run_page

    def remembered(source: Any, settings: Any = (), **asked: Any) -> Page:
        key = repr((source, settings, asked.get("records"), asked.get("stage")))
        if key not in drawn:
            drawn[key] = draw(source, settings, **asked)
        return drawn[key]

    monkeypatch.setattr(pages, "run_page", remembered)


@pytest.mark.slow
def test_a_page_is_written_whole_and_said(run: Any, here: Path) -> None:
    """report.html where nothing else is asked for; nothing on stdout; the command that makes it again at its end."""
    done = run("report", "run.yaml", "--set", "recompute=full")
    assert (done.code, done.out, done.err) == (0, "", "wrote report.html\n")
    parsed = ParsedPage((here / "report.html").read_text(encoding="utf-8"))
    assert parsed.faults == []
    assert parsed.said("footer").endswith("perfmodel report run.yaml --set recompute=full")
    assert [each.name for each in here.iterdir() if each.name != "run.yaml"] == ["report.html"]


@pytest.mark.slow
def test_a_folder_has_each_figure_as_png_and_svg(run: Any, here: Path) -> None:
    """Made where it is not there; each file is said."""
    done = run("report", "run.yaml", "-o", "new/folder/")
    folder = here / "new" / "folder"
    figures = {"ramp", "peak-1", "iteration", "memory", "operators-1", "scaling", "layouts-1", "levers-1", "cost", "provenance"}
    names = {f"{name}.{kind}" for name in figures for kind in ("png", "svg")}
    assert {each.name for each in folder.iterdir()} == {"report.html", *names}
    assert {line.removeprefix("wrote new/folder/") for line in done.err.splitlines()} == {"report.html", *names}
    assert (folder / "ramp.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "ramp.svg").read_text(encoding="utf-8")


def test_a_folder_that_is_there_needs_no_slash(run: Any, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot be a file; what is in the files of figures is looked at above."""
    monkeypatch.setattr(style, "picture", lambda *_: b"")
    (here / "out").mkdir()
    run("report", "run.yaml", "-o", "out")
    assert (here / "out" / "report.html").is_file()
    assert (here / "out" / "iteration.svg").is_file()


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_written_and_exits_with_1(run: Any, here: Path) -> None:
    """The page says why."""
    done = run("report", "run.yaml", "--set", "tensor_parallel=1", "--set", "micro_batch_size=2")
    assert (done.code, done.err) == (1, "wrote report.html\n")
    assert "Does not fit in memory: needs " in ParsedPage((here / "report.html").read_text(encoding="utf-8")).said("header")


@pytest.mark.slow
def test_scenarios_are_compared(run: Any, here: Path) -> None:
    """One that does not fit is a no."""
    scenario = "TP 1: tensor_parallel=1, micro_batch_size=2"
    done = run("report", "run.yaml", "--scenario", "H200: cluster=dgx-h200", "--scenario", scenario, "-o", "both.html")
    assert (done.code, done.err) == (1, "wrote both.html\n")
    said = ParsedPage((here / "both.html").read_text(encoding="utf-8")).said("header")
    assert "A H200:" in said
    assert "B does not fit in memory" in said


@pytest.mark.slow
def test_runs_are_compared(run: Any, here: Path) -> None:
    """Each with the first."""
    assert run("report", "run.yaml", "laptop", "-o", "both.html").code == 0
    assert "2 runs beside each other" in ParsedPage((here / "both.html").read_text(encoding="utf-8")).said("header")


@pytest.mark.slow
def test_a_record_stands_beside_the_prediction(run: Any, here: Path) -> None:
    """As `perfmodel measure` writes it."""
    (here / "record.json").write_text(json.dumps(as_predicted(small_prediction()).document(), default=str))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    run("report", "nemotron-4-15b", *settings, "--record", "record.json")
    assert "predicted and measured" in ParsedPage((here / "report.html").read_text(encoding="utf-8")).said("measured")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["run.yaml", "-o", "report.pdf"],
            2,
            "--output 'report.pdf' is not an .html file; name one, or a folder ending in /",
        ),
        (["run.yaml", "-o", ""], 2, "--output '' is not an .html file"),
        (["run.yaml", "-o", 300 * "a"], 2, "--output 'aaa"),
        (["run.yaml", "-o", 300 * "a" + ".html"], 2, "aaa"),
        (["run.yaml", "-o", "no/such/place.html"], 2, "no/such/place.html cannot be written"),
        (["run.yaml", "-o", "run.yaml/below/"], 2, "run.yaml/below cannot be made: not a directory"),
        (["run.yml"], 2, "run.yml cannot be read"),
        (["nemotron-4-15x"], 2, "'nemotron-4-15x' is neither a run file nor a preset run; did you mean"),
        (["run.yaml", "--set", "tensor_paralel=4"], 2, "tensor_paralel: unknown key; did you mean tensor_parallel?"),
        (["run.yaml", "--stage", "2"], 2, "stage: Two GPUs has no stage 2: its stages are 1 to 1"),
        (["run.yaml", "--record", "run.yaml"], 2, "this is not the record of a training_step"),
        (
            ["run.yaml", "--same-gpus"],
            2,
            "--same-gpus needs a --scenario",
        ),
        (["run.yaml", "laptop", "--scenario", "precision=fp8"], 2, "--scenario compares one run with itself; name one run"),
        (
            ["run.yaml", "--scenario", "precision=fp8", "--record", "a.json"],
            2,
            "--record is compared with one unchanged run",
        ),
        (["run.yaml", "--scenario", "H200"], 2, "'H200' is not a scenario"),
        (["run.yaml", "--set", "cluster=dgx-a100", "--set", "precision=fp8"], 3, "precision: A100 SXM 80GB has no fp8 rate"),
    ],
)
def test_what_cannot_be_gets_one_sentence(run: Any, here: Path, arguments: list[str], code: int, sentence: str) -> None:
    """On stderr, with its exit code, and nothing is written."""
    done = run("report", *arguments)
    assert done.is_refused(code, f"perfmodel: {sentence}"), done
    assert [each.name for each in here.iterdir()] == ["run.yaml"]


@pytest.mark.processes
def test_without_matplotlib_one_sentence_says_what_to_install(here: Path) -> None:
    """Nothing else of the program needs it."""
    script = "import sys; sys.modules['matplotlib'] = None; from perfmodel.commands import app\n"
    script += "sys.argv[1:] = ['report', 'run.yaml']; app.main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "perfmodel: a report needs matplotlib; pip install 'perfmodel[report]' brings it\n"


def test_the_help_has_an_example_of_each_kind(run: Any) -> None:
    """One run, a folder, scenarios, several runs, a record."""
    text = " ".join(run("report", "--help").out.split())
    for example in ("-o report/", '--scenario "H200: cluster=dgx-h200"', "a.yaml b.yaml", "--record record.json"):
        assert example in text
