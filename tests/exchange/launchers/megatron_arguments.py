"""Flags of Megatron-LM with their types and choices, written down from its documentation; None for a bare flag."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any, Final

WHOLE: Final = (
    "--num-layers --hidden-size --ffn-hidden-size --num-attention-heads --kv-channels --num-query-groups --seq-length "
    "--max-position-embeddings --vocab-size --make-vocab-size-divisible-by --tensor-model-parallel-size "
    "--pipeline-model-parallel-size --context-parallel-size --num-layers-per-virtual-pipeline-stage --micro-batch-size "
    "--global-batch-size --train-samples --train-iters --ddp-bucket-size --num-distributed-optimizer-instances "
    "--recompute-num-layers --expert-model-parallel-size --expert-tensor-parallel-size --num-experts --moe-router-topk "
    "--moe-ffn-hidden-size --moe-shared-expert-intermediate-size --moe-router-num-groups --moe-router-group-topk "
    "--moe-latent-size --q-lora-rank --kv-lora-rank --qk-head-dim --qk-pos-emb-head-dim --v-head-dim --mtp-num-layers"
)
NUMBERS: Final = "--rotary-percent --attention-dropout --hidden-dropout --moe-expert-capacity-factor --lr"
BARE: Final = (
    "--group-query-attention --swiglu --squared-relu --quick-geglu --untie-embeddings-and-output-weights --disable-bias-linear "
    "--add-qkv-bias --qk-layernorm --sequence-parallel --use-distributed-optimizer --use-megatron-fsdp --overlap-grad-reduce "
    "--overlap-param-gather --grad-reduce-in-bf16 --tp-comm-overlap --no-overlap-p2p-communication --bf16 --fp16 "
    "--fp8-param-gather --use-precision-aware-optimizer --cross-entropy-loss-fusion --no-masked-softmax-fusion "
    "--no-rope-fusion --no-gradient-accumulation-fusion --no-bias-swiglu-fusion --no-bias-gelu-fusion "
    "--fp32-residual-connection --moe-grouped-gemm --moe-shared-expert-gate --moe-pad-expert-input-to-capacity "
    "--overlap-moe-expert-parallel-comm --moe-shared-expert-overlap --multi-latent-attention --mock-data"
)
TEXTS: Final = (
    "--moe-layer-freq --window-size --window-attn-skip-freq --pipeline-model-parallel-layout --step-batch-size-schedule"
)
CHOICES: Final = {
    "--normalization": ["LayerNorm", "RMSNorm"],
    "--position-embedding-type": ["learned_absolute", "rope", "mrope", "yarn", "relative", "none"],
    "--cp-comm-type": ["p2p", "a2a", "allgather", "all_gather", "a2a+p2p"],
    "--data-parallel-sharding-strategy": ["no_shard", "optim", "optim_grads", "optim_grads_params"],
    "--recompute-granularity": ["full", "selective"],
    "--recompute-method": ["uniform", "block"],
    "--fp8-format": ["e4m3", "hybrid"],
    "--fp8-recipe": ["tensorwise", "delayed", "mxfp8", "blockwise", "custom"],
    "--fp4-format": ["e2m1"],
    "--fp4-recipe": ["nvfp4", "custom"],
    "--exp-avg-dtype": ["fp32", "fp16", "bf16", "fp8"],
    "--exp-avg-sq-dtype": ["fp32", "fp16", "bf16", "fp8"],
    "--attention-backend": ["flash", "fused", "unfused", "local", "auto"],
    "--cuda-graph-impl": ["none", "local", "transformer_engine", "full_iteration"],
    "--moe-token-dispatcher-type": ["allgather", "alltoall", "flex"],
    "--moe-flex-dispatcher-backend": ["deepep", "hybridep"],
    "--tokenizer-type": ["NullTokenizer", "HuggingFaceTokenizer", "GPT2BPETokenizer"],
}
SEVERAL: Final = {
    "--recompute-modules": ["core_attn", "moe_act", "layernorm", "mla_up_proj", "mlp", "moe", "shared_experts"],
    "--cuda-graph-scope": ["attn", "mlp", "moe", "moe_router", "moe_preprocess", "mamba", "full_iteration"],
}


def parsed(words: list[str]) -> dict[str, Any]:
    """What an argument parser with these flags makes of words; it exits on any other."""
    parser = ArgumentParser(allow_abbrev=False, exit_on_error=True)
    for name in WHOLE.split():
        parser.add_argument(name, type=int)
    for name in NUMBERS.split():
        parser.add_argument(name, type=float)
    for name in BARE.split():
        parser.add_argument(name, action="store_true")
    for name in TEXTS.split():
        parser.add_argument(name)
    for name, choices in CHOICES.items():
        parser.add_argument(name, choices=choices)
    for name, choices in SEVERAL.items():
        parser.add_argument(name, nargs="+", choices=choices)
    return vars(parser.parse_args(words))
