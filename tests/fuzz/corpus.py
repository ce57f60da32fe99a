"""Whole and valid files of every format that is read, for a mutator to break: presets, and what other tests read."""

from __future__ import annotations

import csv
import gzip
import io
import json
from typing import Any, Final

from perfmodel.exchange.presets import DATA, preset_names
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from tests.evidence.step_examples import as_predicted, small_prediction
from tests.exchange.families.small_configs import DENSE as DENSE_CONFIGS
from tests.exchange.families.small_configs import PARTS as PART_CONFIGS
from tests.exchange.importers.configs.test_megatron_arguments import ARGUMENTS, CASE
from tests.exchange.importers.configs.test_megatron_bridge import BRIDGE
from tests.exchange.importers.configs.test_megatron_parts import DEEPSEEK
from tests.exchange.importers.configs.test_nemo import NEMO
from tests.exchange.importers.configs.test_nemo_2 import NEMO_2
from tests.exchange.importers.configs.test_other_configs import ACCELERATE, DEEPSPEED, MAXTEXT, NANOTRON, SCRIPT
from tests.exchange.importers.configs.test_torchtitan import COMMAND, PYTHON, TOML
from tests.exchange.importers.logs.test_megatron_log import BLOCK, line
from tests.exchange.importers.scripts import LLAMA
from tests.exchange.importers.test_broken_files import STEPS
from tests.exchange.nccl_outputs import as_json, as_text

Corpus = dict[str, bytes]  # name of a file -> what is in it

INLINE_RUN: Final = {
    "name": "inline",
    "model": {"extends": "mixtral-8x7b", "layers": 8, "name": "small mixture"},
    "cluster": {"extends": "dgx-h100", "gpus_per_node": 4, "network_scale": 0.9},
    "stack": {"extends": "megatron-core", "overlap": {"data_parallel": False}},
    "tensor_parallel": 2,
    "pipeline_parallel": 2,
    "expert_parallel": 2,
    "sequence_parallel": True,
    "sequence_length": 4096,
    "stages": [{"data_parallel": 2, "global_batch_size": 32, "tokens": "20B"}],
    "economics": {"dollars_per_gpu_hour": 2.5},
}


def _lines(name: str) -> bytes:
    """A log of twenty steps of one software."""
    return "\n".join(STEPS[name].format(step=step, time="2.5") for step in range(1, 21)).encode() + b"\n"


def _script_around(text: str) -> bytes:
    """A script that writes a configuration of Megatron-Bridge and starts it."""
    return f"cat > config.yaml << 'EOF'\n{text}\nEOF\ntorchrun --nproc-per-node 8 run.py megatron.bridge\n".encode()


