"""Into which groups does a measured row fall?"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from perfmodel.evidence.groups import by_group, by_label, group_names, known_groups, layout_kind, unsupported_reasons
from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.run import RampStage, Run

RAMP = read_candidates("nemotron-4-15b")[0].run
ONE_GPU = replace(
    RAMP, tensor_parallel=1, sequence_parallel=False, sharding="none", stages=(RampStage(data_parallel=1, global_batch_size=8),)
)


def row(run: Run | None, stack: str = "megatron-core") -> TimeComparison:
    """A measured run of some stack; not covered without a run."""
    return TimeComparison(
        measured=MeasuredRun(
            run_id="one",
            source="here",
            labels={"stack": stack},
            model=RAMP.model,
            sequence_length=4096,
            global_batch_size=8,
            gpus=8,
            peak_flop_per_s=None,
            iteration_time_s=1.0,
            printed_mfu=None,
            mfu_convention="products",
            run=run,
            reason="" if run else "not covered",
            assumptions=(),
        )
    )


def data_parallel(ranks: int) -> tuple[RampStage]:
    """One stage of some data-parallel ranks."""
    return (RampStage(data_parallel=ranks, global_batch_size=8),)


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (ONE_GPU, "single"),
        (replace(ONE_GPU, stages=data_parallel(8)), "data"),
        (replace(ONE_GPU, stages=data_parallel(8), sharding="zero1"), "data"),
        (replace(ONE_GPU, stages=data_parallel(8), sharding="zero3"), "fsdp"),
        (replace(ONE_GPU, stages=data_parallel(8), sharding="hsdp", data_parallel_replicas=2), "fsdp"),
        (replace(ONE_GPU, context_parallel=2, sharding="zero3"), "context + fsdp"),
        (replace(ONE_GPU, sharding="zero3"), "single"),
        (RAMP, "tensor + data"),
        (replace(ONE_GPU, pipeline_parallel=4), "pipeline"),
        (replace(ONE_GPU, pipeline_parallel=4, virtual_pipeline=2), "interleaved"),
        (replace(ONE_GPU, pipeline_parallel=4, pipeline_schedule="zb-h1"), "zero-bubble"),
        (replace(RAMP, pipeline_parallel=4, context_parallel=2, stages=data_parallel(2)), "tensor + pipeline + context + data"),
    ],
)
def test_a_layout_is_called_by_what_splits_its_work(run: Run, kind: str) -> None:
    """Degrees above 1, in one order, and how data parallelism keeps its states."""
    assert layout_kind(run) == kind


def test_a_row_that_is_not_covered_has_no_kind_of_layout() -> None:
    """Its source and labels are known all the same."""
    assert group_names(row(None).measured) == {"source": "here", "stack": "megatron-core"}
    assert group_names(row(RAMP).measured)["layout"] == "tensor + data"


def test_groups_are_known_without_a_covered_row() -> None:
    """So that a bar can be set for them."""
    assert known_groups([row(None, "fsdp").measured, row(RAMP).measured]) == {
        "source": {"here"},
        "stack": {"fsdp", "megatron-core"},
        "layout": {"tensor + data"},
    }


def test_only_covered_rows_are_summarised_by_group() -> None:
    """Each in every group that it is in."""
    groups = by_group([row(None, "fsdp"), row(RAMP), row(ONE_GPU)], len)
    assert groups == {"source": {"here": 2}, "stack": {"megatron-core": 2}, "layout": {"single": 1, "tensor + data": 1}}


def test_rows_that_are_not_covered_are_counted_by_reason() -> None:
    """The others are not."""
    assert unsupported_reasons([row(None), row(RAMP), row(None)]) == {"not covered": 2}


@dataclass(frozen=True)
class Labelled:
    """A row of some table, and the row beside its prediction, which is itself."""

    labels: dict[str, str]

    @property
    def measured(self) -> Labelled:
        """Itself."""
        return self


def test_rows_are_summarised_by_each_value_of_each_label() -> None:
    """Every value, in alphabetical order; each row once a label."""
    rows = [Labelled({"gpu": gpu, "engine": engine}) for gpu, engine in (("b", "y"), ("a", "x"), ("b", "x"))]
    assert by_label(rows, ("gpu", "engine"), len) == {"gpu": {"a": 1, "b": 2}, "engine": {"x": 2, "y": 1}}
    assert list(by_label(rows, ("gpu",), len)["gpu"]) == ["a", "b"]
    assert by_label([], ("gpu",), len) == {"gpu": {}}
