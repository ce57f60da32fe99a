"""Which stack and defaults does a row of a table of measured runs get?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.parameters import parameter_count
from perfmodel.errors import InputError
from perfmodel.exchange.presets import stack_preset


@pytest.mark.parametrize(
    ("cells", "captured"),
    [
        ({"source": "mlcommons/training_results_v5.1 NVIDIA/tyche_ngpu512_ngc25.09_nemo", "gpu": "gb200"}, True),
        ({"source": "mlcommons/training_results_v5.1 Dell", "gpu": "b200", "overlap": "all of DP; CUDA graphs"}, True),
        ({"source": "mlcommons/training_results_v5.1 Cisco/hpf_n16", "gpu": "h100-sxm-80gb"}, False),
        ({}, False),
    ],
)
def test_launches_are_captured_where_a_submission_says_so(read: Any, cells: dict[str, str], *, captured: bool) -> None:
    """MLPerf's of NVIDIA on Grace, and those whose words say it; their 8-bit parameters are gathered whoever submits."""
    (row,) = read(cells)
    assert row.run.stack.host.cuda_graphs is captured
    assert row.run.stack.low_precision.parameter_gather is ("source" in cells)


@pytest.mark.parametrize(
    ("model", "captured"),
    [("GPT3-175B", True), ("Nemotron-4 15B", True), ("Llama 3 8B", True), ("Llama 3.1 405B", False), ("LLAMA3_70B", False)],
)
def test_launches_are_captured_where_nemo_recommends_it(read: Any, model: str, *, captured: bool) -> None:
    """scripts/performance of NVIDIA/NeMo in 2025, a column of its recommended configurations for GB200."""
    source = {"source": "docs.nvidia.com NeMo user guide NeMo 25.04", "software": "NeMo / Megatron-Core NeMo 25.04"}
    (row,) = read({**source, "gpu": "gb200", "model": model})
    assert row.run.stack.host.cuda_graphs is captured
    (elsewhere,) = read({**source, "gpu": "h100-sxm-80gb", "model": model})
    assert not elsewhere.run.stack.host.cuda_graphs


@pytest.mark.parametrize(
    ("cells", "preset"),
    [
        ({}, "megatron-core"),
        ({"software": "NVIDIA NeMo / Megatron-Core dgxc v24.11.1..v25.01.1"}, "megatron-core"),
        ({"software": "NVIDIA NeMo / Megatron-Core dgxc v25.04..v25.04.02"}, "megatron-core-2025"),
        ({"software": "NeMo 25.02.01 / Megatron-Core", "source": "NVIDIA/dgxc-benchmarking"}, "megatron-core-2025"),
        ({"software": "NeMo / Megatron-Core NeMo 25.02"}, "megatron-core"),
        ({"software": "Megatron-Bridge (Megatron-Core) 25.09 NeMo Container"}, "megatron-bridge"),
        ({"stack": "megatron-lm", "gpu": "a100-sxm-80gb"}, "megatron-lm"),
        ({"stack": "megatron-lm"}, "megatron-lm-2023"),
        ({"stack": "megatron-lm", "gpu": "a100-sxm-80gb", "sharding": "zero1"}, "megatron-lm-2023"),
        ({"stack": "megatron-lm", "gpu": "a100-sxm-80gb", "software": "Megatron-LM core_v0.6.0"}, "megatron-lm-2023"),
        ({"stack": "megatron-core", "software": "NeMo 24.07"}, "nemo-2024"),
        ({"stack": "nanotron"}, "nanotron"),
        ({"stack": "maxtext"}, "maxtext"),
        ({"stack": "paxml"}, "paxml"),
        ({"stack": "megascale"}, "megascale"),
        ({"stack": "deepspeed-zero3"}, "deepspeed-zero"),
        ({"stack": "megatron-lm", "source": "arXiv:2205.05198"}, "megatron-lm-2022"),
        ({"stack": "megatron-lm", "software": "Megatron-LM 23e00ed + TE 2.11"}, "megatron-lm-2025"),
        ({"stack": "megatron-core", "software": "Megatron-Core v0.16"}, "megatron-core-2026"),
        ({"stack": "megatron-core", "software": "Megatron-Core v0.20"}, "megatron-core-2026"),
        ({"stack": "megatron-core", "software": "Megatron-Core v0.15"}, "megatron-lm-2025"),
        ({"stack": "megatron-core", "software": "Megatron-Core dev 2025-11, TE 2.9"}, "megatron-lm-2025"),
        ({"stack": "megatron-deepspeed"}, "megatron-deepspeed"),
        ({"stack": "internevo"}, "internevo"),
        ({"stack": "torchtitan", "sharding": "none"}, "torchtitan"),
        ({"stack": "torchtitan", "sharding": "none", "overlap": "eager"}, "torchtitan-eager"),
        ({"stack": "torchtitan", "sharding": "none", "overlap": "torch.compile + AsyncTP"}, "torchtitan-async-tp"),
        ({"stack": "fsdp", "sharding": "none", "software": "llm-foundry/Composer (PyTorch FSDP)"}, "llm-foundry"),
        (
            {"stack": "fsdp", "sharding": "none", "software": "llm-foundry/Composer", "notes": "MP Mode=DEFAULT; FULL_SHARD"},
            "llm-foundry-2023-10",
        ),
        ({"stack": "fsdp", "sharding": "none"}, "pytorch-fsdp"),
    ],
)
def test_a_stack_is_chosen_by_the_columns_that_tell_it_apart(read: Any, cells: dict[str, str], preset: str) -> None:
    """Name, software, source or overlap; what is known brings no warning."""
    (row,) = read(cells)
    assert row.run.stack == stack_preset(preset)
    assert row.warning == ""


