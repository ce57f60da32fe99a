"""How tables of fine-tuning runs are read, and scored."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence.tuning.rows import FITS, MEMORY, SPEED, MeasuredTuning
from perfmodel.evidence.tuning.scores import compare_tuning, memory_error, tuning_scoreboard, without_own_source
from perfmodel.exchange.tables.tuning_runs import TUNING_COLUMNS, is_tuning_table, read_tuning_runs

ROW = {
    "run_id": "one", "source": "a lab", "model": "meta-llama/Llama-2-7b-hf", "gpu": "a100-sxm-80gb", "gpus": "1",
    "method": "lora", "lora_rank": "16", "lora_targets": "q_proj v_proj", "optimizer": "adamw", "precision": "bf16",
    "seq": "2048", "micro_batch": "2", "accumulation": "4", "checkpointing": "yes", "sharding": "none", "offload": "none",
    "peak_memory_gib": "20", "memory_kind": "torch max_memory_allocated", "tokens_per_s": "3000",
    "tokens_per_s_scope": "per GPU", "fits": "yes",
}  # fmt: skip


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """The runs of a table whose rows differ from ROW in some cells."""

    def _read(*rows: dict[str, str]) -> tuple[MeasuredTuning, ...]:
        path = tmp_path / "runs.csv"
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, TUNING_COLUMNS, restval="")
            writer.writeheader()
            writer.writerows(ROW | row for row in rows)
        assert is_tuning_table(path)
        return read_tuning_runs(path).rows

    return _read


def test_a_row_is_a_run_with_what_was_measured_of_it(read: Any) -> None:
    """Settings of the run, and speeds of all GPUs together."""
    (row,) = read({"gpus": "2", "sharding": "fsdp"})
    assert row.run is not None
    assert (row.run.training, row.run.adapter_rank, row.run.adapter_targets) == ("lora", 16, ("query", "value"))
    assert (row.run.sharding, row.run.recompute, row.run.micro_batch_size) == ("zero3", "full", 2)
    assert (row.run.stages[0].data_parallel, row.run.stages[0].global_batch_size) == (2, 16)
    assert row.values == {MEMORY: 20, SPEED: 6000, FITS: 1}


@pytest.mark.parametrize(
    ("cells", "training", "weights"),
    [
        ({"method": "full"}, "full", "bf16"),
        ({"method": "qlora nf4 (bnb)"}, "qlora", "nf4-dq"),
        ({"method": "qlora gptq int4"}, "qlora", "int4"),
        ({"method": "qlora nf4", "source": "LitGPT"}, "qlora", "nf4"),
        ({"method": "dora"}, "dora", "bf16"),
    ],
)
def test_words_of_methods_name_trainings_and_weights(read: Any, cells: dict[str, str], training: str, weights: str) -> None:
    """As data/tuning_columns.yaml has them."""
    (row,) = read(cells)
    assert row.run is not None
    assert (row.run.fine_tuning.training, row.run.fine_tuning.weights) == (training, weights)


def test_what_is_not_covered_has_a_reason_and_no_run(read: Any) -> None:
    """Another method, an estimate, a model of which nothing is known, a length in words."""
    rows = read({"method": "adapter"}, {"source": "their ESTIMATES"}, {"model": "nobody/knows"}, {"seq": "short"})
    assert [row.run for row in rows] == [None] * 4
    assert all(row.reason for row in rows)
    assert [each.predicted for row in rows for each in compare_tuning(row)] == [None] * 12


def test_a_card_that_is_named_by_its_memory_has_that_memory(read: Any) -> None:
    """Whatever GPU it is."""
    (row,) = read({"gpu": "12 GB card"})
    assert row.run is not None
    assert row.run.cluster.gpu.memory_bytes == 12 * 2**30


def test_a_speed_that_no_gpu_reaches_is_that_of_all(read: Any) -> None:
    """20,000 tokens/s of each GPU would be 520 TFLOP/s of an A100."""
    (row,) = read({"gpus": "8", "tokens_per_s": "20000"})
    assert row.values[SPEED] == 20000


def test_memory_is_compared_as_it_was_measured(read: Any) -> None:
    """What tensors take is less than what the allocator reserves, and that less than what the device shows."""
    rows = read(*({"memory_kind": kind} for kind in ("max_memory_allocated", "torch reserved", "nvidia-smi")))
    allocated, reserved, device = (compare_tuning(row)[0].predicted or 0.0 for row in rows)
    assert 0 < allocated < reserved < device


def test_a_source_is_judged_by_the_errors_of_the_others(read: Any) -> None:
    """The interval of a lab is as wide as the error of another, and the other way round."""
    rows = read({"source": "one", "peak_memory_gib": "18"}, {"source": "other", "peak_memory_gib": "30"})
    found = [each for row in rows for each in compare_tuning(row) if each.metric == MEMORY]
    one, other = without_own_source(found)
    for judged, by in ((one, found[1]), (other, found[0])):
        assert judged.predicted is not None
        assert judged.interval == pytest.approx(
            (judged.predicted / (1 + memory_error([by])), judged.predicted * (1 + memory_error([by])))
        )


def test_memory_is_judged_by_what_was_measured_alike(read: Any) -> None:
    """What an allocator holds has the errors of others that saw it; tensors have those of tensors."""
    rows = read(
        {"source": "one", "memory_kind": "torch reserved", "peak_memory_gib": "18"},
        {"source": "two", "memory_kind": "nvidia-smi", "peak_memory_gib": "40"},
        {"source": "three", "memory_kind": "max_memory_allocated", "peak_memory_gib": "16"},
        {"source": "four", "memory_kind": "max_memory_allocated", "peak_memory_gib": "17"},
    )
    found = [each for row in rows for each in compare_tuning(row) if each.metric == MEMORY]
    for judged, by in zip(without_own_source(found), (found[1], found[0], found[3], found[2]), strict=True):
        assert judged.predicted is not None
        assert judged.interval is not None
        assert judged.interval[1] / judged.predicted == pytest.approx(1 + memory_error([by]))


def test_scores_count_what_is_scored_alone(read: Any) -> None:
    """A speed whose unit is a guess is predicted and shown."""
    rows = read({}, {"tokens_per_s_scope": "per GPU (guess)"})
    scores = tuning_scoreboard([each for row in rows for each in compare_tuning(row)])
    assert (scores.overall[SPEED].rows, scores.overall[MEMORY].rows, scores.overall[FITS].rows) == (1, 2, 2)
