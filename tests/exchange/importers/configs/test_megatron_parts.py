"""Are experts, latent attention, windows and written pipelines of Megatron-LM's flags the parts of a run that they are?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.importers.registry import read_settings
from perfmodel.exchange.presets import model_preset
from tests.exchange.importers.scripts import SMALL, converted, run_of, script

DEEPSEEK = """#!/bin/bash
LAYOUT="Et*4|(tttt|)*14tmL"
MODEL=(
    --num-layers 61 --hidden-size 7168 --ffn-hidden-size 18432 --num-attention-heads 128 --kv-channels 128
    --seq-length 4096 --max-position-embeddings 4096 --position-embedding-type rope --normalization RMSNorm --swiglu
    --untie-embeddings-and-output-weights --disable-bias-linear --attention-dropout 0 --hidden-dropout 0 --qk-layernorm
    --multi-latent-attention --q-lora-rank 1536 --kv-lora-rank 512 --qk-head-dim 128 --qk-pos-emb-head-dim 64 --v-head-dim 128
    --vocab-size 129280 --mtp-num-layers 1 --mtp-loss-scaling-factor 0.1
)
EXPERTS=(
    --num-experts 256 --moe-router-topk 8 --moe-ffn-hidden-size 2048 --moe-shared-expert-intermediate-size 2048
    --moe-layer-freq "([0]*3+[1]*58)" --moe-router-num-groups 8 --moe-router-group-topk 4 --moe-grouped-gemm
    --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend hybridep --moe-router-force-load-balancing
    --overlap-moe-expert-parallel-comm --moe-router-dtype fp32 --moe-router-enable-expert-bias --moe-router-fusion
)
torchrun --nnodes 32 --nproc-per-node 8 pretrain_gpt.py ${MODEL[@]} ${EXPERTS[@]} \\
    --pipeline-model-parallel-size 4 --expert-model-parallel-size 64 --expert-tensor-parallel-size 1 \\
    --pipeline-model-parallel-layout $LAYOUT --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \\
    --micro-batch-size 1 --global-batch-size 2048 --bf16 \\
    --recompute-granularity selective --recompute-modules mla_up_proj moe_act \\
    --cuda-graph-impl transformer_engine --cuda-graph-scope attn moe_router moe_preprocess EXTRA
"""
EXPERTS = "--num-experts 8 --moe-grouped-gemm --moe-token-dispatcher-type alltoall "


def test_a_script_of_deepseek_v3_is_the_preset(tmp_path: Path) -> None:
    """Every number of the model, and the layout of NVIDIA's guide."""
    path = tmp_path / "train.sh"
    path.write_text(DEEPSEEK.replace("EXTRA", ""))
    run = api.load(str(path), {"cluster": "dgx-h100"})
    assert run.model == replace(model_preset("deepseek-v3"), name=run.model.name, multi_token_layers=1)
    assert (run.pipeline_parallel, run.virtual_pipeline, run.pipeline_layout) == (4, 4, "Et*4|(tttt|)*14tmL")
    assert (run.expert_parallel, run.expert_tensor_parallel, run.expert_load) == (64, 1, 1.0)
    assert (run.recompute, run.recompute_modules) == ("selective", ("mla_up_proj", "moe_act"))
    assert (run.stack.experts.dispatcher, run.stack.experts.overlap) == ("hybridep", "passes")
    assert (run.stack.host.cuda_graphs, run.stack.host.graphed) == (
        False,
        ("attention", "preprocess", "router", "shared_experts"),
    )
    assert run.stages[0].data_parallel == 64


def test_nothing_of_that_script_is_refused_or_unknown(tmp_path: Path) -> None:
    """What is not read has its reason."""
    found = script(tmp_path, text=DEEPSEEK)
    assert not found.refused
    assert not [each for each in found.ignored if "nobody" in each]
    assert "--moe-router-fusion: fused kernels of the router and of permutations" in "\n".join(found.ignored)


