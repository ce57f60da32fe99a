"""Are runs read with their overrides and candidates, and wrong ones refused with the path of the key?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import cluster_preset, cluster_priors
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.run import Run

RUN = """
name: Small
model: llama-3.1-8b
cluster: dgx-h100
stack: megatron-core
tensor_parallel: 2
sequence_length: 8192
stages: [{data_parallel: 4, global_batch_size: 128, tokens: 1T}]
"""


def read(*overrides: str) -> Run:
    """The central preset with overrides."""
    return read_candidates("nemotron-4-15b", overrides)[0].run


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("tensor_paralel=4", "tensor_paralel: unknown key; did you mean tensor_parallel?"),
        ("cluster.gpu.memory_bytes=400Gb", "cluster.gpu.memory_bytes: '400Gb' is not a memory size"),
        ("cluster.links.network.bandwidth_bytes_per_s=50GB", "'50GB' is not a bandwidth"),
        ("cluster.links.network.bandwidth_bytes_per_s=800", r"bandwidth_bytes_per_s: 800 must be at least 1e\+06"),
        ("stages.0.global_batch_size=x0.3", r"stages\[0\].global_batch_size: 115.2 is not a whole number"),
        ("tensor_parallel=7", "tensor_parallel: 7 does not divide 48 attention heads; 1, 2, 3, 4, 6, 8"),
        ("micro_batch_size=3", "micro_batch_size: 3 does not divide the 4 sequences of a replica; 1, 2, 4 would"),
        ("stages.0.global_batch_size=385", r"stages\[0\].global_batch_size: 385 sequences .* 384 or 480 would"),
        ("model.layers=-4", "model.layers: -4 must be at least 1"),
        ("model.layers=2.5", "model.layers: 2.5 is not a whole number"),
        ("model.layers=many", "model.layers: 'many' is not a count"),
        ("model.kv_heads=7", "model.kv_heads: 7 does not divide 48 attention heads"),
        ("model.hidden_size=1e29", "model.hidden_size: 1e.29 must be at most 1e.09"),
        ("model.activation=gellu", "model.activation: 'gellu' is not one of them; did you mean gelu?"),
        ("model=nemotron-4-15c", "model: 'nemotron-4-15c' is not a preset of models; did you mean nemotron-4-15b?"),
        ("model=3", "model: 3 where the settings of a transformer model are needed"),
        ("model.position=learned", "model.max_positions: missing; learned positions need their number"),
        ("cluster.extends=dgx-h200", "cluster.extends: this cannot be set; set the part itself"),
        ("cluster.gpu.peak_flop_per_s.bf17=1e15", "peak_flop_per_s.bf17: unknown number format; did you mean bf16"),
        ("cluster.links.node.collectives=infiniband", r"collectives\.latency_s: unknown key; known: all_gather, all_reduce"),
        ("cluster.links.node.collectives.switch_reduce.ranks=1", "switch_reduce.ranks: 1 must be at least 2"),
        (
            "cluster.gpu.kernels=h100-sxm",
            "cluster.gpu.kernels: 'h100-sxm' is not a preset of kernels; did you mean h100-sxm-80gb?",
        ),
        ("cluster.gpu.kernels.matmul.bf16.tiles.0.rows=0", r"matmul.bf16.tiles\[0\].rows: 0 must be at least 1"),
        (
            "cluster.gpu.kernels.matmul.bf16.evidence.sizes.rows=4 2",
            r"sizes: rows: \(4.0, 2.0\) are not numbers in rising order",
        ),
        ("cluster.gpu.kernels.attention_forward.by_head_size.x=1", "by_head_size.x: head sizes are whole numbers"),
        (
            "cluster.spread.compute_scal=3%",
            "compute_scal: no number beside it that can be uncertain; did you mean compute_scale?",
        ),
        ("cluster.spread.compute_scale=400%", "cluster.spread.compute_scale: '400%' must be at most 3"),
        ("cluster.spread.compute_scale=-1%", "cluster.spread.compute_scale: '-1%' must be at least 0"),
        ("cluster.spread=3%", "cluster.spread: '3%' where a mapping of names is needed"),
        ("stack.fusion.norms=fusd", "stack.fusion.norms: 'fusd' is not one of them; did you mean fused?"),
        ("name=' '", "name: ' ' is not one line of text"),
        ("precision=~", "precision: nothing is not one of them"),
        ("stages.0.published.iteration_time_s=57%", "'57%' is not a time"),
        ("stages.0.published.mfu=42", "published.mfu: 42 must be at most 1"),
        ("model=none.json", "model: none.json cannot be read"),
        ("sequence_length=4097", "tensor_parallel: 8 does not divide 4097 tokens"),
        ("sequence_parallel=perhaps", "sequence_parallel: 'perhaps' is not true or false"),
        ("precision=fp7", "precision: 'fp7' is not one of them; did you mean fp8?"),
        ("fp32=true", r"fp32: unknown key; did you mean precision\?"),
        ("tf32=true", r"tf32: unknown key; did you mean precision\?"),
        ("stages=[]", "stages: at least one ramp stage is needed"),
        ("stages=4", "stages: 4 where a list is needed"),
        ("stages.9.tokens=4", "stages.9: '9' is not a place in a list of 3"),
        ("stages.0.tokens=8GB", r"stages\[0\].tokens: '8GB' is not a count"),
        ("stages.0.tokens.x=8", "has no keys below it"),
        ("stages.0.published.speed=8", "published.speed: unknown key; known: days, iteration_time_s, mfu"),
        ("micro_batch_size=[]", "micro_batch_size: an empty list of values"),
        ("micro_batch_size=0", "micro_batch_size: 0 must be at least 1"),
        ("micro_batch_size=.inf", "micro_batch_size: '.inf' is not a count"),
        ("cluster.gpu.peak_flop_per_s.bf16=0", "peak_flop_per_s.bf16: 0 must be greater than 0"),
        ("cluster.gpu.peak_flop_per_s=3", "peak_flop_per_s: 3 where a mapping of names is needed"),
        ("name=3", "name: 3 is not one line of text"),
        ("nonsense", "'nonsense' is not a setting; write --set key.path=value"),
        ("model={", "model: not valid YAML"),
        ("cluster.compute_scale=-1", "cluster.compute_scale: -1 must be greater than 0"),
    ],
)
def test_a_wrong_override_is_refused_with_its_key_and_what_would_work(override: str, sentence: str) -> None:
    """One sentence each, and exit code 2."""
    with pytest.raises(InputError, match=sentence) as caught:
        read(override)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_fp8_on_a_gpu_without_it_is_not_supported() -> None:
    """The A100 has no 8-bit matrix products."""
    with pytest.raises(NotSupportedError, match="A100 SXM 80GB has no fp8 rate"):
        read("cluster=dgx-a100", "precision=fp8")


def test_overrides_reach_into_presets_and_apply_in_order() -> None:
    """A later one may change what an earlier one brought in."""
    run = read("cluster=dgx-h200", "cluster.compute_scale=0.8", "cluster.gpu.memory_bytes=100GB", "stages[0].data_parallel=48")
    assert run.cluster.name == "DGX H200"
    assert run.cluster.compute_scale == 0.8
    assert run.cluster.gpu.memory_bytes == 100e9
    assert run.stages[0].data_parallel == 48


def test_a_run_file_needs_only_what_has_no_default(tmp_path: Path) -> None:
    """What it leaves out is listed as an assumption."""
    path = tmp_path / "small.yaml"
    path.write_text(RUN)
    (candidate,) = read_candidates(str(path))
    assert candidate.run.stages[0].tokens == 1e12
    assert "micro_batch_size is not given: 1 is assumed" in candidate.assumptions
    assert not any("tensor_parallel" in sentence for sentence in candidate.assumptions)


def test_a_file_may_change_one_number_deep_inside_a_preset(tmp_path: Path) -> None:
    """As --set can."""
    cluster = "{extends: dgx-h100, links: {network: {bandwidth_bytes_per_s: 800Gb/s}}, gpu: {memory_bytes: 100GB}}"
    path = tmp_path / "deep.yaml"
    path.write_text(RUN.replace("dgx-h100", cluster))
    (candidate,) = read_candidates(str(path))
    assert candidate.run.cluster.links.network.bandwidth_bytes_per_s == 100e9
    assert candidate.run.cluster.gpu.memory_bytes == 100e9
    assert candidate.run.cluster.compute_scale == cluster_preset("dgx-h100").compute_scale


@pytest.mark.parametrize(
    ("stack", "sequence_parallel", "sharding"), [("megatron-core", True, "zero1"), ("megatron-lm", False, "none")]
)
def test_a_run_that_does_not_say_takes_the_defaults_of_its_stack(
    tmp_path: Path, stack: str, sequence_parallel: bool, sharding: str
) -> None:
    """Sequence parallelism and sharding are what the software does; the assumption is listed."""
    path = tmp_path / "small.yaml"
    path.write_text(RUN.replace("megatron-core", stack))
    (candidate,) = read_candidates(str(path))
    assert (candidate.run.sequence_parallel, candidate.run.sharding) == (sequence_parallel, sharding)
    assert "sequence_parallel is not given: that of the stack is assumed" in candidate.assumptions
    assert "sharding is not given: that of the stack is assumed" in candidate.assumptions


def test_a_run_that_says_so_is_not_overruled_by_its_stack(tmp_path: Path) -> None:
    """Neither by the preset, nor by a stack that is changed."""
    path = tmp_path / "small.yaml"
    path.write_text(RUN + "sequence_parallel: false\nsharding: none\n")
    (candidate,) = read_candidates(str(path), ["stack.defaults.sharding=zero1"])
    assert (candidate.run.sequence_parallel, candidate.run.sharding) == (False, "none")
    assert not any(sentence.startswith(("sequence_parallel", "sharding")) for sentence in candidate.assumptions)


def test_each_candidate_stack_brings_its_own_defaults(tmp_path: Path) -> None:
    """What the first one does says nothing of the second."""
    path = tmp_path / "small.yaml"
    path.write_text(RUN)
    found = read_candidates(str(path), ["stack=[megatron-core,megatron-lm]"])
    assert [(each.run.sequence_parallel, each.run.sharding) for each in found] == [(True, "zero1"), (False, "none")]


def test_a_cluster_that_gives_one_spread_keeps_the_other_priors(tmp_path: Path) -> None:
    """In a file, and with --set."""
    priors = {name: read(f"cluster.spread.{name}=1%").cluster.spread[name] for name in read().cluster.spread}
    assert set(priors.values()) == {0.01}
    path = tmp_path / "small.yaml"
    path.write_text(RUN.replace("dgx-h100", "{extends: dgx-h100, spread: {compute_scale: 3%}}"))
    for run in (read("cluster.spread.compute_scale=3%"), read_candidates(str(path))[0].run):
        assert run.cluster.spread == {**read().cluster.spread, "compute_scale": 0.03}


def test_a_smaller_spread_narrows_the_interval_and_moves_nothing_else() -> None:
    """Two numbers less to doubt."""
    doubtful, surer = (
        predict(read(f"cluster.spread.network_scale={spread}", f"cluster.spread.compute_scale={spread}")).stages[0][1]
        for spread in ("30%", "0%")
    )
    assert surer.iteration_time_s == doubtful.iteration_time_s
    (low, high), (lower, higher) = surer.iteration_time_interval_s, doubtful.iteration_time_interval_s
    assert lower < low < surer.iteration_time_s < high < higher
    assert "cluster.network_scale" in doubtful.uncertainty.half_widths_s
    assert "cluster.network_scale" not in surer.uncertainty.half_widths_s


def test_an_assumption_goes_when_its_key_is_set() -> None:
    """The others stay, and so do the published figures."""
    (candidate,) = read_candidates("nemotron-4-15b", ["micro_batch_size=2"])
    assert not any("micro_batch_size" in sentence for sentence in candidate.assumptions)
    assert any("sequence parallelism" in sentence for sentence in candidate.assumptions)
    assert candidate.run.stages[0].published


def test_another_run_is_not_held_against_the_published_figures() -> None:
    """What was measured on H100 in bf16 says nothing of H200."""
    assert not read("cluster=dgx-h200").stages[0].published
    assert read("name=Mine").stages[0].published


def test_candidates_may_be_presets_and_stand_in_stages() -> None:
    """Any field that wants one value, or one preset."""
    found = read_candidates("nemotron-4-15b", ["cluster=[dgx-h100,dgx-h200]", "stages.0.data_parallel=[96,48]"])
    assert [candidate.run.cluster.name for candidate in found] == ["DGX H100", "DGX H100", "DGX H200", "DGX H200"]
    assert [candidate.run.stages[0].data_parallel for candidate in found] == [96, 48, 96, 48]


def test_the_rate_of_a_node_link_scales_what_was_measured() -> None:
    """Twice the NVLink: less time exposed."""
    slow, fast = (
        predict(read(f"cluster.links.node.bandwidth_bytes_per_s={rate}")).stages[0][1] for rate in ("450GB/s", "900GB/s")
    )
    assert fast.breakdown.tensor_parallel_exposed_s < 0.8 * slow.breakdown.tensor_parallel_exposed_s


@pytest.mark.parametrize(
    "override", ["cluster.gpu.peak_flop_per_s.bf16=1e-300", "cluster.gpu.kernels.memory_bound.fused.efficiency=1e-320"]
)
def test_numbers_without_a_finite_answer_are_refused(override: str) -> None:
    """Rather than printed as nan."""
    with pytest.raises(InputError, match="no finite iteration time"):
        predict(read(override))


def test_an_unknown_key_in_a_file_is_refused(tmp_path: Path) -> None:
    """A misspelt key does nothing quietly."""
    path = tmp_path / "small.yaml"
    path.write_text(RUN + "recomputing: full\n")
    with pytest.raises(InputError, match="recomputing: unknown key; did you mean recompute"):
        read_candidates(str(path))


def test_inline_mappings_stand_for_presets(tmp_path: Path) -> None:
    """A cluster of one's own takes the priors of its scales; `extends` gives only what differs."""
    links = "{node: nvlink-h100, network: {extends: infiniband-400, bandwidth_bytes_per_s: 800Gb/s}}"
    cluster = f"{{name: Mine, gpu: h100-sxm-80gb, gpus_per_node: 8, nics_per_node: 8, links: {links}}}"
    path = tmp_path / "mine.yaml"
    path.write_text(
        RUN.replace("dgx-h100", cluster).replace("megatron-core", "{extends: megatron-core, states: {gradient_bytes: 4}}")
    )
    (candidate,) = read_candidates(str(path))
    assert candidate.run.cluster.network_bytes_per_s_per_gpu == 100e9
    assert candidate.run.cluster.compute_scale == cluster_priors()[0]["compute_scale"]
    assert candidate.run.stack.states.gradient_bytes == 4


