"""Are the texts of nccl-tests read right, and are others refused?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.benchmarks.measure.calibrate import machine_of
from perfmodel.benchmarks.measure.kernels.nccl_tests import main, read_nccl_tests
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.errors import InputError

HEADER = """# nccl-tests version 2.17.6 nccl-headers=22803 nccl-library=22803
# Collective test starting: {program}
# nThread 1 nGpus 1 minBytes 1024 maxBytes 1048576 step: 4(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1 graph: 0
#
# Using devices
#  Rank  0 Group  0 Pid  11887 on    node-a device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  1 Group  0 Pid  11888 on    node-a device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#  Rank  2 Group  0 Pid   9301 on    node-b device  0 [0000:1b:00] NVIDIA H100 80GB HBM3
#  Rank  3 Group  0 Pid   9302 on    node-b device  1 [0000:43:00] NVIDIA H100 80GB HBM3
#
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
FOOTER = """# Out of bounds values : 0 OK
# Avg bus bandwidth    : 12.0123
#
"""
ALL_REDUCE = (
    HEADER.format(program="all_reduce_perf")
    + "        1024           512  bfloat16     sum      -1    21.37    0.05    0.07      0    20.98    0.05    0.07      0\n"
    + "     1048576        524288  bfloat16     sum      -1    67.02   15.65   23.47      0    66.41   15.79   23.68      0\n"
    + FOOTER
)
ALL_GATHER = (
    HEADER.format(program="all_gather_perf")
    + "           0             0     float    none      -1     5.70    0.00    0.00      0     5.54    0.00    0.00      0\n"
    + "     1048576         65536     float    none      -1    50.00   20.97   15.73    N/A    49.00   21.40   16.05    N/A\n"
    + FOOTER
)
OLD = """# nThread 1 nGpus 2 minBytes 8 maxBytes 8 step: 2(factor) warmup iters: 5 iters: 100 validation: 1
# Using devices
#   Rank  0 Pid   1320 on     host device  0 [0x00] Tesla V100-SXM2-16GB
#   Rank  1 Pid   1320 on     host device  1 [0x00] Tesla V100-SXM2-16GB
           8             2     float     sum    12.50    0.00    0.00  0e+00    12.10    0.00    0.00  0e+00
"""


def written(folder: Path, text: str, name: str = "log.txt") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_text(text)
    return path


def test_an_all_reduce_is_read_out_of_place(tmp_path: Path) -> None:
    """Bytes, seconds, four ranks on two nodes, what ran on what."""
    first, second = read_nccl_tests(written(tmp_path, ALL_REDUCE))
    assert first.sizes == {"payload_bytes": 1024.0, "ranks": 4, "nodes": 2}
    assert first.labels == {"operator": "all_reduce", "backend": "nccl", "precision": "bf16"}
    assert [first.seconds, second.seconds] == pytest.approx([21.37e-6, 67.02e-6])
    assert first.repeats == 20
    assert first.provenance["gpu"] == "NVIDIA H100 80GB HBM3"
    assert first.provenance["software"] == "NCCL 2.28.3, nccl-tests 2.17.6"


def test_the_size_of_an_all_gather_is_its_full_tensor(tmp_path: Path) -> None:
    """65536 floats of each of four ranks are 1 MiB; a row of nothing is none."""
    (only,) = read_nccl_tests(written(tmp_path, ALL_GATHER))
    assert only.sizes["payload_bytes"] == 1048576
    assert only.sizes["payload_bytes"] == 65536 * 4 * only.sizes["ranks"]


@pytest.mark.parametrize(
    ("program", "operator"),
    [("reduce_scatter_perf", "reduce_scatter"), ("alltoall_perf", "all_to_all"), ("sendrecv_perf", "point_to_point")],
)
def test_every_program_has_its_operator(tmp_path: Path, program: str, operator: str) -> None:
    """The names of records."""
    records = read_nccl_tests(written(tmp_path, ALL_REDUCE.replace("all_reduce_perf", program)))
    assert {each.labels["operator"] for each in records} == {operator}


def test_no_machine_is_fitted_to_records_of_messages_alone(tmp_path: Path) -> None:
    """The sentence says what is."""
    with pytest.raises(InputError, match=r"these are records of nccl-tests.*perfmodel calibrate --from-nccl-tests FILE"):
        machine_of(read_nccl_tests(written(tmp_path, ALL_REDUCE)))