def test_a_mixture_of_few_flags_takes_megatrons_defaults(tmp_path: Path) -> None:
    """Two experts a token, as wide as the MLP, shared like other products, tokens gathered by all."""
    flags = "--num-experts 8 --tensor-model-parallel-size 2 --sequence-parallel --expert-model-parallel-size 4"
    found = script(tmp_path, flags)
    run, said = run_of(found), "\n".join(found.assumed)
    assert run["model"]["mixture"] == {"experts": 8, "ffn_hidden_size": 4096, "experts_per_token": 2}
    assert (run["expert_parallel"], run["expert_tensor_parallel"]) == (4, 2)
    assert run["stack"]["experts"] == {"dispatcher": "allgather", "overlap": "none"}
    for words in ("2 experts by", "as wide as an MLP", "like other products, by 2", "allgather is", "would run one by one"):
        assert words in said, words


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--moe-router-topk 4", "model.mixture.experts_per_token", 4),
        ("--moe-shared-expert-intermediate-size 8192", "model.mixture.shared_experts", 2),
        ("--moe-shared-expert-intermediate-size 5000", "model.mixture.shared_experts", 1),
        ("--moe-shared-expert-gate --moe-shared-expert-intermediate-size 512", "model.mixture.shared_gate", True),
        ("--moe-latent-size 512", "model.mixture.latent_size", 512),
        ("--moe-expert-capacity-factor 1.25", "model.mixture.capacity_factor", 1.25),
        ("--moe-token-dispatcher-type flex", "stack.experts.dispatcher", "deepep"),
        ("--moe-token-dispatcher-type flex --moe-enable-deepep", "stack.experts.dispatcher", "deepep"),
        ("--expert-tensor-parallel-size 1 --tensor-model-parallel-size 2", "expert_tensor_parallel", 1),
        ("--moe-layer-freq 2", "model.layer_pattern", "experts dense"),
        ("--moe-layer-freq [0,1]*2", "model.layer_pattern", "dense experts"),
        ("--moe-layer-freq [0]+[1]*3", "model.first_layers", "dense"),
        ("--mtp-num-layers 2", "model.multi_token_layers", 2),
        ("--window-size 127,0", "model.layer_kinds.sliding.window", 128),
        ("--window-size 127,0 --window-attn-skip-freq 2", "model.layer_pattern", "sliding full"),
        ("--window-size 127 0 --window-attn-skip-freq [1,1,1,0]", "model.layer_pattern", "sliding sliding sliding full"),
        ("--cuda-graph-impl local --cuda-graph-scope full_iteration", "stack.host.cuda_graphs", True),
        ("--enable-cuda-graph --cuda-graph-scope mamba mlp", "stack.host.graphed", "dense mixer"),
        ("--recompute-granularity selective --recompute-modules moe moe", "recompute_modules", "moe"),
    ],
)
def test_flags_of_parts_set_keys(tmp_path: Path, flags: str, key: str, value: Any) -> None:
    """Of a mixture of eight experts over four layers, each as wide as 4096."""
    base = "" if "window" in flags else EXPERTS
    place: Any = run_of(script(tmp_path, base + flags))
    for step in key.split("."):
        place = place[step]
    assert place == value


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--cuda-graph-scope moe_router", "router"),
        ("--cuda-graph-scope moe_router moe_preprocess", "preprocess router"),
        ("--cuda-graph-scope moe_router --moe-shared-expert-intermediate-size 64", "router shared_experts"),
        ("--cuda-graph-scope moe_router --moe-shared-expert-intermediate-size 64 --moe-shared-expert-overlap", "router"),
        ("--cuda-graph-scope attn --moe-shared-expert-intermediate-size 64", "attention"),
        ("--cuda-graph-scope moe --moe-shared-expert-intermediate-size 64", "experts preprocess router shared_experts"),
    ],
)
def test_graphs_of_a_router_hold_shared_experts_that_are_not_beside_the_dispatch(
    tmp_path: Path, flags: str, parts: str
) -> None:
    """Where a model has some (NVIDIA/Megatron-LM pull request 1920)."""
    found = script(tmp_path, f"{EXPERTS} --cuda-graph-impl transformer_engine {flags}")
    assert run_of(found)["stack"]["host"]["graphed"] == parts
    words = "--moe-shared-expert-overlap: shared experts are predicted on the compute path"
    assert (words in found.ignored) is ("overlap" in flags)


