"""`perfmodel infer`, and `perfmodel validate` of a table of serving runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import perfmodel as pm
from perfmodel.commands.app import program

HEADER = (
    "run_id,source,model,gpu,gpus,tensor_parallel,data_parallel_attention,engine,engine_version,weights,kv,isl,osl,"
    "concurrency,load,metric,value,notes"
)
ROW = "r1,a lab,Qwen/Qwen3-32B,h100-sxm-80gb,4,4,,vllm,0.12.0,bf16,,1024,512,32,closed loop,{metric},{value},{notes}"


def ran(*words: str) -> tuple[int, str]:
    """Exit code and output of a command."""
    result = CliRunner().invoke(program(), list(words), env={"COLUMNS": "80"})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_verdict_comes_first_and_lines_have_80_columns() -> None:
    """A sentence, the memory, a line for each number of clients."""
    code, output = ran("infer", "nemotron-4-15b", "--gpu", "a100-sxm-80gb", "--input", "2000", "--output", "500")
    assert code == 0
    assert output.startswith("Nemotron-4 15B in bf16 on 1 GPU (A100 SXM 80GB)")
    assert max(len(line) for line in output.splitlines() if not line.startswith("wrote ")) <= 80


def test_json_has_every_replica_and_load() -> None:
    """SI units in the names of keys; intervals around the numbers; the parts of a request's life."""
    code, output = ran("infer", "qwen3-32b", "--gpu", "h100-sxm-80gb", "--gpus", "2,4", "--concurrency", "1,max", "--json")
    document = json.loads(output)
    assert (code, document["schema_version"]) == (0, 1)
    assert [each["tensor_parallel"] for each in document["replicas"]] == [2, 4]
    for replica in document["replicas"]:
        assert [load["concurrency"] for load in replica["loads"]] == [1, replica["most_concurrency"]]
        for load in replica["loads"]:
            low, high = load["e2e_s_interval"]
            assert low < load["e2e_s"] < high
            assert load["e2e_s"] == pytest.approx(load["ttft_s"] + 499 * load["tpot_s"])


def test_csv_has_a_row_for_each_load() -> None:
    """Without nested values."""
    _, output = ran("infer", "qwen3-32b", "--gpu", "h100-sxm-80gb", "--gpus", "2", "--concurrency", "1,8", "--csv")
    assert len(output.splitlines()) == 3
    assert "{" not in output


def test_answers_of_one_token_have_no_time_between_tokens() -> None:
    """Nor a rate of one client; all else is there, in every form."""
    words = ("infer", "llama-3.1-8b", "--gpu", "h100-sxm-80gb", "--output", "1", "--concurrency", "1,8")
    (replica,) = json.loads(ran(*words, "--json")[1])["replicas"]
    assert [(row["tpot_s"], row["tpot_s_interval"], row["tokens_per_s_per_user"]) for row in replica["loads"]] == [
        (0.0, [0.0, 0.0], None)
    ] * 2
    assert all(row["ttft_s"] == row["e2e_s"] for row in replica["loads"])
    assert [ran(*words, form)[0] for form in ("--csv", "--markdown")] == [0, 0]


def test_an_interval_has_the_unit_of_its_latency() -> None:
    """Milliseconds below a second: 45.5ms stood beside 0.0361-0.0579s."""
    words = ("infer", "llama-3.1-8b", "--gpu", "h100-sxm-80gb", "--concurrency", "1")
    for output, unit in (("2", "ms"), ("5000", "s")):
        (line,) = (each for each in ran(*words, "--output", output)[1].splitlines() if each.startswith("      1  "))
        latency, interval = line.split()[3:5]
        low, high = (float(end) for end in interval.removesuffix(unit).split("-"))
        assert low < float(latency.removesuffix(unit)) < high
        assert interval.rstrip("ms") == interval.removesuffix(unit)


def test_a_model_of_windows_alone_takes_context_of_any_length() -> None:
    """Each layer of Mistral 7B keeps 4,096 tokens: 4,294,967,280 were said, where the search ended."""
    words = ("infer", "mistral-7b-v0.1", "--gpu", "rtx-3090")
    code, output = ran(*words)
    assert code == 0
    assert "fits, context of any length, or " in " ".join(output.split())
    assert json.loads(ran(*words, "--json")[1])["replicas"][0]["longest_context_tokens"] is None