def presets(kind: str, number: int = 6) -> Corpus:
    """Files of some presets of a kind, from all over the alphabet."""
    names = preset_names(kind)
    return {f"{name}.yaml": (DATA / kind / f"{name}.yaml").read_bytes() for name in names[:: max(len(names) // number, 1)]}


def table_head(name: str, *, rows: int = 8, every: int = 1) -> bytes:
    """Some rows of a shipped table with its header."""
    with (DATA / name).open(newline="", encoding="utf-8") as file:
        header, *content = csv.reader(file)
    return written([header, *content[: rows * every : every]])


def written(rows: list[list[str]]) -> bytes:
    """A table as a file."""
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


SERVED: Final = (
    "run_id,source,model,gpu,gpus,tensor_parallel,data_parallel_attention,engine,engine_version,weights,kv,isl,osl,concurrency,"
    "load,metric,value,notes\n"
    'a,x,qwen3-32b,h100-sxm-80gb,2,2,,vllm,0.19.0,fp8,,8192,1024,16,"closed loop, fixed concurrency",ttft_s,0.97,n\n'
    'b,x,llama-3.1-8b,h200-sxm-141gb,1,1,,sglang,0.5.2,bf16,fp8,1024,128,8,"closed loop, fixed concurrency",tpot_s,0.01,n\n'
)
FITS: Final = (
    "source,model,layers,hidden_size,attention_heads,kv_heads,ffn_hidden_size,activation,vocab_size,sequence_length,gpu,gpus,"
    "tensor_parallel,pipeline_parallel,virtual_pipeline,data_parallel,context_parallel,sequence_parallel,micro_batch_size,"
    "global_batch_size,recompute,precision,attention_kernel,fits,sharding,attention_kernel_detail\n"
    "s,A 13B,40,5120,40,40,13824,swiglu,128000,2048,a100-sxm-80gb,64,1,2,1,32,1,,4,2048,none,bf16,flash,no,zero1,flash2\n"
    "s,A 13B,40,5120,40,40,13824,swiglu,128000,2048,a100-sxm-80gb,64,2,2,1,16,1,yes,1,2048,full,bf16,flash,yes,zero1,flash2\n"
)
TUNED: Final = (
    "run_id,source,model,gpu,gpus,method,lora_rank,lora_targets,optimizer,precision,seq,micro_batch,accumulation,checkpointing,"
    "packed,sharding,offload,attention,extra,peak_memory_gib,memory_kind,tokens_per_s,tokens_per_s_scope,fits,notes\n"
    "a,lab,meta-llama/Llama-2-7b-hf,a100-sxm-80gb,1,lora,16,q_proj v_proj,adamw,bf16,2048,2,4,yes,"
    "no,none,none,,,20,torch max_memory_allocated,3000,per GPU,yes,\n"
    "b,lab,meta-llama/Llama-2-7b-hf,a100-sxm-80gb,2,full,,,adamw,bf16,2048,1,4,yes,no,fsdp,none,,,70,"
    "nvidia-smi,6000,all GPUs,yes,\n"
)
RECORD: Final[dict[str, Any]] = {
    "schema_version": 1,
    "kind": "matmul",
    "sizes": {"rows": 4096, "columns": 4096, "inner": 4096, "batch": 1},
    "labels": {"precision": "bf16", "phase": "forward"},
    "seconds": 3.1e-4,
    "spread": 0.01,
    "repeats": 20,
    "provenance": {"gpu": "a GPU", "software": "torch", "date": "2026-01-01", "command": "perfmodel calibrate"},
}
CONFIGS_OF_RUNS: Final[Corpus] = {
    "train.sh": LLAMA.encode(), "deepseek.sh": DEEPSEEK.encode(), "nemo.yaml": NEMO.encode(), "nemo_2.yaml": NEMO_2.encode(),
    "case.yaml": CASE.encode(), "arguments.yaml": ARGUMENTS.encode(), "bridge.yaml": BRIDGE.encode(),
    "bridge.sh": _script_around(BRIDGE), "titan.toml": TOML.encode(), "titan.sh": COMMAND.encode(), "titan.py": PYTHON.encode(),
    "nanotron.yaml": NANOTRON.encode(), "ds.json": json.dumps(DEEPSPEED).encode(), "ds.sh": SCRIPT.encode(),
    "accelerate.yaml": ACCELERATE.encode(), "maxtext.yaml": MAXTEXT.encode(),
}  # fmt: skip
GOLDEN: Final = {"start_step": 1, "end_step": 9, "step_interval": 1, "values": {str(step): 1.5 for step in range(1, 10)}}
LOGS: Final[Corpus] = {
    **{f"{name}.log": _lines(name) for name in STEPS},
    "block.log": (BLOCK + "\n".join(line(number) for number in range(1, 9))).encode(),
    "golden.json": json.dumps({"iteration-time": GOLDEN, "mem-max-allocated-bytes": GOLDEN}).encode(),
}
WITH_ATTENTION: Final = {"attention": {"n_heads_in_group": 3, "no_op": False}, "ffn": {"ffn_mult": 3.0, "no_op": False}}
NO_ATTENTION: Final = {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"ffn_mult": 1.0, "no_op": False}}
BLOCK_CONFIG: Final = {
    "model_type": "nemotron-nas", "hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 3, "vocab_size": 1000,
    "block_configs": [WITH_ATTENTION, NO_ATTENTION, WITH_ATTENTION], "hidden_act": "silu",
}  # fmt: skip
MODEL_CONFIGS: Final[Corpus] = (
    {
        f"{place}.json": json.dumps({"model_type": each.family, **each.keys}).encode()
        for place, each in enumerate([*DENSE_CONFIGS, *PART_CONFIGS][::5])
    }
    | {
        f"{each.family}.json": json.dumps({"model_type": each.family, **each.keys}).encode()
        for each in [*DENSE_CONFIGS, *PART_CONFIGS]
        if each.family in ("gemma4_text", "mimo_v2_flash", "kimi_linear", "minimax_m3_vl_text")
    }
    | {"blocks.json": json.dumps(BLOCK_CONFIG).encode()}
)
WEIGHTS: Final = {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group"}
QUANTISATIONS: Final[dict[str, dict[str, Any]]] = {
    "groups": {"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"a": {"weights": WEIGHTS}}},
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": 128},
}
QUANTISED: Final[Corpus] = {
    f"{name}.json": json.dumps({"model_type": "llama", **DENSE_CONFIGS[0].keys, "quantization_config": found}).encode()
    for name, found in QUANTISATIONS.items()
}
BESIDE: Final[Corpus] = {"ds.json": CONFIGS_OF_RUNS["ds.json"], "config.json": MODEL_CONFIGS["0.json"]}  # what others name
WHOLE_RUNS: Final[dict[str, dict[str, Any]]] = {  # of each kind of model, written with every key there is
    "dense": {"model": "gemma-2-9b", "sharding": "hsdp", "data_parallel_replicas": 2},
    "mixture": {"model": "deepseek-v2-lite", "expert_parallel": 4, "precision": "fp8", "expert_load": 1.3},
    "hybrid": {
        "model": "nemotron-3-nano",
        "tensor_parallel": 2,
        "expert_parallel": 2,
        "recompute": "full",
        "recompute_layers": 1,
    },
    "tuned": {"model": "llama-3.1-8b", "stack": "hf-peft", "training": "lora", "adapter_rank": 8, "sharding": "zero3"},
    "pipeline": {
        "model": "llama-3.1-8b",
        "pipeline_parallel": 4,
        "virtual_pipeline": 2,
        "context_parallel": 2,
        "recompute": "selective",
    },
}


def whole_run(settings: dict[str, Any]) -> bytes:
    """A run as a file that leaves nothing to presets: every number of its model, cluster, stack, layout and economics."""
    plain = {"cluster": "dgx-h100", "stack": "megatron-core", "sequence_length": 4096, "economics": "typical"}
    stages = [{"data_parallel": 8, "global_batch_size": 64, "tokens": 1e12}]
    (candidate,) = read_candidates({**plain, "stages": stages, **settings})
    return json.dumps(mapping_of(candidate.run)).encode()


RUNS: Final[Corpus] = presets("runs") | {
    **{f"{name}.json": whole_run(settings) for name, settings in WHOLE_RUNS.items()},
    "inline.json": json.dumps(INLINE_RUN).encode(),
    "mixture.yaml": (
        b"{model: deepseek-v3, cluster: gb200-nvl72, stack: megatron-bridge, precision: fp8, pipeline_parallel: 4, "
        b"virtual_pipeline: 4, expert_parallel: 64, sequence_length: 4096, recompute: selective, recompute_modules: "
        b"[mla_up_proj], stages: [{data_parallel: 64, global_batch_size: 512}]}\n"
    ),
}
TABLES: Final[Corpus] = {
    "published.csv": table_head("published_runs.csv", every=40),
    "mixtures.csv": table_head("mixture_runs.csv", every=12),
}
SPANS: Final = [
    *(
        {"ph": "X", "cat": kind, "name": name, "pid": at % 2, "tid": 7, "ts": 10.0 * at, "dur": 8.0, "args": {"stream": 7}}
        for at, (kind, name) in enumerate(
            [
                ("cpu_op", "aten::mm"), ("kernel", "nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT"),
                ("kernel", "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"),
                ("gpu_memcpy", "Memcpy DtoD"), ("kernel", "void at::native::vectorized_elementwise_kernel<4>"),
            ]
        )
    ),
    {"ph": "X", "cat": "user_annotation", "name": "ProfilerStep#1", "pid": 0, "tid": 7, "ts": 0.0, "dur": 90.0},
    {"ph": "s", "cat": "ac2g", "name": "ac2g", "id": 3, "pid": 0, "tid": 7, "ts": 1.0},
    {"ph": "f", "cat": "ac2g", "name": "ac2g", "id": 3, "pid": 1, "tid": 7, "ts": 11.0, "bp": "e"},
]  # fmt: skip
TRACE: Final = {
    "schemaVersion": 1,
    "deviceProperties": [{"id": 0, "name": "NVIDIA H100 80GB HBM3", "totalGlobalMem": 85017493504}],
    "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 8},
    "traceEvents": SPANS,
}
TRACES: Final[Corpus] = {
    "trace.json": json.dumps(TRACE).encode(),
    "trace.json.gz": gzip.compress(json.dumps(TRACE).encode(), mtime=0),
}
LINKS: Final[Corpus] = {
    "all_reduce_perf.txt": as_text("all_reduce", 1).encode(),
    "two_nodes.txt": as_text("all_gather", 2).encode(),
    "alltoall_perf.json": as_json("alltoall", 2).encode(),
}
RECORDS: Final[Corpus] = {
    "records.jsonl": "".join(json.dumps(RECORD | {"seconds": 1e-4 * n}) + "\n" for n in range(1, 4)).encode()
}


def steps() -> Corpus:
    """What `perfmodel measure` writes."""
    return {"step.json": json.dumps(as_predicted(small_prediction()).document()).encode()}