def test_the_scope_of_graphs_says_nothing_without_graphs(tmp_path: Path) -> None:
    """As in the arguments at the head of a log, which print a scope in any case."""
    for flags in ("--cuda-graph-scope attn", "--cuda-graph-impl none --cuda-graph-scope attn"):
        assert not run_of(script(tmp_path, flags))["stack"].get("host", {}).get("graphed")


@pytest.mark.parametrize(
    ("flags", "chunks", "layout"),
    [
        ("--num-layers 8 --pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et*2|tt|tt|ttL'", 2, None),
        (
            "--num-layers 8 --pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et|(ttt|)*2,tL'",
            2,
            "Et|(ttt|)*2tL",
        ),
        ("--num-layers 8 --pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 2", 1, None),
        ("--num-layers 8 --pipeline-model-parallel-size 2 --decoder-last-pipeline-num-layers 2", 1, "Etttttt|ttL"),
        (
            "--num-layers 9 --pipeline-model-parallel-size 2 --decoder-last-pipeline-num-layers 3 --mtp-num-layers 1",
            1,
            "Etttttt|tttmL",
        ),
    ],
)
def test_pieces_of_a_pipeline_are_those_that_are_given(tmp_path: Path, flags: str, chunks: int, layout: str | None) -> None:
    """A layout is written where layers would be dealt out otherwise."""
    run = run_of(script(tmp_path, flags))
    assert (run["virtual_pipeline"], run.get("pipeline_layout")) == (chunks, layout)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Ett|ttx'", "'x'; E, t, m, L and | make a layout"),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Ett|tL'", "places 3 layers, and there are 4"),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et|tt|tL'", "3 pieces, which 2 pipeline stages"),
        ("--pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 2", "the other 2 layers do not divide over 3"),
        ("--recompute-granularity selective --recompute-modules core_attn mlpp", "mlpp is not covered"),
        ("--window-size 127,0 --multi-latent-attention", "windows of latent attention"),
    ],
)
def test_what_parts_cannot_be_is_refused_by_name(tmp_path: Path, flags: str, words: str) -> None:
    """And a run of it is not predicted."""
    found = script(tmp_path, flags)
    assert any(words in each for each in found.refused), found.refused
    with pytest.raises(NotSupportedError):
        read_settings(tmp_path / "train.sh", "runs")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--moe-layer-freq [0]*3", "--moe-layer-freq: '[0]*3' is for 3 layers, not 4"),
        ("--moe-layer-freq __import__('os')", "neither a number nor a list of 0 and 1"),
        ("--moe-layer-freq [2]*4", "neither a number nor a list of 0 and 1"),
        ("--moe-layer-freq 0", "--moe-layer-freq: 0 is no number of layers"),
        ("--num-experts many", "--num-experts: 'many' is not a number"),
    ],
)
def test_what_is_no_pattern_is_wrong_input(tmp_path: Path, flags: str, words: str) -> None:
    """Nothing is evaluated."""
    with pytest.raises(InputError) as caught:
        script(tmp_path, "--num-experts 8 " + flags.replace("'", "\\'").replace("(", "\\(").replace(")", "\\)"))
    assert words in str(caught.value)


def test_an_even_layout_is_no_layout(tmp_path: Path) -> None:
    """The test case of a mixture reads as its script."""
    case = "MODEL_ARGS:\n  --num-layers: 4\n  --hidden-size: 1024\n  --num-attention-heads: 16\n  --seq-length: 2048\n"
    case += "  --micro-batch-size: 2\n  --num-experts: 8\n  --moe-layer-freq: ([0]*1+[1]*3)\n  --moe-router-topk: 2\n"
    run = run_of(converted(tmp_path, case, "a.yaml"))
    same = run_of(script(tmp_path, "--num-experts 8 --moe-layer-freq '([0]*1+[1]*3)'", SMALL.replace("--nproc-per-node 8", "")))
    assert {**run["model"], "name": ""} == {**same["model"], "name": ""}