@pytest.mark.parametrize(
    ("stack", "named"), [("mystery", "mystery"), ("megatron-core-ish", "megatron-core-ish"), ("", "not stated")]
)
def test_a_stack_without_a_preset_is_generic_and_says_so(read: Any, stack: str, named: str) -> None:
    """The warning names it, and is the first of the assumptions."""
    (row,) = read({"stack": stack})
    assert row.run.stack == stack_preset("generic")
    assert named in row.warning
    assert "generic stands for it" in row.warning
    assert row.assumptions[0] == row.warning


@pytest.mark.parametrize(("kernel", "fused"), [("flash", True), ("fused", True), ("unfused", False)])
@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm"])
def test_the_attention_kernel_of_a_row_overrules_its_stack(read: Any, stack: str, kernel: str, fused: bool) -> None:
    """Megatron-LM of 2021 has none that is fused; a row may have."""
    (row,) = read({"stack": stack, "attention_kernel": kernel})
    assert row.run.stack.fusion.attention is fused


@pytest.mark.parametrize(
    ("cells", "settings"),
    [
        ({}, ("1f1b", 1, 4)),
        ({"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) 1F1B"}, ("1f1b", 1, 4)),
        (
            {"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) 1F1B-I"},
            ("1f1b", 8, 4),
        ),  # 30 layers and two ends over 4 stages
        ({"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) ZB-H1"}, ("zb-h1", 1, 4)),
        ({"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) ZB-1p"}, ("zb-1p", 1, 4)),
        ({"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) ZB-2p"}, ("zb-2p", 1, 4)),
        ({"stack": "torchtitan"}, ("1f1b", 1, 1)),
        ({"stack": "torchtitan", "notes": "PP schedule Interleaved 1F1B"}, ("1f1b", 2, 1)),
    ],
)
def test_the_schedule_of_a_row_is_read_from_its_words(read: Any, cells: dict[str, str], settings: tuple[str, int, int]) -> None:
    """The columns have no place for it; torchtitan's micro-batch column is what all stages of a replica share."""
    layout = {
        "layers": "30",
        "pipeline_parallel": "4",
        "data_parallel": "2",
        "micro_batch_size": "4",
        "global_batch_size": "64",
    }
    (row,) = read(layout | cells)
    run = row.run
    assert (run.pipeline_schedule, run.virtual_pipeline, run.micro_batch_size) == settings


def test_notes_that_name_an_attention_library_choose_it(read: Any) -> None:
    """NVIDIA's Nemotron-4 340B ran FlashAttention-2; others what their stack takes."""
    named, silent = read({"notes": "selective in yaml (NVTE_FUSED_ATTN=0 -> flash-attn)"}, {})
    assert (named.run.stack.fusion.attention_library, silent.run.stack.fusion.attention_library) == ("flash2", "fastest")


@pytest.mark.parametrize(("words", "overlap"), [("tp_comm_overlap off", "backward"), ("ub_tp_comm_overlap=True", "pipelined")])
def test_a_row_says_whether_userbuffers_are_on(read: Any, words: str, overlap: str) -> None:
    """Without them the backward collectives alone run beside products."""
    stated, silent = read({"notes": words}, {})
    assert stated.run.stack.overlap.tensor_parallel == overlap
    assert silent.run.stack.overlap.tensor_parallel == "pipelined"


@pytest.mark.parametrize(("kernels", "cast"), [("torch", True), ("fused", False), ("flash_attention2", False)])
def test_the_torch_kernel_of_aleph_alpha_casts_scores_to_fp32(read: Any, kernels: str, cast: bool) -> None:
    """arXiv:2311.05610 names its kernels in words that only its own software gives a meaning."""
    cells = {"stack": "aleph-alpha-scaling", "kernels": kernels, "attention_kernel": "unfused", "precision": "bf16"}
    own, another = read({**cells, "source": "arXiv:2311.05610 some.xlsx"}, {**cells, "source": "somewhere else"})
    assert (own.run.stack.fusion.fp32_scores, another.run.stack.fusion.fp32_scores) == (cast, False)


