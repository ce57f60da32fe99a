#!/bin/bash
LAYOUT="Et*4|(tttt|)*14tmL"
MODEL=(
    --num-layers 61 --hidden-size 7168 --ffn-hidden-size 18432 --num-attention-heads 128 --kv-channels 128
    --seq-length 4096 --max-position-embeddings 4096 --position-embedding-type rope --normalization RMSNorm --swiglu
    --untie-embeddings-and-output-weights --disable-bias-linear --attention-dropout 0 --hidden-dropout 0 --qk-layernorm
    --multi-latent-attention --q-lora-rank 1e9 --kv-lora-rank 512 --qk-head-dim 128 --qk-pos-emb-head-dim 64 --v-head-dim 128
    --vocab-size 129280 --mtp-num-layers 1 --mtp-loss-scaling-factor 0.1
)
EXPERTS=(
    --num-experts 256 --moe-router-topk 8 --moe-ffn-hidden-size 2048 --moe-shared-expert-intermediate-size 2048
    --moe-layer-freq "([0]*3+[1]*58)" --moe-router-num-groups 8 --moe-router-group-topk 4 --moe-grouped-gemm
    --moe-token-dispatcher-type flex --moe-flex-dispatcher-backend hybridep --moe-router-force-load-balancing
    --overlap-moe-expert-parallel-comm --moe-router-dtype fp32 --moe-router-enable-expert-bias --moe-router-fusion
)
torchrun --nnodes 32 --nproc-per-node 8 pretrain_gpt.py ${MODEL[@]} ${EXPERTS[@]} \
    --pipeline-model-parallel-size 4 --expert-model-parallel-size 64 --expert-tensor-parallel-size 1 \
    --pipeline-model-parallel-layout $LAYOUT --use-distributed-optimizer --overlap-grad-reduce --overlap-param-gather \
    --micro-batch-size 1 --global-batch-size 2048 --bf16 \
    --recompute-granularity selective --recompute-modules mla_up_proj moe_act \
    --cuda-graph-impl transformer_engine --cuda-graph-scope attn moe_router moe_preprocess EXTRA