@pytest.mark.parametrize(("precision", "how"), [("bf16", "converted"), ("int4", "converted"), ("fp8", "widened")])
def test_tensor_cores_before_ampere_serve_in_fp16(precision: str, how: str) -> None:
    """Weights of every format."""
    code, output = ran("infer", "llama-3.1-8b", "--gpu", "v100-sxm2-32gb", "--precision", precision)
    assert code == 0
    text = " ".join(output.split())
    assert f"arithmetic: weights are {how}, and products run in fp16" in text


def test_a_model_that_does_not_fit_is_exit_code_1() -> None:
    """Said in the first line."""
    code, output = ran("infer", "llama-3.1-70b", "--gpu", "h100-sxm-80gb")
    assert code == 1
    assert "does not fit" in output.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("llama-3.1-7b", "--gpu", "b200"), "did you mean llama-3.1-70b?"),
        (("qwen3-32b", "--gpu", "h100"), "h100-sxm-80gb or "),
        (("qwen3-32b", "--gpu", "b200", "--engine", "vlm"), "did you mean vllm?"),
        (("qwen3-32b", "--gpu", "b200", "--precision", "fp9"), "did you mean fp8?"),
        (("qwen3-32b", "--gpu", "b200", "--kv-precision", "fp9"), "did you mean fp8?"),
        (("qwen3-32b", "--gpu", "b200", "--gpus", "3"), "1, 2, 4, 8"),
        (("qwen3-32b", "--gpu", "b200", "--gpus", "64"), "more than the 8 of one node"),
        (("qwen3-32b", "--gpu", "b200", "--expert-parallel", "1", "--input", "0"), "greater than 0"),
        (("qwen3-32b", "--gpu", "b200", "--concurrency", "mx"), "not a count"),
        (("qwen3-32b", "--gpu", "b200", "--set", "memory.fractio=1"), "did you mean fraction?"),
    ],
)
def test_wrong_input_says_what_would_work(words: tuple[str, ...], meant: str) -> None:
    """One sentence, with the nearest name."""
    with pytest.raises(pm.InputError, match=r"\w") as caught:
        ran("infer", *words)
    assert meant in str(caught.value)


def test_settings_of_the_engine_change_the_cache() -> None:
    """A larger fraction leaves more of the memory to the cache; the API answers as the command does."""
    (usual,) = pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb")
    (more,) = pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb", settings=["memory.fraction=0.95"])
    gained = more.memory.cache_bytes - usual.memory.cache_bytes
    assert gained == pytest.approx(0.05 * usual.memory.total_bytes)


def test_a_price_becomes_the_cost_of_a_million_tokens() -> None:
    """GPUs * price / tokens."""
    (found,) = pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb", tensor_parallel=2, concurrency=8, dollars_per_gpu_hour=3.6)
    cost = found.dollars_per_million_tokens
    assert cost is not None
    assert cost * found.load.tokens_per_s == pytest.approx(2 * 3.6 / 3600 * 1e6)


def test_pictures_and_a_page_are_written_beside_the_tables(tmp_path: Path) -> None:
    """The curve, the rooflines, the page; another ending is refused before any work."""
    curve, roofs, made = (tmp_path / name for name in ("curve.png", "roofs.svg", "page.html"))
    words = ("infer", "llama-3.1-8b", "--gpu", "h100-sxm-80gb", "--figure", str(curve), "--roofline", str(roofs))
    code, output = ran(*words, "--report", str(made), "--verbose")
    assert code == 0
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in roofs.read_text()
    assert "<html" in made.read_text()
    assert "Operators of decode" in output
    assert max(len(line) for line in output.splitlines() if not line.startswith("wrote ")) <= 80
    with pytest.raises(pm.InputError, match=r"must be an .html file"):
        ran(*words[:4], "--report", "page.pdf")