def test_a_gpt_trains_with_dropout_unless_its_software_has_none(read: Any) -> None:
    """llm-foundry's MPT has it switched off, and the assumption says so."""
    (gpt,) = read({"activation": "gelu"})
    (mpt,) = read({"activation": "gelu", "source": "mosaicml/llm-foundry"})
    assert (gpt.model.dropout, mpt.model.dropout) == (True, False)
    assert any("biases, no dropout" in each for each in mpt.assumptions)


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "printed"),
    [(22, 2304, 24, 1.5), (30, 4096, 32, 6.2), (46, 5120, 40, 14.6), (62, 6144, 48, 28.3)],
)
def test_models_of_zero_bubble_have_the_size_that_names_them(
    read: Any, layers: int, hidden: int, heads: int, printed: float
) -> None:
    """arXiv:2401.10241, table 3: 51,200 rows of embeddings would make three of them 6.3, 14.7 and 28.4 billion."""
    model = {"model": "GPT", "activation": "gelu", "vocab_size": "", "kv_heads": str(heads), "ffn_hidden_size": str(4 * hidden)}
    sizes = {"layers": str(layers), "hidden_size": str(hidden), "attention_heads": str(heads), "sequence_length": "1024"}
    (row,) = read({"source": "arXiv:2401.10241 Table 4 (Zero Bubble PP) 1F1B", "stack": "megatron-lm", **model, **sizes})
    assert round(float(parameter_count(row.model).total) / 1e9, 1) == printed


@pytest.mark.parametrize("precision", ["mxfp8", "nvfp4"])
def test_formats_with_scales_of_blocks_are_timed_as_themselves(read: Any, precision: str) -> None:
    """And no other format stands for them."""
    (row,) = read({"precision": precision, "gpu": "gb300"})
    assert (row.run.precision, row.labels["precision"]) == (precision, precision)
    assert not any("is timed as" in assumption for assumption in row.assumptions)


@pytest.mark.parametrize("precision", ["mxfp8", "nvfp4"])
def test_a_row_in_a_format_that_its_gpu_lacks_is_left_out_with_the_reason(read: Any, precision: str) -> None:
    """Hopper has neither; nothing else is priced in its place."""
    (row,) = read({"precision": precision, "gpu": "h100-sxm-80gb"})
    assert row.run is None or f"no {precision} rate" in row.reason


def test_a_switch_of_fsdp_that_is_off_is_the_distributed_optimizer(read: Any) -> None:
    """Tables of Megatron-Bridge say `none` where others say zero1."""
    switch, word = read({"source": "NVIDIA-NeMo/Megatron-Bridge 25.09", "sharding": "none"}, {"sharding": "none"})
    assert (switch.run.sharding, word.run.sharding) == ("zero1", "none")


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-deepspeed"])
def test_a_row_that_does_not_name_its_attention_kernel_has_that_of_its_stack(read: Any, stack: str) -> None:
    """Nothing is overruled by a blank."""
    (row,) = read({"stack": stack})
    assert row.run.stack.fusion.attention is stack_preset(stack).fusion.attention


@pytest.mark.parametrize(
    ("stack", "sequence_parallel", "sharding"), [("megatron-core", "yes", "zero1"), ("megatron-deepspeed", "no", "none")]
)
def test_blank_settings_are_those_of_the_stack(read: Any, stack: str, sequence_parallel: str, sharding: str) -> None:
    """And are listed as assumptions; what a row states is not."""
    blank, stated = read({"stack": stack}, {"stack": stack, "sequence_parallel": "no", "sharding": "zero1"})
    assert blank.run.sequence_parallel is (sequence_parallel == "yes")
    assert blank.run.sharding == sharding
    assert f"sequence_parallel is not stated: {sequence_parallel} is assumed" in blank.assumptions
    assert f"sharding is not stated: {sharding} is assumed" in blank.assumptions
    assert (stated.run.sequence_parallel, stated.run.sharding) == (False, "zero1")
    assert not any("sharding" in sentence for sentence in stated.assumptions)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"global_batch_size": ""}, "the global batch size is not stated"),
        ({"gpu": ""}, "gpu: not stated"),
        ({"gpu": "tpu"}, "gpu: no cluster preset has tpu"),
        ({"data_parallel": "4"}, "this layout is refused: data_parallel: its degrees make 4 GPUs, not 8"),
        ({"tensor_parallel": "3"}, "this layout is refused: tensor_parallel: 3 does not divide 32 attention heads"),
    ],
)
def test_a_row_that_cannot_be_predicted_has_its_reason(read: Any, cells: dict[str, str], reason: str) -> None:
    """And no run; its measurement stays."""
    (row,) = read(cells)
    assert row.run is None
    assert row.reason.startswith(reason)
    assert row.iteration_time_s == 60.2


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"layers": "3.5"}, "line 3, column layers: '3.5' is not a positive whole number"),
        ({"hidden_size": ""}, "line 3, column hidden_size: not stated"),
        ({"iteration_time_s": ""}, "line 3, column iteration_time_s: not stated"),
        ({"iteration_time_s": "fast"}, "line 3, column iteration_time_s: 'fast' is not a time; write it like 0.57s"),
        ({"iteration_time_s": "nan"}, "line 3, column iteration_time_s: 'nan' is not a time"),
        ({"use": "contxt"}, "line 3, column use: 'contxt' is not one of them; did you mean context?"),
    ],
)
def test_a_row_whose_decisive_cell_is_wrong_is_named_and_left_out(read_all: Any, cells: dict[str, str], reason: str) -> None:
    """By line and column; the others stay."""
    table = read_all({}, cells | {"run_id": "bad"}, {})
    assert len(table.rows) == 2
    (bad,) = table.unread
    assert (bad.line, bad.run_id) == (3, "bad")
    assert bad.reason.startswith(reason)