def test_a_spread_where_no_value_has_one_is_refused() -> None:
    """By the key that was given one."""
    with pytest.raises(InputError, match=r"^expert_load: a run has no spreads; give the value alone$"):
        read("expert_load={value: 1.2, spread: 0.1}")


@pytest.mark.parametrize(("heads", "head_size"), [(8, 128), (16, 64)])
def test_the_head_size_of_an_inline_model_follows_from_its_width(tmp_path: Path, heads: int, head_size: int) -> None:
    """As every software has it; one that is given stands, and a width that the heads do not divide has none."""
    sizes = f"hidden_size: 1024, attention_heads: {heads}, kv_heads: 8, layers: 4, ffn_hidden_size: 4096, vocab_size: 32000, "
    sizes += "activation: swiglu, norm: rmsnorm, position: rotary"
    path = tmp_path / "mine.yaml"
    for stated, expected in (("", head_size), (", head_size: 96", 96)):
        path.write_text(RUN.replace("llama-3.1-8b", f"{{name: Mine, {sizes}{stated}}}"))
        assert read_candidates(str(path))[0].run.model.head_size == expected
    path.write_text(RUN.replace("llama-3.1-8b", f"{{name: Mine, {sizes.replace('1024', '1001')}}}"))
    with pytest.raises(InputError, match=r"model\.head_size"):
        read_candidates(str(path))