def test_validate_recognises_a_table_of_serving_runs(tmp_path: Path) -> None:
    """By its columns: a row a metric, end-to-end latency where TTFT and TPOT are there, suspect rows listed but not scored."""
    rows = [
        ROW.format(metric="ttft_s", value="0.18", notes=""),
        ROW.format(metric="tpot_s", value="0.0145", notes=""),
        ROW.format(metric="tpot_s", value="9", notes="SUSPECT: implausible").replace("r1", "r2"),
        ROW.format(metric="tpot_s", value="0.01", notes="").replace("r1", "r3").replace("Qwen/Qwen3-32B", "nobody/nothing"),
    ]
    table = tmp_path / "serving.csv"
    table.write_text("\n".join([HEADER, *rows]) + "\n")
    code, output = ran("validate", str(table), "--json")
    document = json.loads(output)
    assert code == 0
    found = {(row["run_id"], row["metric"]): row for row in document["rows"]}
    assert found["r1", "e2e_s"]["measured"] == pytest.approx(0.18 + 511 * 0.0145)
    assert abs(found["r1", "e2e_s"]["relative_error"]) < 0.2
    assert [found["r2", "tpot_s"]["scored"], found["r3", "tpot_s"]["predicted"]] == [False, None]
    assert document["overall"]["tpot_s/dense"]["rows"] == 1


def test_scores_without_a_source_take_the_priors_of_its_engine(tmp_path: Path) -> None:
    """What vLLM 0.12 learned of the gap analysis is not used on it, but what ML.ENERGY gives alone, which is more."""
    table = tmp_path / "serving.csv"
    row = ROW.format(metric="tpot_s", value="0.0145", notes="").replace("a lab", "a gap analysis")
    table.write_text(f"{HEADER}\n{row}\n")
    with_it, without = (
        json.loads(ran("validate", str(table), "--json", *more)[1])["rows"][0]["predicted"]
        for more in ((), ("--leave-source-out",))
    )
    assert without > with_it


def table_of(tmp_path: Path, **cells: str) -> dict[str, float]:
    """What is predicted of one row whose cells are changed, by metric."""
    names = HEADER.split(",")
    row = dict(zip(names, ROW.format(metric="tpot_s", value="0.01", notes="").split(","), strict=True)) | cells
    table = tmp_path / "serving.csv"
    table.write_text(f"{HEADER}\n{','.join(row[name] for name in names)}\n")
    document = json.loads(ran("validate", str(table), "--json")[1])
    return {each["metric"]: each["predicted"] for each in document["rows"] if each["scored"]}


def test_lengths_and_settings_are_those_of_a_source(tmp_path: Path) -> None:
    """InferenceX: lengths of 90 % on average, answers of TensorRT-LLM that many processes write; speculation is not scored.

    Of ten rounds the first one waits for all of its prompts, which one client alone does not, and 64 do.
    """
    sources, long = ("a lab", "InferenceX dump"), {"metric": "ttft_s", "isl": "8192"}
    alone, shorter = (table_of(tmp_path, source=name, concurrency="1", **long)["ttft_s"] for name in sources)
    assert 0.85 < shorter / alone < 0.95
    random, together = (table_of(tmp_path, source=name, concurrency="64", **long)["ttft_s"] for name in sources)
    assert together > random
    many = {
        "engine": "trtllm",
        "engine_version": "1.2",
        "concurrency": "512",
        "gpus": "8",
        "tensor_parallel": "8",
        "weights": "fp8",
    }
    plain, several = (table_of(tmp_path, source=name, **many) for name in sources)
    assert several["tpot_s"] < 0.9 * plain["tpot_s"]
    assert not table_of(tmp_path, engine="trtllm", engine_version="1.2.0rc6.post3")


def test_offline_runs_and_mixtures_are_those_of_their_source(tmp_path: Path) -> None:
    """TensorRT-LLM's tables: 1,500 requests of 2,048 + 2,048 tokens, and mixtures whole on each GPU."""
    queued = {"load": "all requests queued at once", "metric": "tokens_per_s", "isl": "2048", "osl": "2048", "engine": "trtllm"}
    docs = "TensorRT-LLM docs perf-overview v1.0 (NVIDIA)"
    few, endless = (table_of(tmp_path, source=name, weights="fp8", **queued)["tokens_per_s"] for name in (docs, "a lab"))
    assert few < endless
    mixture = queued | {"model": "Qwen/Qwen3-235B-A22B", "gpus": "8", "tensor_parallel": "8", "weights": "fp8", "isl": "128"}
    whole, split = (table_of(tmp_path, source=name, **mixture)["tokens_per_s"] for name in (docs, "a lab"))
    assert whole > split