@pytest.mark.parametrize(("name", "problem"), [("", "not stated"), ("two\nlines", "'two\\nlines' is not one line of text")])
def test_a_row_needs_a_name_on_one_line(read_all: Any, name: str, problem: str) -> None:
    """The column is named, not what becomes of it."""
    (bad,) = read_all({}, {"run_id": name}).unread
    assert bad.reason.endswith(f"column run_id: {problem}")


def test_a_time_may_have_a_unit(read: Any) -> None:
    """As everywhere else."""
    assert read({"iteration_time_s": "590ms"})[0].iteration_time_s == 0.59


def test_a_table_of_which_no_row_can_be_read_is_refused(read: Any) -> None:
    """With the first of its rows."""
    with pytest.raises(InputError, match=r"runs.csv, line 2, column layers: not stated \(and 1 other rows\)$"):
        read({"layers": ""}, {"gpus": "0"})


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"mfu_pct": "105.7"}, "mfu_pct: '105.7' is not between 0.001 and 100; the MFU of the row is left out"),
        ({"memory_gib": "much"}, "memory_gib: 'much' is not a number of GiB; the memory of the row is left out"),
        ({"mfu_pct": "88"}, "mfu_pct: 88 stands beside a time of 60.2 s, which means"),
        (
            {"iteration_time_s": "10"},
            "iteration_time_s: 10 s means an MFU of 76.7, above the 68.7 of the fastest published run",
        ),
    ],
)
def test_a_cell_that_predicts_nothing_is_named_and_the_row_stays(read: Any, cells: dict[str, str], words: str) -> None:
    """As a warning."""
    (row,) = read(cells)
    assert row.run is not None
    assert words in row.warning


@pytest.mark.parametrize(
    ("cell", "source", "size", "kind"),
    [
        ("70.5", "somebody", 70.5 * 2**30, "allocated"),
        ("92.8 (GB max_memory_usage)", "somebody", 92.8e9, "allocated"),
        ("49 (GB nvidia-smi-like)", "somebody", 49e9, "device"),
        ("76/80", "FlagOpen/FlagPerf megatron-core", 76 * 2**30, "device"),
        ("82.4", "pytorch/torchtitan 9dec370", 82.4 * 2**30, "reserved"),
        ("", "somebody", None, "allocated"),
    ],
)
def test_memory_is_what_its_source_measures(read: Any, cell: str, source: str, size: float | None, kind: str) -> None:
    """A number of GiB, or of the unit behind it; of tensors unless the cell or the source says otherwise."""
    (row,) = read({"memory_gib": cell, "source": source})
    assert (row.memory_bytes, row.memory_kind) == (size, kind)


def test_a_row_of_context_is_not_scored(read: Any) -> None:
    """It has a run like any other."""
    first, second = read({}, {"use": "context"})
    assert (first.scored, second.scored) == (True, False)
    assert second.run is not None


def test_the_name_of_a_preset_is_that_stack(read: Any) -> None:
    """No warning, no stand-in."""
    (row,) = read({"stack": "megatron-lm-2025"})
    assert row.run.stack == stack_preset("megatron-lm-2025")
    assert row.warning == ""


def test_a_setting_of_the_layout_that_cannot_be_read_is_the_reason(read: Any) -> None:
    """Its row is left out, and the others are not."""
    good, bad = read({}, {"sequence_parallel": "perhaps"})
    assert good.run is not None
    assert bad.run is None
    assert bad.reason == "this layout is refused: sequence_parallel: 'perhaps' is not yes or no"
