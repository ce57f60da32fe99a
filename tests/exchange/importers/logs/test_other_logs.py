"""Are logs of other software read in their own units?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from perfmodel.exchange.importers.registry import conversion_at
from perfmodel.exchange.translation.logs.log_records import LogRecord
from tests.exchange.importers.scripts import converted

GIB = 2.0**30


def record_of(folder: Path, lines: list[str], name: str) -> LogRecord:
    """The record of a log with these lines, which is recognised as `name`."""
    found = converted(folder, "\n".join(lines) + "\n", "train.log")
    assert (found.format, found.run) == (name, None)
    assert found.record is not None
    return found.record


def test_nemo_prints_seconds_and_bytes(tmp_path: Path) -> None:
    """In progress lines."""
    lines = [
        f"Training epoch 0, iteration {number}/49 | lr: 1e-4 | global_batch_size: 256 | global_step: {number} | "
        "peak_memory_usage: 72972500992 | memory_allocated: 34466545664 | reduced_train_loss: 2.1 | "
        f"train_step_timing in s: {time} | consumed_samples: 9"
        for number, time in enumerate([30.0, *[2.693] * 20])
    ]
    record = record_of(tmp_path, lines, "NeMo log")
    assert (record.iteration_time_s, record.global_batch_size, record.memory_bytes) == (2.693, 256, 72972500992)


def test_nemo_logs_json_too(tmp_path: Path) -> None:
    """Of its DLLogger; and NeMo 1 has a progress bar with equals signs."""
    lines = [json.dumps({"step": number, "data": {"train_step_timing in s": 25.1, "x": 9}}) for number in range(9)]
    assert record_of(tmp_path, lines, "NeMo log").iteration_time_s == 25.1
    bar = [f"Epoch 0: : 5%| | v_num=0, global_step={number}.0, train_step_timing in s=25.1]" for number in range(9)]
    assert record_of(tmp_path, bar, "NeMo log").iteration_time_s == 25.1
    path = tmp_path / "train.log"
    path.write_text("\n".join([*bar, "Epoch 0: train_step_timing in s=2"]))
    cut = conversion_at(path)
    assert cut is not None
    assert cut.record is not None
    assert cut.record.left_out["broken_lines"] == 1


def test_a_progress_bar_shows_many_steps_in_one_line(tmp_path: Path) -> None:
    """It goes back to the start of the line for each."""
    bar = [f"Epoch 0: : 5%| | global_step={number}.0, train_step_timing in s={2.0 + number % 3}]" for number in range(31)]
    record = record_of(tmp_path, ["\r".join(bar)], "NeMo log")
    assert (record.steps, record.left_out, record.iteration_time_s) == (21, {"warm_up": 10}, 3.0)


def titan(step: int, rate: str = "6,150", key: str = "tps", date: str = "") -> str:
    """A line of torchtitan in its colours."""
    return (
        f"[rank0]:{date}\x1b[31mstep: {step:2}  \x1b[32mloss:  7.1234  \x1b[38;2;180;60;0mgrad_norm:  1.2345  \x1b[33mmemory: "
        f"47.65GiB(50.12%)  \x1b[34m{key}: {rate}  \x1b[36mtflops: 356.17  \x1b[35mmfu: 36.01%\x1b[39m"
    )


def test_torchtitan_prints_tokens_of_a_gpu(tmp_path: Path) -> None:
    """And reserved memory. Without dates, the batch or the mesh nothing says how long a step takes."""
    record = record_of(tmp_path, [titan(1, "10"), *(titan(step) for step in range(10, 200, 10))], "torchtitan log")
    assert (record.tokens_per_s_per_gpu, record.iteration_time_s) == (6150, None)
    assert (record.memory_bytes, record.memory_kind) == (47.65 * GIB, "reserved")
    assert (record.printed_tflop_per_s_per_gpu, record.tflop_convention) == (356.17, "full")


def test_its_batch_and_mesh_say_how_long_a_step_takes(tmp_path: Path) -> None:
    """Tokens of a GPU over its rate."""
    head = [
        "[rank0]:Building 2-D device mesh with ['dp_shard', 'tp'], [4, 2]",
        "[rank0]:Trainer: local batch size 2, global batch size 8, accumulation steps 1, sequence length 8192, steps 1000",
    ]
    record = record_of(tmp_path, [*head, *(titan(step) for step in range(1, 20))], "torchtitan log")
    assert (record.gpus, record.global_batch_size) == (8, 8)
    assert record.iteration_time_s == pytest.approx(8192 / 6150)


def test_dates_say_how_long_a_step_takes(tmp_path: Path) -> None:
    """Older lines have wps, and other ranks print them too."""
    lines = []
    for place, step in enumerate(range(10, 200, 10)):
        text = titan(step, key="wps", date=f"2024-10-01 10:{place:02}:00,500 - root - INFO - ")
        lines += [text, text.replace("rank0", "rank1")]
    record = record_of(tmp_path, lines, "torchtitan log")
    assert (record.iteration_time_s, record.left_out["other_ranks"]) == (6.0, 19)


def test_a_cut_line_of_torchtitan_is_no_rate(tmp_path: Path) -> None:
    """6,1 is no rate of 61."""
    cut = titan(30).partition("6,150")[0] + "6,1"
    record = record_of(tmp_path, [*(titan(step) for step in range(1, 30)), cut], "torchtitan log")
    assert (record.tokens_per_s_per_gpu, record.left_out["broken_lines"]) == (6150, 1)


def test_nanotron_writes_numbers_for_people(tmp_path: Path) -> None:
    """K, M and G."""
    lines = [
        f"iteration: {number} / 2000 | consumed_tokens: 61.4K | time_per_iteration_ms: 1.2K | tokens_per_sec: 51.2K | "
        "tokens_per_sec_per_gpu: 6.4K | global_batch_size: 30 | lm_loss: 4.5 | model_tflops_per_gpu: 380 | "
        "cuda_max_memory_reserved: 60.1G | eta: 1:00:00"
        for number in range(1, 12)
    ]
    record = record_of(tmp_path, lines, "nanotron log")
    assert (record.iteration_time_s, record.tokens_per_s_per_gpu, record.global_batch_size) == (1.2, 6400, 30)
    assert record.memory_bytes == pytest.approx(60.1e9)
    assert any("expect 1 %" in each for each in record.notes)


def test_maxtext_states_the_tokens_of_a_step(tmp_path: Path) -> None:
    """From which the devices follow; its convention changed."""
    lines = [
        f"completed step: {number}, seconds: 15.516, TFLOP/s/device: 508.371, Tokens/s/device: 1055.949, "
        "total_weights: 4194304, loss: 0.000"
        for number in range(12)
    ]
    record = record_of(tmp_path, lines, "MaxText log")
    assert (record.iteration_time_s, record.tokens_per_s_per_gpu, record.gpus) == (15.516, 1055.949, 256)
    assert (record.tflop_convention, any("July 2025" in each for each in record.notes)) == ("unknown", True)


def test_deepspeed_prints_samples_of_all_gpus(tmp_path: Path) -> None:
    """A step follows from the batch at the head."""
    lines = [
        f"[2024-01-01 10:00:00,123] [INFO] [timer.py:258:stop] epoch=0/micro_step={number}/global_step={number}, "
        "RunningAvgSamplesPerSec=11.0, CurrSamplesPerSec=16.0, MemAllocated=10.0GB, MaxMemAllocated=31.5GB"
        for number in range(1, 12)
    ]
    assert record_of(tmp_path, lines, "DeepSpeed log").iteration_time_s is None
    head = "[INFO] [config.py:1000:print]   train_batch_size ............. 64"
    record = record_of(tmp_path, [head, *lines], "DeepSpeed log")
    assert (record.iteration_time_s, record.memory_bytes, record.memory_kind) == (4.0, 31.5 * GIB, "allocated")


def test_the_trainer_of_hugging_face_prints_means_of_a_run(tmp_path: Path) -> None:
    """Samples/s are those of the whole world."""
    last = "{'train_runtime': 500.0, 'train_samples_per_second': 32.0, 'train_steps_per_second': 0.5}"
    lines = ["{'loss': 2.1, 'epoch': 0.1}", last]
    record = record_of(tmp_path, lines, "Hugging Face Trainer log")
    assert (record.iteration_time_s, record.steps, record.global_batch_size) == (2.0, 250, 64)


def test_mlperf_tracks_the_time_of_steps(tmp_path: Path) -> None:
    """Among its other events."""

    def event(key: str, value: object) -> str:
        return f":::MLLOG {json.dumps({'namespace': '', 'key': key, 'value': value})}"

    lines = [event("global_batch_size", 128), event("max_sequence_length", 8192), ":::MLLOG {cut"]
    lines += [event("tracked_stats", {"train_step_time": time}) for time in (9.0, *[3.5] * 20)]
    lines += [event("eval_start", None), event("tracked_stats", {"train_step_timing in s": 8.0})]
    record = record_of(tmp_path, [*lines, event("tracked_stats", {"max_memory_usage": 60.0})], "MLPerf log")
    assert (record.iteration_time_s, record.global_batch_size, record.memory_bytes) == (3.5, 128, 60 * GIB)
    assert (record.left_out["evaluations"], record.left_out["broken_lines"], record.interval_s) == (1, 1, (3.5, 3.5))


@pytest.mark.parametrize("values", [{str(step): 1.5 for step in range(1, 31)} | {"5": "nan", "1": 9.0}, [9.0, *[1.5] * 29]])
def test_golden_values_of_tests_are_a_record(tmp_path: Path, values: object) -> None:
    """In seconds and bytes, by iteration or in a list."""
    memory = {"start_step": 1, "end_step": 30, "step_interval": 1, "values": {"1": 1000, "2": 2000}}
    text = json.dumps(
        {"iteration-time": {"start_step": 1, "step_interval": 1, "values": values}, "mem-max-allocated-bytes": memory}
    )
    record = record_of(tmp_path, [text], "Megatron-LM golden values")
    assert (record.iteration_time_s, record.memory_bytes) == (1.5, 2000)
