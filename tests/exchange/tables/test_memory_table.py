"""Which layout, stack and kernels does a row of a table of what fitted get?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.measured_rows import MeasuredFit
from perfmodel.exchange.presets import cluster_preset, stack_preset
from perfmodel.exchange.tables.memory_table import FIT_COLUMNS, read_measured_fits
from tests.tables_of_fits import ROW, write_fits


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """The rows of a table that differ from ROW in some cells."""

    def _read(*rows: dict[str, str]) -> tuple[MeasuredFit, ...]:
        return read_measured_fits(write_fits(tmp_path / "fits.csv", *rows)).rows

    return _read


def test_a_row_is_a_run_without_a_time(read: Any) -> None:
    """Its layout as the columns say, its GPU from the preset, and whether it fitted."""
    first, second = read({}, {"fits": "no"})
    assert (first.fits, second.fits) == (True, False)
    assert (first.run_id, second.run_id) == ("line 2", "line 3")
    assert first.source == ROW["source"]
    layout = first.run.layout(first.run.stages[0])
    assert (layout.tensor_parallel, layout.pipeline_parallel, layout.data_parallel, layout.recompute) == (2, 2, 16, "full")
    assert first.run.cluster == cluster_preset("dgx-a100")


@pytest.mark.parametrize(
    ("source", "preset"),
    [
        ("arXiv:2311.05610 llama_13B.xlsx", "aleph-alpha-scaling"),
        ("bigscience chronicles-prequel", "megatron-deepspeed"),
        ("somewhere else", "generic"),
    ],
)
def test_the_source_tells_the_stack(read: Any, source: str, preset: str) -> None:
    """There is no column for it; a source that is not known is warned of."""
    (row,) = read({"source": source})
    assert row.run.stack.name == stack_preset(preset).name
    assert bool(row.warning) == (preset == "generic")


@pytest.mark.parametrize(
    ("detail", "norms"),
    [("flash_attention2 + RMS kernel", "fused"), ("flash_attention2", "eager_fp32"), ("torch", "eager_fp32")],
)
def test_the_kernels_of_norms_are_those_that_the_row_names(read: Any, detail: str, norms: str) -> None:
    """A kernel of its own, or what the stack does; the source does not matter."""
    for source in ("arXiv:2311.05610 llama.xlsx", "arXiv:2311.05610 seqpara__llama.xlsx"):
        (row,) = read({"source": source, "attention_kernel_detail": detail})
        assert row.run.stack.fusion.norms == norms


@pytest.mark.parametrize(("kernel", "fused"), [("flash", True), ("unfused", False)])
def test_the_attention_is_that_of_the_row(read: Any, kernel: str, fused: bool) -> None:
    """Whatever the stack does elsewhere."""
    (row,) = read({"attention_kernel": kernel})
    assert row.run.stack.fusion.attention is fused


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"gpu": "gpu-of-tomorrow"}, "gpu: no cluster preset has gpu-of-tomorrow"),
        (
            {"tensor_parallel": "3", "gpus": "96"},
            "this layout is refused: tensor_parallel: 3 does not divide 40 attention heads",
        ),
        ({"global_batch_size": ""}, "the global batch size is not stated"),
    ],
)
def test_a_row_that_is_not_covered_keeps_its_reason(read: Any, cells: dict[str, str], reason: str) -> None:
    """And no run."""
    (row,) = read(cells)
    assert row.run is None
    assert row.reason.startswith(reason)


def test_a_blank_takes_its_default_and_says_so(read: Any) -> None:
    """As in a table of published runs."""
    (row,) = read({"sequence_parallel": "", "precision": ""})
    assert {"sequence_parallel is not stated: no is assumed", "precision is not stated: bf16 is assumed"} <= set(
        row.assumptions
    )


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ({"fits": "perhaps"}, "fits.csv, line 2, column fits: 'perhaps' is not yes or no"),
        ({"fits": ""}, "fits.csv, line 2, column fits: '' is not yes or no"),
        ({"layers": "many"}, "fits.csv, line 2, column layers: 'many' is not a count"),
    ],
)
def test_a_wrong_cell_is_named_by_line_and_column(read: Any, cells: dict[str, str], sentence: str) -> None:
    """As an editor would find it."""
    with pytest.raises(InputError) as refused:
        read(cells)
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no column source; the file is empty"),
        (",".join(FIT_COLUMNS[:-1]) + "\n", "has no column fits; known: "),
        ("fits,fits\n", "has two columns fits"),
        (",".join(FIT_COLUMNS) + "\n" + "," * len(FIT_COLUMNS) + "\n", "line 2 has 1 more cells than there are columns"),
        ('"a\n', "is not a table of comma-separated values"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    """In one sentence."""
    table = tmp_path / "bad.csv"
    table.write_text(content)
    with pytest.raises(InputError) as refused:
        read_measured_fits(table)
    assert sentence in str(refused.value)
