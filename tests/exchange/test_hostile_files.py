"""Can a file make the machine run out of memory, of time, or of sense? Each case did once."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError, did_you_mean
from perfmodel.exchange.importers.configs.torchtitan_command import STEP
from perfmodel.exchange.importers.logs import megatron, torchtitan
from perfmodel.exchange.importers.registry import document_of, importer_of
from perfmodel.exchange.measured import trace_files
from perfmodel.exchange.measured.nccl_tests import is_nccl_tests, rows_in
from perfmodel.exchange.measured.trace_files import read_trace
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors, profile_readings
from perfmodel.exchange.questions.measured_values import measured_value
from perfmodel.exchange.questions.swept_axes import RANGE, value_texts
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import parse_text, read_mapping
from perfmodel.exchange.syntax.key_paths import is_factor
from perfmodel.exchange.tables.csv_tables import table_rows
from perfmodel.spec.fields import rules_of
from perfmodel.spec.layout import Layout

EVENT = b'{"ph": "X", "ts": 1, "dur": 1, "name": "a"},'


def _billions(last: str) -> str:
    """Aliases of aliases: some hundred characters that stand for a billion values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in zip("abcdefg", "bcdefgh", strict=True)]
    return "\n".join([*lines, last])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_billions("model: *h"), "its aliases .* stand for more than 20,000 values; write out what is meant"),
        (
            "a: &a {x: 1, y: 2}\n" + "".join(f"b{n}: &b{n} {{<<: [*a, *a, *a]}}\n" for n in range(3000)),
            "more than 20,000 values",
        ),
        ("a: &a [*a]", "a stands inside what it stands for"),
        ("a: " + "9" * 4000, "a whole number of 4,000 digits is too large"),
    ],
)
def test_a_text_that_stands_for_more_than_it_says_is_refused(text: str, sentence: str) -> None:
    """Before anything goes through it."""
    with pytest.raises(InputError, match=sentence):
        parse_text(text)


def test_some_aliases_are_read() -> None:
    """As people use them for what stands twice in a file."""
    found = parse_text("base: &b {tokens: 1, gpus: 2}\nstages: [*b, {<<: *b, tokens: 3}]")
    assert found["stages"] == [{"tokens": 1, "gpus": 2}, {"tokens": 3, "gpus": 2}]


@pytest.mark.parametrize("suffix", [".yaml", ".json", ".toml"])
def test_no_whole_number_is_too_large_for_a_float(suffix: str) -> None:
    """So that comparing it, dividing by it and showing it cannot fail."""
    digits = "1" + "0" * 60
    text = {".yaml": f"a: {digits}", ".json": f'{{"a": {digits}}}', ".toml": f"a = {digits}"}[suffix]
    if suffix == ".toml":
        with pytest.raises(InputError, match="a whole number in it is too large"):
            parse_text(text, suffix=suffix)
    else:
        assert parse_text(text, suffix=suffix) == {"a": 1e60}
    assert parse_text(text.replace(digits, "12"), suffix=suffix) == {"a": 12}


DIGITS = "1" * 100_000


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(lambda: parse_text(f"a: {DIGITS}x"), id="a number of YAML"),
        pytest.param(lambda: is_factor(f"x{DIGITS}y"), id="a factor"),
        pytest.param(lambda: value_texts(f"{'.' * 100_000}", rules_of(Layout)["tensor_parallel"]), id="a range"),
        pytest.param(lambda: RANGE, id="nothing"),
        pytest.param(lambda: list(megatron.arguments_in("-" * 100_000)), id="the head of a block"),
        pytest.param(lambda: STEP.search("step: 1 " * 20_000), id="a step among commands"),
        pytest.param(lambda: torchtitan.STEP.search("step: 1 " * 20_000), id="a step of a log"),
        pytest.param(lambda: torchtitan.MESH.search("Building 3-D device mesh with " * 5_000), id="a mesh of a log"),
        pytest.param(lambda: torchtitan.BATCH.search("global batch size 8 " * 5_000), id="a batch of a log"),
        pytest.param(lambda: is_nccl_tests("# size count type " * 10_000), id="the head of a table"),
        pytest.param(lambda: importer_of(document_of("torchrun --deepspeed " * 10_000)), id="flags"),
        pytest.param(lambda: did_you_mean("x" * 100_000, [f"{'y' * 5_000}{n}" for n in range(2_000)]), id="did you mean"),
    ],
)
def test_no_reader_takes_longer_than_in_proportion(read: Any) -> None:
    """Each took half a minute or more of a processor where its pattern could divide a text in many ways."""
    start = time.process_time()
    read()
    assert time.process_time() - start < 5.0


def test_a_speed_is_short() -> None:
    """Its patterns try every way to divide a text."""
    with pytest.raises(InputError, match="is not a measured speed"):
        measured_value(" " * 100_000, None)  # type: ignore[arg-type]