def test_a_log_may_hold_several_tests(tmp_path: Path) -> None:
    """Each with its own ranks and its own name."""
    records = read_nccl_tests(written(tmp_path, ALL_REDUCE + "job log in between\n" + ALL_GATHER))
    assert [each.labels["operator"] for each in records] == ["all_reduce", "all_reduce", "all_gather"]
    assert {each.sizes["ranks"] for each in records} == {4}


def test_an_old_text_says_which_test_it_is_by_its_name_or_its_command(tmp_path: Path) -> None:
    """No root, no group, no word on the program."""
    (named,) = read_nccl_tests(written(tmp_path, OLD, "all_reduce-17.txt"))
    (ordered,) = read_nccl_tests(written(tmp_path, "$ mpirun -n 1 ./build/reduce_scatter_perf -g 2\n" + OLD))
    (told,) = read_nccl_tests(written(tmp_path, OLD), operator="all_gather")
    assert [each.labels["operator"] for each in (named, ordered, told)] == ["all_reduce", "reduce_scatter", "all_gather"]
    assert named.seconds == pytest.approx(12.5e-6)
    assert (named.sizes["ranks"], named.sizes["nodes"]) == (2, 1)
    assert named.repeats == 100


@pytest.mark.parametrize("prefix", ["[1,0]<stdout>:", " 0: ", "0: "])
def test_what_a_launcher_puts_before_lines_is_taken_off(tmp_path: Path, prefix: str) -> None:
    """And lines of debugging between them are no rows."""
    noise = "10.0.0.1:11 NCCL INFO comm\n2024-01-01 00:00:00 12 steps\n"
    text = "".join(f"{prefix}{line}\n{noise}" for line in ALL_REDUCE.splitlines())
    records = read_nccl_tests(written(tmp_path, text))
    assert [each.seconds for each in records] == [each.seconds for each in read_nccl_tests(written(tmp_path, ALL_REDUCE))]


def test_options_that_add_columns_change_nothing(tmp_path: Path) -> None:
    """A time stamp behind a row, how far repeats differ between its two halves."""
    more = ALL_REDUCE.replace("#wrong     time", "#wrong i_min i_max time").replace("#wrong\n", "#wrong timestamp\n")
    more = more.replace("      0    2", "      0 1.0 2.0    2").replace("      0    66", "      0 1.0 2.0    66")
    more = more.replace("0.07      0\n", "0.07      0  2026-01-01 00:00:00\n").replace(
        "23.68      0\n", "23.68      0  2026-01-01 00:00:00\n"
    )
    records = read_nccl_tests(written(tmp_path, more))
    assert [each.seconds for each in records] == pytest.approx([21.37e-6, 67.02e-6])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (ALL_REDUCE.replace("    21.37 ", "    fast "), r"log.txt, line 14: not a row of nccl-tests"),
        (HEADER.format(program="all_reduce_perf") + "1024 512 float\n", r"log.txt, line 14: not a row of nccl-tests"),
        (ALL_REDUCE.replace("Rank  1 ", "Rank  0 "), r"log.txt, line 7: rank 0 a second time: each process ran alone"),
        (HEADER.format(program="all_reduce_perf"), r"log.txt: no row of nccl-tests is in it$"),
        ("", r"log.txt: no row of nccl-tests is in it$"),
        (ALL_REDUCE.replace("#  Rank", "#  Runk"), r"log.txt: no '# Rank' line says how many ranks there were$"),
        (OLD, r"log.txt: nothing says which test it was; --operator all_reduce would$"),
    ],
)
def test_another_text_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """With the line, where there is one."""
    with pytest.raises(InputError, match=sentence) as caught:
        read_nccl_tests(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_the_command_writes_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all texts into one file; one that is not there is one sentence and exit code 2."""
    texts = [written(tmp_path, ALL_REDUCE, "a.txt"), written(tmp_path, ALL_GATHER, "b.txt")]
    output = tmp_path / "records.jsonl"
    monkeypatch.setattr("sys.argv", ["nccl_tests", *map(str, texts), "-o", str(output)])
    main()
    assert len(read_records(output)) == 3
    monkeypatch.setattr("sys.argv", ["nccl_tests", str(tmp_path / "none.txt"), "-o", str(output)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
