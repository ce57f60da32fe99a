"""Does the command line answer, refuse and exit as DESIGN.md, section 6 says?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

RAMP = ["predict", "nemotron-4-15b"]


def test_predict_json_has_the_keys_of_the_design(run: Any) -> None:
    """Per stage and over the run, SI units in the names."""
    document = json.loads(run(*RAMP, "--json").out)
    assert document["schema_version"] == 1
    assert set(document) >= {"name", "stages", "total_tokens", "total_days", "gpu_hours"}
    stage = document["stages"][0]
    names = "data_parallel gpus global_batch_size iteration_time_s iteration_time_interval_s uncertainty mfu hfu"
    names += " mfu_peak_flop_per_s"
    names += " model_flop_per_token"
    names += " tokens_per_s tokens_per_s_per_gpu tokens days memory breakdown_s assumptions"
    assert set(stage) >= set(names.split())
    assert sum(stage["breakdown_s"].values()) == pytest.approx(stage["iteration_time_s"], rel=1e-12)
    parts = [value for name, value in stage["memory"].items() if name not in {"total_bytes", "fits", "headroom_bytes"}]
    assert sum(parts) == pytest.approx(stage["memory"]["total_bytes"], rel=1e-12)
    low, high = stage["iteration_time_interval_s"]
    ratios = [low / stage["iteration_time_s"], high / stage["iteration_time_s"]]
    assert [end / stage["days"] for end in stage["days_interval"]] == pytest.approx(ratios, rel=1e-12)
    totals = [sum(each["days_interval"][end] for each in document["stages"]) for end in (0, 1)]
    assert document["total_days_interval"] == pytest.approx(totals, rel=1e-12)
    assert stage["published"] == {"iteration_time_s": 0.57, "mfu": pytest.approx(0.343), "days": 0.8}


@pytest.mark.parametrize("columns", [80, 120])
def test_predict_prints_tables_that_fit_the_width(run: Any, columns: int) -> None:
    """Nothing wraps into the next line, and nothing but ASCII goes into a pipe."""
    done = run(*RAMP, columns=columns)
    assert done.code == 0
    assert done.err == ""
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns
    assert any(line.split()[:3] == ["96", "768", "384"] for line in done.out.splitlines())


def test_candidates_are_shown_with_their_envelope(run: Any) -> None:
    """The first is the answer; the others and their range stand beside it."""
    document = json.loads(run(*RAMP, "--set", "micro_batch_size=[1,2,4]", "--json").out)
    times = [candidate["stages"][0]["iteration_time_s"] for candidate in document["candidates"]]
    assert [candidate["values"] for candidate in document["candidates"]] == [{"micro_batch_size": size} for size in (1, 2, 4)]
    assert document["stages"][0]["iteration_time_s"] == times[0]
    assert document["envelope"][0]["iteration_time_s"] == [min(times), max(times)]
    table = run(*RAMP, "--set", "micro_batch_size=[1,2,4]").out
    assert f"{min(times):.3f}-{max(times):.3f}" in table


def test_a_run_that_does_not_fit_is_said_first_and_exits_with_1(run: Any) -> None:
    """The numbers are still shown."""
    done = run(*RAMP, "--set", "tensor_parallel=1", "--set", "micro_batch_size=4")
    assert done.code == 1
    assert done.out.startswith("Nemotron-4 15B: does not fit in memory, needs ")
    assert json.loads(run(*RAMP, "--set", "tensor_parallel=1", "--json").out)["fits"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["predict", "nemotron-4-15x"], 2, "perfmodel: 'nemotron-4-15x' is neither a run file nor a preset run; did you mean"),
        (["predict", "."], 2, "perfmodel: . is a directory; name a file in it"),
        (["predict", "none.yaml"], 2, "perfmodel: none.yaml cannot be read: no such file or directory"),
        (["predict", ""], 2, "perfmodel: nothing is named, neither a run file"),
        ([*RAMP, "--set", "tensor_paralel=2"], 2, "perfmodel: tensor_paralel: unknown key; did you mean tensor_parallel?"),
        ([*RAMP, "--set", "cluster=dgx-a100", "--set", "precision=fp8"], 3, "perfmodel: precision: A100 SXM 80GB has no fp8"),
        ([*RAMP, "-o", "no/such/place.json"], 2, "perfmodel: no/such/place.json cannot be written: no such file or directory"),
        ([*RAMP, "-o", "."], 2, "perfmodel: . is a directory"),
        ([*RAMP, "-o", "/dev/full"], 4, "perfmodel: /dev/full cannot be written: no space left on device"),
        (["show", "h100"], 2, "perfmodel: 'h100' is not a preset; did you mean dgx-h100?"),
        (["list", "gpu"], 2, "perfmodel: 'gpu' is not a kind of preset; did you mean gpus?"),
        (["validate", "none.csv"], 2, "perfmodel: none.csv cannot be read"),
    ],
)
def test_wrong_input_gets_one_sentence_and_its_code(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], code: int, sentence: str
) -> None:
    """On stderr, with nothing on stdout and nothing written."""
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.is_refused(code, sentence), done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["predict"], ["predikt"], ["predict", "nemotron-4-15b", "--jsn"]])
def test_a_misuse_of_the_command_exits_with_2(run: Any, arguments: list[str]) -> None:
    """No traceback."""
    done = run(*arguments)
    assert done.code == 2
    assert "Traceback" not in done.err


def test_output_goes_to_a_file_whole(run: Any, tmp_path: Path) -> None:
    """JSON by extension or flag, text otherwise; only the file itself is left."""
    for name in ("out.json", "out.txt"):
        assert run(*RAMP, "--output", tmp_path / name).err.endswith(f"{name}\n")
    assert json.loads((tmp_path / "out.json").read_text())["name"] == "Nemotron-4 15B"
    assert "Nemotron-4 15B: " in (tmp_path / "out.txt").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.txt"]


def test_a_link_is_followed_and_permissions_stay(run: Any, tmp_path: Path) -> None:
    """What was there keeps its place."""
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    run(*RAMP, "--output", link)
    assert link.is_symlink()
    assert json.loads(target.read_text())["schema_version"] == 1
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_pipe_is_written_into_and_stays_a_pipe(run: Any, tmp_path: Path) -> None:
    """Nothing that is no regular file is replaced by one."""
    pipe, seen = tmp_path / "pipe.json", []
    os.mkfifo(pipe)
    reader = Thread(target=lambda: seen.append(pipe.read_text()))
    reader.start()
    run(*RAMP, "--output", pipe)
    reader.join(10)
    assert json.loads(seen[0])["schema_version"] == 1
    assert pipe.is_fifo()


@pytest.mark.processes
@pytest.mark.parametrize("stop", [BrokenPipeError(), None])
def test_a_reader_that_has_seen_enough_is_no_error(stop: BrokenPipeError | None) -> None:
    """`perfmodel predict .. | head -1` prints a line and no traceback."""
    command = [sys.executable, "-m", "perfmodel", *RAMP, "--json"]
    reader = ["head", "-1"] if stop is None else ["true"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]) as writer:
        subprocess.run(reader, stdin=writer.stdout, stdout=subprocess.DEVNULL, check=True)
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        assert writer.stderr.read() == b""
        assert writer.wait() == 0


def test_a_closed_output_is_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the command is started with `>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    done = run(*RAMP, "--json")
    assert done.code == 2
    assert done.err.startswith("perfmodel: standard output is closed")


def test_candidate_values_are_printed_as_they_were_given(run: Any) -> None:
    """400Gb/s must not become 400gb/s; those that do not fit say so."""
    rates = "cluster.links.network.bandwidth_bytes_per_s=[400Gb/s, 800Gb/s]"
    assert "400Gb/s" in run(*RAMP, "--set", rates).out
    lines = run(*RAMP, "--set", "tensor_parallel=[8,1]").out.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("tensor_parallel")] == ["yes", "no"]


def test_large_numbers_are_never_cut(run: Any) -> None:
    """12,288 GPUs and 1.97 million sequences in 80 columns, and on a terminal of 40."""
    overrides = [x for key in ("data_parallel=1536", "global_batch_size=1966080") for x in ("--set", f"stages.2.{key}")]
    for columns in (40, 80):
        out = run(*RAMP, *overrides, columns=columns).out
        assert "1,966,080" in out
        assert "12,288" in out


def test_communication_names_groups_bytes_and_links(run: Any) -> None:
    """Tensor parallelism on NVLink, data parallelism on InfiniBand."""
    calls = json.loads(run(*RAMP, "--json").out)["stages"][0]["communication"]
    links = {(call["group"], call["link"]) for call in calls}
    node, network = "NVLink 4 (H100)", "InfiniBand NDR 400G"
    assert links == {("tensor_parallel", node), ("data_parallel_shards", network), ("world", network)}
    gathers = [call for call in calls if call["name"] == "layer.mlp.fc1.gather" and call["phase"] == "forward"]
    assert [(call["calls"], call["payload_bytes"], call["ranks"]) for call in gathers] == [(32 * 4, 4096 * 6144 * 2, 8)]


def test_a_name_is_printed_as_it_is(run: Any) -> None:
    """Markup, emoji codes and letters of any language mean nothing special."""
    name = "[bold]a[/bold] :smile: \u96e8 {0}"
    done = run(*RAMP, "--set", f"name='{name}'")
    assert done.out.splitlines()[0].startswith(name)
    assert json.loads(run(*RAMP, "--set", f"name='{name}'", "--json").out)["name"] == name


def test_json_says_where_the_uncertainty_comes_from(run: Any) -> None:
    """Every uncertain number by its key path, then the discrepancy: half the width of each alone, its share of the variance."""
    for stage in json.loads(run(*RAMP, "--json").out)["stages"]:
        found = stage["uncertainty"]
        assert all(set(each) == {"number", "half_width_s", "share"} for each in found)
        shares = [each["share"] for each in found]
        assert shares == sorted(shares, reverse=True)
        discrepancy = stage["uncertainty_parts"]["discrepancy"]
        squares = [each["half_width_s"] ** 2 for each in (*found, discrepancy)]
        assert [*shares, discrepancy["share"]] == pytest.approx([square / sum(squares) for square in squares], rel=1e-9)
        low, high = stage["iteration_time_interval_s"]
        assert (high - low) / 2 == pytest.approx(sum(squares) ** 0.5, rel=0.1)  # but for how lopsided numbers are


def test_a_number_that_json_names_can_be_set(run: Any) -> None:
    """Its key path is that of --set: with no spread left it is gone, and the interval is narrower."""
    (first, *_) = json.loads(run(*RAMP, "--json").out)["stages"]
    largest = first["uncertainty"][0]["number"]
    owner, _, number = largest.rpartition(".")
    (surer, *_) = json.loads(run(*RAMP, "--set", f"{owner}.spread.{number}=0%", "--json").out)["stages"]
    assert largest not in {each["number"] for each in surer["uncertainty"]}
    assert surer["iteration_time_s"] == first["iteration_time_s"]
    assert first["iteration_time_interval_s"][1] > surer["iteration_time_interval_s"][1]


@pytest.mark.parametrize("precision", ["mxfp8", "nvfp4"])
def test_a_format_that_a_gpu_lacks_is_refused_with_those_that_it_has(run: Any, precision: str) -> None:
    """Exit code 3: nothing is priced as another."""
    result = run(*RAMP, "--set", f"precision={precision}")
    assert (result.code, result.out) == (3, "")
    assert f"no {precision} rate; it has bf16, fp16, fp8, tf32, fp32" in result.err


def test_the_peak_that_mfu_is_of_is_that_of_the_products(run: Any) -> None:
    """Printed where products have fewer than 16 bits, and in JSON always."""
    settings = ["--set", "cluster=gb300-nvl72", "--set"]
    for precision, rate in (("bf16", 2.5e15), ("fp8", 5e15), ("mxfp8", 5e15), ("nvfp4", 15e15)):
        stage = json.loads(run(*RAMP, *settings, f"precision={precision}", "--json").out)["stages"][0]
        tokens_per_s_per_gpu = stage["tokens_per_s"] / stage["gpus"]
        assert stage["mfu_peak_flop_per_s"] == rate
        assert stage["mfu"] == pytest.approx(tokens_per_s_per_gpu * stage["model_flop_per_token"] / rate)
    assert "Stages (MFU of 15,000 TFLOP/s, dense nvfp4)" in run(*RAMP, *settings, "precision=nvfp4").out
    assert "(MFU of" not in run(*RAMP).out


def test_operators_are_listed_on_demand(run: Any) -> None:
    """With -v alone: what each runs for, how often, how long, and how sure that is."""
    assert "operators" not in json.loads(run(*RAMP, "--json").out)["stages"][0]
    stage = json.loads(run(*RAMP, "-v", "--json").out)["stages"][0]
    operators = stage["operators"]
    assert all(set(each) == {"name", "phase", "repeats", "seconds", "confidence"} for each in operators)
    assert {each["confidence"] for each in operators} <= {"measured", "interpolated", "extrapolated", "datasheet"}
    assert {each["phase"] for each in operators} >= {"forward", "data_gradient", "weight_gradient"}
    names = {(each["name"], each["phase"]): each for each in operators}
    assert names["layer.mlp.fc1", "forward"]["repeats"] == 32 * 4
    alone_s = sum(each["repeats"] * each["seconds"] for each in operators)
    assert alone_s > stage["iteration_time_s"] - stage["breakdown_s"]["optimizer"]  # each alone: nothing hides


def test_verbose_changes_no_number(run: Any) -> None:
    """It only adds."""
    plain, verbose = (json.loads(run(*RAMP, *flags, "--json").out) for flags in ([], ["--verbose"]))
    for stage in verbose["stages"]:
        del stage["operators"]
    assert verbose == plain


@pytest.mark.parametrize("columns", [80, 120])
def test_verbose_prints_both_tables_within_the_width(run: Any, columns: int) -> None:
    """Where the uncertainty comes from, and every operator, after what is printed without."""
    plain, verbose = run(*RAMP, columns=columns), run(*RAMP, "-v", columns=columns)
    assert verbose.code == 0
    assert verbose.out.startswith(plain.out.rstrip("\n"))
    assert verbose.out.isascii()
    assert max(map(len, verbose.out.splitlines())) <= columns
    added = verbose.out[len(plain.out) :]
    assert "Where the uncertainty comes from" in added
    assert "Operators of one GPU" in added
    assert "cluster.compute_scale" in added
    assert "layer.attention.core" in added


def test_verbose_has_a_run_of_one_gpu_too(run: Any) -> None:
    """Nothing is communicated, and every operator is still there."""
    settings = ["tensor_parallel=1", "model=llama-3.1-8b", "stages=[{data_parallel: 1, global_batch_size: 1}]"]
    overrides = [x for setting in settings for x in ("--set", setting)]
    operators = json.loads(run(*RAMP, *overrides, "-v", "--json").out)["stages"][0]["operators"]
    assert not any("gather" in each["name"] for each in operators)
    assert "layer.attention.core" in {each["name"] for each in operators}


def test_list_and_show_know_every_preset(run: Any) -> None:
    """Each listed name can be shown, with sources."""
    listed = json.loads(run("list", "--json").out)
    assert listed.pop("schema_version") == 1
    for kind, names in listed.items():
        for name in names:
            shown = run("show", f"{kind}/{name}", columns=300)
            assert shown.code == 0
            assert "[1]" in shown.out
    assert set(listed) >= {"kernels", "collectives"}
    assert "nemotron-4-15b" in run("list", "models").out
    assert "dgx-h100" not in run("list", "models").out
    assert len(json.loads(run("show", "nemotron-4-15b", "--json").out)["presets"]) == 2  # a model and a run


def test_version_and_help_need_no_model(run: Any) -> None:
    """They answer at once."""
    assert run("--version").out.startswith("perfmodel 0.")
    assert "predict" in run("--help").out
    assert "--set" in run("predict", "--help").out
