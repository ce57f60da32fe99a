"""Are logs of Megatron-LM and its forks read in all their versions, whatever stands between their lines?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_records import LogRecord
from tests.exchange.importers.scripts import converted, run_of

BLOCK = """------------------------ arguments ------------------------
  add_bias_linear ................................. False
  attention_dropout ............................... 0.0
  hidden_dropout .................................. 0.0
  bf16 ............................................ True
  global_batch_size ............................... 64
  group_query_attention ........................... True
  hidden_size ..................................... 1024
  micro_batch_size ................................ 2
  normalization ................................... RMSNorm
  num_attention_heads ............................. 16
  num_layers ...................................... 4
  num_query_groups ................................ 8
  padded_vocab_size ............................... 32000
  position_embedding_type ......................... rope
  recompute_granularity ........................... None
  recompute_modules ............................... ['core_attn']
  seq_length ...................................... 2048
  some_new_thing .................................. 7
  swiglu .......................................... True
  tensor_model_parallel_size ...................... 2
  virtual_pipeline_model_parallel_size ............ None
  world_size ...................................... 16
-------------------- end of arguments ---------------------
"""
LINE = (
    " [2026-08-08 03:12:44.118201] iteration {i:8d}/  100000 | consumed samples: {s:12d} | "
    "elapsed time per iteration (ms): {t} | throughput per GPU (TFLOP/s/GPU): 411.2 | learning rate: 2.987E-04 | "
    "global batch size: {b:5d} | lm loss: 2.1E+00 | loss scale: 1.0 | "
    "grad norm: 0.812 | number of skipped iterations:   0 | number of nan iterations:   0 |"
)


def line(iteration: int, time_ms: float = 1000.0, batch: int = 64) -> str:
    """A line of a step, as core 0.16 prints it."""
    return LINE.format(i=iteration, s=iteration * batch, t=time_ms, b=batch)


def log(folder: Path, *lines: str) -> Conversion:
    """What becomes of a log with these lines."""
    return converted(folder, "\n".join(lines) + "\n", "train.log")


def record_of(found: Conversion) -> LogRecord:
    """The record of a log that has one."""
    assert found.record is not None
    return found.record


TIME = "elapsed time per iteration (ms): 430.0"
VERSIONS = {
    "core 0.5": (
        f" iteration      {{i}}/  1000 | consumed samples:  800 | {TIME} | learning rate: 1.342E-04 | "
        "global batch size:     4 | lm loss: 7.399415E+00 | loss scale: 16384.0 | grad norm: 2.918 |"
    ),
    "core 0.13": (
        f" [2025-04-13 23:41:12] iteration    {{i}}/    1000 | consumed samples: 160 | skipped samples: 12 | {TIME} | "
        "throughput per GPU (TFLOP/s/GPU): 120.1 | energy per GPU (J/iter/GPU): 900.1 | power per GPU (W/GPU): 500.0 | "
        "learning rate: 1.000000E-04 | decoupled learning rate: 1.0E-4 | global batch size:     4 |"
    ),
    "torchrun --tee": (
        f"[default7]: iteration {{i}}/ 100 | consumed samples: 8 | consumed tokens: 1.258B | {TIME} | "
        "tokens/sec/gpu: 2000.5 | global batch size: 4 | eta: 3 days |"
    ),
    "srun -l": f"3:  iteration {{i}}/ 100 | {TIME} | learning rate: 1.0E-04 | global batch size: 4 |",
    "Megatron-DeepSpeed": (
        f" iteration {{i}}/ 100 | consumed samples: 8 | consumed tokens: 16384 | {TIME} | global batch size: 4 | "
        "actual seqlen:  2048 | samples per second: 9.3 | tokens per gpu per second (tgs): 2380.1 | TFLOPs: 34.4 |"
    ),
    "Primus": (
        f"[rank15] iteration {{i}}/ 100 | {TIME}/429.1 | compute per GPU (TFLOP/s/GPU): 400.2/401.0 | "
        "tokens per GPU (tokens/s/GPU): 9000.1/8999.0 | global batch size: 4 |"
    ),
}


@pytest.mark.parametrize("text", VERSIONS.values(), ids=VERSIONS)
def test_every_version_says_the_same_time(tmp_path: Path, text: str) -> None:
    """Dates, prefixes and unknown keys or not."""
    found = log(tmp_path, *(text.format(i=number) for number in range(1, 7)))
    record = record_of(found)
    assert (found.format, found.run, record.iteration_time_s, record.global_batch_size) == ("Megatron-LM log", None, 0.43, 4)


def test_figures_are_medians_of_steady_steps(tmp_path: Path) -> None:
    """The first iterations of a start are left out, at most a third."""
    times = [9000.0, 8000.0, *([1000.0] * 10), 1100.0, *([1000.0] * 20)]
    record = record_of(log(tmp_path, *(line(place + 1, time) for place, time in enumerate(times))))
    assert (record.iteration_time_s, record.steps, record.left_out["warm_up"]) == (1.0, 23, 10)
    assert record.interval_s == (1.0, 1.0)
    short = record_of(log(tmp_path, line(1, 9000.0), line(2), line(3)))
    assert (short.iteration_time_s, short.steps, short.left_out["warm_up"]) == (1.0, 2, 1)


def test_one_line_is_a_record(tmp_path: Path) -> None:
    """There is nothing else to go by."""
    assert record_of(log(tmp_path, line(1370, 4812.3))).iteration_time_s == pytest.approx(4.8123)


def test_what_waited_for_evaluations_and_checkpoints_is_left_out(tmp_path: Path) -> None:
    """And counted."""
    lines = [line(number) for number in range(1, 41)]
    lines[20] = f"validation loss at iteration 20 | lm loss value: 3.0 |\n{line(21, 5000.0)}"
    lines[30] = f"saving checkpoint at iteration 30 to /x\n{line(31, 7000.0)}"
    record = record_of(log(tmp_path, *lines))
    assert {name: record.left_out[name] for name in ("evaluations", "checkpoints")} == {"evaluations": 1, "checkpoints": 1}
    assert record.interval_s == (1.0, 1.0)


def test_restarts_are_counted_and_warm_up_again(tmp_path: Path) -> None:
    """A run that begins again at an earlier iteration."""
    first = [line(number) for number in range(1, 41)]
    second = [line(number, 5000.0 if number < 35 else 1000.0) for number in range(31, 71)]
    record = record_of(log(tmp_path, *first, *second))
    assert (record.restarts, record.left_out["warm_up"], record.interval_s) == (1, 20, (1.0, 1.0))


def test_what_other_ranks_print_counts_once(tmp_path: Path) -> None:
    """Interleaved, late, or without telling which rank it was."""
    lines = [each for number in range(1, 31) for each in (f"[rank7]:{line(number)}", f"[rank6]:{line(max(number - 1, 1))}")]
    record = record_of(log(tmp_path, *lines))
    assert (record.steps + record.left_out["warm_up"], record.left_out["other_ranks"], record.restarts) == (30, 30, 0)
    twice = record_of(log(tmp_path, *(line(number // 2) for number in range(2, 42))))
    assert (twice.left_out["other_ranks"], twice.restarts) == (20, 0)


def test_of_a_batch_ramp_the_last_batch_counts(tmp_path: Path) -> None:
    """Times of other batches are those of other work."""
    lines = [*(line(number, 500.0, 32) for number in range(1, 31)), *(line(number, 1000.0, 64) for number in range(31, 61))]
    record = record_of(log(tmp_path, *lines))
    assert (record.iteration_time_s, record.global_batch_size, record.left_out["other_batches"]) == (1.0, 64, 20)


def test_cut_lines_are_no_times(tmp_path: Path) -> None:
    """A number at the end of a line may lack its last digits."""
    whole = [line(number) for number in range(1, 21)]
    cut = line(21).partition("1000.0")[0] + "10"
    record = record_of(log(tmp_path, *whole, cut))
    assert (record.left_out["broken_lines"], record.interval_s) == (1, (1.0, 1.0))


def test_colours_are_no_part_of_a_line(tmp_path: Path) -> None:
    """Nor what a progress bar wrote over."""
    coloured = [f"\x1b[32m{line(number)}\x1b[0m" for number in range(1, 6)]
    assert record_of(log(tmp_path, "  5%\r 10%\r" + coloured[0], *coloured[1:])).iteration_time_s == 1.0


@pytest.mark.parametrize(
    ("text", "memory", "kind"),
    [
        (
            "[Rank 0] (after 2 iterations) memory (MB) | allocated: 13268.8 | max allocated: 20480.0 | max reserved: 30000.0",
            20 * 2.0**30,
            "allocated",
        ),
        ("memory (GB) | mem-allocated-gigabytes: 1.5 | mem-max-reserved-gigabytes: 42.5 |", 42.5e9, "reserved"),
    ],
)
def test_memory_is_told_with_its_kind(tmp_path: Path, text: str, memory: float, kind: str) -> None:
    """MB are 2^20 bytes; GB of Megatron-Bridge are 10^9."""
    record = record_of(log(tmp_path, line(1), line(2), text, line(3)))
    assert record.memory_bytes == pytest.approx(memory)
    assert record.memory_kind == kind


def test_megatron_bridge_has_a_line_of_its_own(tmp_path: Path) -> None:
    """Its TFLOP/s count causal attention half."""
    lines = [f"Step Time : {time}s GPU utilization: 560.1MODEL_TFLOP/s/GPU" for time in (9.0, 2.69, 2.69)]
    record = record_of(log(tmp_path, *lines))
    assert (record.iteration_time_s, record.printed_tflop_per_s_per_gpu, record.tflop_convention) == (2.69, 560.1, "causal")
    both = record_of(log(tmp_path, *(each for number in range(1, 7) for each in (lines[1], line(number)))))
    assert (record.tflop_convention, both.tflop_convention) == ("causal", "causal")
    assert (both.iteration_time_s, both.steps + both.left_out["warm_up"]) == (1.0, 6)


def test_the_arguments_at_the_head_are_the_run(tmp_path: Path) -> None:
    """With which tokens/s follow from times."""
    found = log(tmp_path, *(f"0: {each}" for each in BLOCK.splitlines()), *(line(number) for number in range(1, 11)))
    run, record = run_of(found), record_of(found)
    assert (run["gpus"], run["tensor_parallel"], run["virtual_pipeline"], run["precision"]) == (16, 2, 1, "bf16")
    assert (run["model"]["kv_heads"], run["model"]["biases"], run["model"]["vocab_size"]) == (8, False, 32000)
    assert record.tokens_per_s_per_gpu == pytest.approx(64 * 2048 / 16)
    assert any("--some-new-thing" in each for each in found.ignored)
    assert float(api.predict(str(tmp_path / "train.log"), ["cluster=dgx-h100"]).stages[0][1].iteration_time_s) > 0


def test_a_log_of_experts_has_its_run_and_its_times(tmp_path: Path) -> None:
    """From the arguments at its head."""
    block = BLOCK.replace("  swiglu ..", "  num_experts ..................................... 8\n  swiglu ..")
    found = log(tmp_path, block, *(line(number) for number in range(1, 11)))
    assert run_of(found)["model"]["mixture"]["experts"] == 8
    assert not found.refused
    assert record_of(found).iteration_time_s == 1.0


def test_broken_bytes_are_no_end(tmp_path: Path) -> None:
    """Nor is a log that is larger than a file of settings may be."""
    path = tmp_path / "train.log"
    noise = b"\x00\xff\xfe" + b"x" * 70_000 + b"\n"
    text = b"".join(line(number).encode() + b"\n" + (noise if number % 10 == 0 else b"") for number in range(1, 401))
    path.write_bytes(noise * 20 + text)
    assert path.stat().st_size > 1_000_000
    record = record_of(converted_bytes(path))
    assert (record.iteration_time_s, record.steps) == (1.0, 390)


def converted_bytes(path: Path) -> Any:
    """The conversion of a file as it is."""
    from perfmodel.exchange.importers.registry import conversion_at

    return conversion_at(path)