def test_listed_values_become_candidates() -> None:
    """One run for each combination, the first first."""
    found = read_candidates("nemotron-4-15b", ["micro_batch_size=[1,2,4]", "sequence_parallel=[true,false]"])
    assert len(found) == 6
    assert found[0].values == {"sequence_parallel": True, "micro_batch_size": 1}
    assert {candidate.run.micro_batch_size for candidate in found} == {1, 2, 4}


def test_too_many_candidates_are_refused() -> None:
    """A sweep is another command."""
    values = ",".join(str(value) for value in range(1, 100))
    with pytest.raises(InputError, match="99 combinations of listed values; at most 64"):
        read(f"micro_batch_size=[{values}]")


KEYS = [
    "name",
    "model",
    "model.layers",
    "cluster",
    "cluster.links",
    "stack",
    "precision",
    "stages",
    "stages.0",
    "stages.0.tokens",
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(KEYS),
    st.text(max_size=12) | st.integers().map(str) | st.floats().map(str) | st.sampled_from(["[]", "{}", "~"]),
)
def test_any_override_gives_a_run_or_one_sentence(key: str, value: str) -> None:
    """No traceback, whatever is typed."""
    with contextlib.suppress(InputError, NotSupportedError):
        assert read_candidates("nemotron-4-15b", [f"{key}={value}"])