def test_a_packed_trace_is_bounded_by_what_it_unpacks_to(tmp_path: Path) -> None:
    """Three megabytes took six gigabytes."""
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(b'{"traceEvents": [' + EVENT * 1_000_000 + b"{}]}"))
    assert path.stat().st_size < 1e6
    with pytest.raises(InputError, match="is larger than 20 MB unpacked; profile fewer steps"):
        read_trace(path)
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": [{"ph": "X"}]}).encode()))
    assert read_trace(path) == {"traceEvents": [{"ph": "X"}]}


def test_a_device_that_never_ends_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """--profile /dev/zero."""
    monkeypatch.setattr(trace_files, "MOST_OF_A_PIPE", 1_000_000)
    with pytest.raises(InputError, match="/dev/zero is larger than 1 MB"):
        read_trace(Path("/dev/zero"))


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("stack.host.unlisted_work=0.9", "0.9 must be at least 1: a pass takes as long as its operators, or longer"),
        ("cluster.compute_scale=4", "4 must be at most 2"),
        ("cluster.gpu.memory_bandwidth_bytes_per_s=1e30", "must be at most 1e+17: there is nothing like it"),
        ("cluster.gpu.peak_flop_per_s.bf16=1e29", "there is nothing like it"),
        ("stack.host.iteration_s=1e12", "there is nothing like it"),
        ("stages[*].tokens=1e25", "there is nothing like it"),
    ],
)
def test_numbers_that_nothing_has_are_refused_by_their_key(setting: str, sentence: str) -> None:
    """Negative parts and an MFU of 5.7 came of them, without a word."""
    with pytest.raises(InputError) as refused:
        read_candidates("nemotron-4-15b", [setting])
    assert str(refused.value).startswith(setting.partition("=")[0].replace("[*]", "[0]"))
    assert sentence in str(refused.value)


@pytest.mark.parametrize("source", [{"held_out": 1}, {"held_out": {"all": 3}}, {"held_out": {}}, 7, None, ["a"], "a sentence"])
def test_a_source_may_be_anything_in_a_persons_own_file(tmp_path: Path, source: Any) -> None:
    """It is shown as it is."""
    path = tmp_path / "model.json"
    path.write_text(json.dumps({"layers": 2, "sources": {"layers": source}}))
    _, sources = separated(read_mapping(path))
    assert isinstance(sources["layers"], str)


def test_a_row_of_nccl_tests_that_contradicts_itself_is_refused() -> None:
    """Its algbw is its size over its time."""
    head = (
        "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
    )
    good = "  1048576        262144     float     sum      -1    100.0   10.49   18.35      0    100.0   10.49   18.35      0\n"
    assert len(rows_in(head + good, "a.txt", operator="all_reduce")) == 1
    with pytest.raises(InputError, match=r"a\.txt.*1\.049e\+06 bytes in 0\.0001 s are 10\.49 GB/s, and algbw is 1049 GB/s"):
        rows_in(head + good.replace("10.49", "1049").replace("18.35", "1835"), "a.txt", operator="all_reduce")


def test_a_table_of_many_columns_or_cut_rows_is_read_in_one_go(tmp_path: Path) -> None:
    """Neither names are held against all others, nor lines counted anew for each row of a file whose last one breaks off."""
    start = time.process_time()
    wide, cut = tmp_path / "wide.csv", tmp_path / "cut.csv"
    wide.write_text(",".join(f"c{place}" for place in range(60_000)) + ",c1\n")
    with pytest.raises(InputError, match="has two columns c1"):
        list(table_rows(wide, ["run_id"]))
    cut.write_text("run_id,source\n" + "\n".join(["a,b"] * 60_000))
    assert len(list(table_rows(cut, ["run_id"]))) == 60_000
    assert time.process_time() - start < 5.0


def test_a_profile_of_many_kernels_is_told_apart_in_one_go(tmp_path: Path) -> None:
    """As many as a real step has: none is held against all others, and those that are alike all count."""
    kernel = {"ph": "X", "cat": "kernel", "name": "nvjet_hsh_256x128", "pid": 0, "tid": 7, "dur": 2.0}
    start, path = time.process_time(), tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": [{**kernel, "ts": 2.0 * (place // 2)} for place in range(40_000)]}))
    (found,) = profile_readings(path, diagnosis_priors())
    assert found.measured == pytest.approx(0.08)
    assert time.process_time() - start < 5.0


def test_a_small_trace_takes_little_memory(tmp_path: Path) -> None:
    """However large one may be: nothing is asked for before it is there."""
    path = tmp_path / "trace.json"
    path.write_bytes(b'{"traceEvents": []}')
    tracemalloc.start()
    try:
        assert read_trace(path) == {"traceEvents": []}
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()
