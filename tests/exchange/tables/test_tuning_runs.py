"""How tables of fine-tuning runs are read, and scored."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.evidence.tuning.rows import FITS, MEMORY, SPEED, MeasuredTuning
from perfmodel.evidence.tuning.scores import TuningComparison, compare_tuning, tuning_scoreboard, without_own_source
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


def predicted(comparison: TuningComparison) -> float:
    """The number that is predicted, of a row that is covered."""
    assert comparison.predicted is not None
    return comparison.predicted


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


@pytest.mark.parametrize(("gpu", "name"), [("T4", "Tesla T4"), ("v100-32gb", "Tesla V100 SXM2 32GB"), ("a10g-24gb", "A10G")])
def test_a_card_trains_in_the_format_that_its_tensor_cores_have(read: Any, gpu: str, name: str) -> None:
    """Where the row does not name one: its speed is compared with the rate of that one, too."""
    (row,) = read({"gpu": gpu, "precision": ""})
    assert row.run is not None
    assert (row.run.cluster.gpu.name, row.run.precision) == (name, "bf16" if gpu.startswith("a10g") else "fp16")
    assert all(each.predicted is not None for each in compare_tuning(row))


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
    """The interval of a lab is as wide as the error of another, and the other way round; nobody else leaves it as it is."""
    rows = read({"source": "one", "peak_memory_gib": "18"}, {"source": "other", "peak_memory_gib": "30"})
    found = [each for row in rows for each in compare_tuning(row) if each.metric == MEMORY]
    for judged, by in zip(without_own_source(found), reversed(found), strict=True):
        ratio = float(np.exp(round(abs(np.log(by.value / predicted(by))), 3)))
        assert judged.interval == pytest.approx((predicted(judged) / ratio, predicted(judged) * ratio))
    assert without_own_source(found[:1]) == found[:1]


def test_memory_is_judged_most_by_what_was_measured_alike(read: Any) -> None:
    """Many rows of what an allocator holds, or of tensors, outweigh those of the other; few take the errors of both."""
    rows = read(
        {"source": "one", "memory_kind": "torch reserved"},
        {"source": "one", "memory_kind": "max_memory_allocated"},
        *({"source": f"held{lab}", "memory_kind": "nvidia-smi"} for lab in range(2)),
        *({"source": f"tensors{lab}", "memory_kind": "max_memory_allocated"} for lab in range(2)),
    )
    first = [compare_tuning(row)[0] for row in rows]
    off = [*first[:2], *(replace(each, value=predicted(each) * 1.5) for each in first[2:4])]
    off += [replace(each, value=predicted(each) * 1.1) for each in first[4:]]

    def widths(times: int) -> list[float]:
        labs = [
            replace(each, measured=replace(each.measured, source=f"{each.measured.source}{lab}"))
            for each in off[2:]
            for lab in range(times)
        ]
        found = without_own_source([*off[:2], *labs])[:2]
        return [(each.interval or (0.0, 0.0))[1] / predicted(each) for each in found]

    assert widths(100) == pytest.approx([1.5, 1.1], rel=1e-3)
    assert widths(2) == pytest.approx([1.5, 1.5], rel=1e-3)


def test_coverage_and_winkler_scores_are_of_numbers_alone(read: Any) -> None:
    """Verdicts have neither; with each source weighing one, half lie inside where one of two sources does."""
    rows = read(*({"source": "good"} for _ in range(3)), {"source": "bad"})
    found = [each for row in rows for each in compare_tuning(row)]
    memory = [replace(each, value=predicted(each)) for each in found if each.metric == MEMORY]
    scores = tuning_scoreboard([*memory[:3], replace(memory[3], value=9 * memory[3].value)]).overall[MEMORY]
    assert (scores.interval_coverage, scores.interval_coverage_by_source) == (0.75, 0.5)
    assert scores.winkler_score is not None
    verdicts = tuning_scoreboard([each for each in found if each.metric == FITS]).overall[FITS]
    assert (verdicts.interval_coverage, verdicts.interval_coverage_by_source, verdicts.winkler_score) == (None, None, None)


def test_scores_count_what_is_scored_alone(read: Any) -> None:
    """A speed whose unit is a guess is predicted and shown."""
    rows = read({}, {"tokens_per_s_scope": "per GPU (guess)"})
    scores = tuning_scoreboard([each for row in rows for each in compare_tuning(row)])
    assert (scores.overall[SPEED].rows, scores.overall[MEMORY].rows, scores.overall[FITS].rows) == (1, 2, 2)