def test_a_run_that_asks_for_more_than_its_stack_offers_says_so() -> None:
    """It is predicted all the same."""
    (candidate,) = read_candidates("nemotron-4-15b", ["stack=pytorch-fsdp", "sharding=zero3", "context_parallel=2"])
    assert candidate.assumptions[-1].startswith(
        "PyTorch FSDP (llm-foundry) offers no tensor parallelism and no context parallelism; it is predicted as if it did"
    )
    (offered,) = read_candidates("nemotron-4-15b")
    assert not any("offers no" in sentence for sentence in offered.assumptions)


def test_layers_that_do_not_divide_over_a_pipeline_are_said() -> None:
    """With what each end holds; nothing where they divide, also over model chunks."""

    def said(*settings: str) -> list[str]:
        (candidate,) = read_candidates("nemotron-4-15b", ["stages.0.global_batch_size=768", *settings])
        return [sentence for sentence in candidate.assumptions if "do not divide" in sentence]

    (sentence,) = said("model.layers=30", "pipeline_parallel=4")
    assert sentence == (
        "30 layers do not divide over 4 pieces of a pipeline: 7 on the first stage, at most 8 on those between and 7 on "
        "the last are assumed, as Megatron-Core (2024) deals them out"
    )
    (sentence,) = said("model.layers=31", "pipeline_parallel=2")
    assert "at most" not in sentence
    assert said("model.layers=30", "pipeline_parallel=2") == said("pipeline_parallel=4", "virtual_pipeline=4") == said() == []


def test_a_file_names_others_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the command runs; one in the current folder is found where there is none beside the file."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "parts" / "model.yaml").write_text("extends: base.yaml\nlayers: 12\n")
    (tmp_path / "parts" / "base.yaml").write_text("extends: llama-3.1-8b\nname: mine\n")
    (tmp_path / "parts" / "gpu.yaml").write_text("{extends: h100-sxm-80gb, name: my GPU}\n")
    (tmp_path / "elsewhere" / "stack.yaml").write_text("{extends: megatron-core, name: my stack}\n")
    (tmp_path / "runs" / "run.yaml").write_text(
        "{model: ../parts/model.yaml, cluster: {extends: dgx-h100, gpu: ../parts/gpu.yaml}, stack: stack.yaml, "
        "tensor_parallel: 1, stages: [{data_parallel: 8, global_batch_size: 8}], sequence_length: 4096}"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    (candidate,) = read_candidates(str(tmp_path / "runs" / "run.yaml"))
    run = candidate.run
    assert (run.model.name, run.model.layers, run.cluster.gpu.name, run.stack.name) == ("mine", 12, "my GPU", "my stack")
    (tmp_path / "runs" / "stack.yaml").write_text("{extends: megatron-core, name: beside it}\n")
    (candidate,) = read_candidates("../runs/run.yaml")
    assert candidate.run.stack.name == "beside it"
