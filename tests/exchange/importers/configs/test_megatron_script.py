"""Is a launch script of Megatron-LM read as Megatron-LM would read it, with its silent defaults said?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.importers.registry import read_settings
from tests.exchange.importers.scripts import LLAMA, SMALL, converted, run_of, script


def test_variables_arrays_and_arithmetic_are_followed(tmp_path: Path) -> None:
    """The model, the layout and the GPUs of a script that writes them in three ways."""
    found = script(tmp_path, text=LLAMA)
    run = run_of(found)
    assert found.format == "Megatron-LM launch script"
    assert (run["gpus"], run["tensor_parallel"], run["sequence_length"]) == (32, 2, 8192)
    assert (run["sequence_parallel"], run["sharding"], run["micro_batch_size"]) == (True, "zero1", 1)
    assert run["stages"] == [{"global_batch_size": 128, "tokens": 8192e6}]
    model = run["model"]
    assert (model["layers"], model["kv_heads"], model["head_size"], model["ffn_hidden_size"]) == (32, 8, 128, 14336)
    assert (model["activation"], model["norm"], model["position"]) == ("swiglu", "rmsnorm", "rotary")
    assert (model["biases"], model["dropout"], model["tied_embeddings"], model["vocab_size"]) == (False, False, False, 128256)


def test_a_script_is_predicted_where_a_run_is(tmp_path: Path) -> None:
    """Its cluster is all that it does not say."""
    path = tmp_path / "train.sh"
    path.write_text(LLAMA)
    stage, predicted = api.predict(str(path), ["cluster=dgx-h100"]).stages[0]
    assert int(stage.data_parallel) == 16
    assert float(predicted.iteration_time_s) > 0


def test_what_megatron_takes_in_silence_is_said(tmp_path: Path) -> None:
    """GELU, tied embeddings, biases, learned positions, dropout, no sharding, no overlap, and a batch of one pass."""
    found = script(tmp_path)
    run, model, said = run_of(found), run_of(found)["model"], "\n".join(found.assumed)
    assert (model["activation"], model["norm"], model["position"], model["max_positions"]) == (
        "gelu",
        "layernorm",
        "learned",
        2048,
    )
    assert (model["tied_embeddings"], model["biases"], model["dropout"], model["ffn_hidden_size"]) == (True, True, True, 4096)
    assert (run["sharding"], run["precision"], run["stages"]) == ("none", "fp32", [{}])
    assert run["stack"]["overlap"] == {"tensor_parallel": "backward", "data_parallel": False}
    for words in (
        "GELU",
        "ties embeddings",
        "have biases",
        "dropout of 0.1",
        "learned positions",
        "--overlap-grad-reduce",
        "fp32",
    ):
        assert words in said
    path = tmp_path / "train.sh"
    stage = api.load(str(path), ["cluster=dgx-h100"]).stages[0]
    assert (int(stage.data_parallel), int(stage.global_batch_size)) == (8, 16)


@pytest.mark.parametrize(
    ("flags", "size"), [("", 4096), ("--swiglu", 2688), ("--squared-relu", 4096), ("--swiglu --ffn-hidden-size 100", 100)]
)
def test_the_mlp_has_megatrons_width(tmp_path: Path, flags: str, size: int) -> None:
    """Four times the hidden size; gated, two thirds of that rounded down to 64."""
    assert run_of(script(tmp_path, flags))["model"]["ffn_hidden_size"] == size


@pytest.mark.parametrize(
    ("flags", "heads"),
    [
        ("", 16),
        ("--num-query-groups 4", 16),
        ("--group-query-attention --num-query-groups 4", 4),
        ("--group-query-attention", 1),
    ],
)
def test_groups_of_queries_count_only_where_they_are_switched_on(tmp_path: Path, flags: str, heads: int) -> None:
    """As Megatron-LM has it."""
    assert run_of(script(tmp_path, flags))["model"]["kv_heads"] == heads


@pytest.mark.parametrize(
    ("flags", "chunks"),
    [
        ("--num-layers-per-virtual-pipeline-stage 2", 4),
        ("--num-virtual-stages-per-pipeline-rank 4", 4),
        ('--pipeline-model-parallel-layout "Et*4|(t*4|)*3,t*4|t*4|t*4|t*4L"', 2),
        ("", 1),
    ],
)
def test_interleaving_is_given_in_three_ways(tmp_path: Path, flags: str, chunks: int) -> None:
    """Layers a piece, pieces a rank, or all pieces written down."""
    found = script(tmp_path, f"--num-layers 32 --pipeline-model-parallel-size 4 {flags}")
    assert not found.refused
    assert run_of(found)["virtual_pipeline"] == chunks


@pytest.mark.parametrize(
    ("layers", "flags", "is_covered"),
    [
        (30, "", True),
        (30, "--account-for-embedding-in-pipeline-split --account-for-loss-in-pipeline-split", True),
        (32, "--account-for-loss-in-pipeline-split", False),
        (30, "--decoder-first-pipeline-num-layers 7 --decoder-last-pipeline-num-layers 7", True),
        (30, "--decoder-first-pipeline-num-layers 6 --decoder-last-pipeline-num-layers 8", True),
    ],
)
def test_uneven_stages_are_those_that_are_predicted(tmp_path: Path, layers: int, flags: str, is_covered: bool) -> None:
    """Where embedding and head count as layers; any others are refused."""
    found = script(tmp_path, f"--num-layers {layers} --pipeline-model-parallel-size 4 {flags}")
    assert (not found.refused) is is_covered


def test_layers_run_again_are_counted_in_every_piece(tmp_path: Path) -> None:
    """As many of each piece of an interleaved pipeline, and at most all."""
    flags = "--num-layers 32 --pipeline-model-parallel-size 4 --num-virtual-stages-per-pipeline-rank 4"
    block = "--recompute-granularity full --recompute-method block --recompute-num-layers"
    assert run_of(script(tmp_path, f"{flags} {block} 1"))["recompute_layers"] == 4
    assert run_of(script(tmp_path, f"{flags} {block} 5"))["recompute_layers"] == 8


@pytest.mark.parametrize(
    ("flags", "sharding", "replicas"),
    [
        ("--use-distributed-optimizer", "zero1", None),
        ("--use-torch-fsdp2", "zero3", None),
        ("--use-megatron-fsdp", "zero3", None),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads", "zero2", None),
        ("--use-megatron-fsdp --data-parallel-sharding-strategy optim", "zero1", None),
        ("--use-megatron-fsdp --num-distributed-optimizer-instances 2", "hsdp", 2),
    ],
)
def test_sharding_follows_its_flags(tmp_path: Path, flags: str, sharding: str, replicas: int | None) -> None:
    """ZeRO by its stage, or copies of shards."""
    run = run_of(script(tmp_path, flags))
    assert (run["sharding"], run.get("data_parallel_replicas")) == (sharding, replicas)


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("--overlap-grad-reduce --overlap-param-gather", "overlap.data_parallel", True),
        ("--tp-comm-overlap", "overlap.tensor_parallel", "pipelined"),
        ("--cp-comm-type all_gather", "overlap.context_parallel_exchange", "all_gather"),
        ("--no-overlap-p2p-communication", "overlap.pipeline", False),
        ("--ddp-bucket-size 5000000", "overlap.bucket_parameters", 5000000),
        ("--grad-reduce-in-bf16", "states.gradient_bytes", 2),
        ("", "states.gradient_bytes", 4),
        ("--use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype fp8", "states.optimizer_bytes", 7),
        ("--cross-entropy-loss-fusion", "fusion.loss_peak_bytes", 12),
        ("--no-rope-fusion", "fusion.rotary", False),
        ("--attention-backend unfused", "fusion.attention", False),
        ("--attention-backend flash", "fusion.attention_library", "flash2"),
        ("--cuda-graph-impl local", "host.cuda_graphs", True),
        ("--fp8-format hybrid --fp8-param-gather", "low_precision.parameter_gather", True),
        ("--fp8-format hybrid --fp8-recipe tensorwise", "low_precision.scaling", "current"),
        ("--fp8-format e4m3", "low_precision.scaling", "delayed"),
        ("--deterministic-mode", "extends", "megatron-lm-2025"),
    ],
)
def test_flags_change_the_stack(tmp_path: Path, flags: str, key: str, value: Any) -> None:
    """One number or choice of one section each."""
    place: Any = run_of(script(tmp_path, flags))["stack"]
    for step in key.split("."):
        place = place[step]
    assert place == value


@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("--recompute-activations", {"recompute": "selective"}),
        ("--recompute-granularity full --recompute-method uniform --recompute-num-layers 1", {"recompute": "full"}),
        (
            "--recompute-granularity full --recompute-method block --recompute-num-layers 3",
            {"recompute": "full", "recompute_layers": 3},
        ),
        ("--bf16", {"precision": "bf16"}),
        ("--bf16 --fp8-format hybrid", {"precision": "fp8"}),
        ("--fp16 --context-parallel-size 2", {"precision": "fp16", "context_parallel": 2}),
        ("--sequence-parallel", {"sequence_parallel": False}),
        ("--sequence-parallel --tensor-model-parallel-size 2", {"sequence_parallel": True}),
    ],
)
def test_flags_change_the_layout(tmp_path: Path, flags: str, settings: dict[str, Any]) -> None:
    """Sequence parallelism of one rank is none."""
    run = run_of(script(tmp_path, flags))
    assert {key: run[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("flags", "place", "value"),
    [
        ("--num-key-value-heads 4", "kv_heads", 4),
        ("--pad-vocab-size-to 250880 --tokenizer-type PretrainedFromHF", "vocab_size", 250880),
        ("--embed-layernorm --position-embedding-type alibi", "position", "alibi"),
        ("--normalization rmsnorm", "norm", "rmsnorm"),
        ("--tokenizer-type Llama3Tokenizer", "vocab_size", 128256),
        ("--vocab-size 128000 --padded-vocab-size 128256", "vocab_size", 128256),
    ],
)
def test_forks_have_words_of_their_own(tmp_path: Path, flags: str, place: str, value: Any) -> None:
    """Megatron-DeepSpeed's and BigScience's."""
    assert run_of(script(tmp_path, flags))["model"][place] == value


def test_numbers_may_have_underscores(tmp_path: Path) -> None:
    """As Python reads them."""
    flags = "--global-batch-size 32 --rampup-batch-size 16 16 6_000 --train-samples 10_000"
    assert [each["tokens"] for each in run_of(script(tmp_path, flags))["stages"]] == [6000 * 2048, 4000 * 2048]


def test_a_ramp_becomes_stages(tmp_path: Path) -> None:
    """Every batch of it for its share of the samples, and the rest of the run on the last."""
    flags = "--global-batch-size 64 --rampup-batch-size 16 16 3000 --train-samples 10000"
    assert run_of(script(tmp_path, flags))["stages"] == [
        *({"global_batch_size": batch, "tokens": 1000 * 2048} for batch in (16, 32, 48)),
        {"global_batch_size": 64, "tokens": 7000 * 2048},
    ]


def test_a_schedule_of_batches_becomes_stages(tmp_path: Path) -> None:
    """Thresholds with a suffix are tokens."""
    flags = '--step-batch-size-schedule "0:384 200B:768 400B:1152" --train-samples 1000000000'
    stages = run_of(script(tmp_path, flags))["stages"]
    assert [each["global_batch_size"] for each in stages] == [384, 768, 1152]
    assert [each["tokens"] for each in stages] == [200e9, 200e9, 1e9 * 2048 - 400e9]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--optimizer-cpu-offload", "offload to the CPU"),
        ("--context-parallel-size 2 --cp-comm-type a2a", "--cp-comm-type 'a2a' is not covered"),
        ("--recompute-granularity selective --recompute-modules core_attn mlpp", "--recompute-modules core_attn mlpp"),
        ("--pipeline-model-parallel-size 4 --decoder-first-pipeline-num-layers 2", "--decoder-first-pipeline-num-layers 2"),
        ("--use-distributed-optimizer --num-distributed-optimizer-instances 2", "--num-distributed-optimizer-instances 2"),
        ("--normalization L2Norm", "--normalization 'L2Norm' is not covered"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path, flags: str, words: str) -> None:
    """In the conversion, and with exit code 3 where a run is needed."""
    found = script(tmp_path, flags)
    assert any(words in each for each in found.refused)
    with pytest.raises(NotSupportedError, match=r"train\.sh"):
        read_settings(tmp_path / "train.sh", "runs")


def test_an_expert_degree_of_one_is_no_mixture(tmp_path: Path) -> None:
    """Scripts state it whatever they train."""
    assert not script(tmp_path, "--expert-model-parallel-size 1 --moe-router-topk 2").refused


def test_flags_that_are_not_read_are_listed(tmp_path: Path) -> None:
    """Those that matter with how; those that nobody knows by name."""
    ignored = script(tmp_path, "--lr 1e-4 --frobnicate 3 --use-tp-pp-dp-mapping").ignored
    assert "--lr: learning rate, its schedule and the optimizer's constants" in ignored
    assert "--frobnicate: nobody here knows it; it is not read" in ignored
    assert any(each.startswith("--use-tp-pp-dp-mapping") and "pipeline stages would lie inside" in each for each in ignored)


def test_a_variable_that_nothing_sets_is_named(tmp_path: Path) -> None:
    """The flag, and what is missing."""
    with pytest.raises(InputError, match=r"--tensor-model-parallel-size: '\$\{TP\}' is set nowhere"):
        script(tmp_path, "--tensor-model-parallel-size $TP")


def test_a_part_of_a_tokenizers_name_is_enough(tmp_path: Path) -> None:
    """Its folder may be anywhere."""
    found = script(tmp_path, "--tokenizer-model $DATA/nemotron_2_256k.model")
    assert run_of(found)["model"]["vocab_size"] == 256000
    assert any("Nemotron-4's, are assumed" in each for each in found.assumed)


def test_a_needed_flag_is_named(tmp_path: Path) -> None:
    """Without it there is no run."""
    with pytest.raises(InputError, match="--hidden-size: missing"):
        script(tmp_path, text=SMALL.replace("--hidden-size 1024", "--tensor-model-parallel-size 1"))


BIG_SCIENCE = (
    '#SBATCH --nodes=4\nG=8\nNNODES=$SLURM_NNODES\nexport LAUNCHER="python -u -m torch.distributed.launch \\\n'
    '  --nproc_per_node $G --nnodes $NNODES"\nexport CMD=" \\\n `pwd`/pretrain_gpt.py \\\n FLAGS "\n'
    "srun --jobid $SLURM_JOBID bash -c '$LAUNCHER --node_rank $SLURM_PROCID $CMD'"
)


@pytest.mark.parametrize(
    ("script_text", "gpus"),
    [
        ("#SBATCH --nodes=16 --ntasks-per-node=8\nsrun -l python pretrain_gpt.py FLAGS", 128),
        ("#SBATCH -N 2\n#SBATCH --gres=gpu:4\nsrun bash -c 'python -u pretrain_gpt.py FLAGS'", 8),
        ("#SBATCH -N 2\nsrun torchrun --nnodes $SLURM_NNODES --nproc-per-node 8 pretrain_gpt.py FLAGS", 16),
        ("W=2\npython -m torch.distributed.run --nproc_per_node=4 --nnodes=$((W*2)) pretrain_gpt.py FLAGS", 16),
        ("python pretrain_gpt.py FLAGS", None),
        ("mpirun -np 64 --hostfile hosts python pretrain_gpt.py FLAGS", 64),
        (BIG_SCIENCE, 32),
        ("torchrun --nnodes $1 --nproc-per-node 8 pretrain_gpt.py FLAGS", None),
        ("CMD='pretrain_gpt.py FLAGS'\necho $CMD\neval torchrun --nproc_per_node 8 $CMD", 8),
    ],
)
def test_gpus_are_those_of_the_launcher(tmp_path: Path, script_text: str, gpus: int | None) -> None:
    """Of torchrun, or of srun's ranks, or of the job."""
    flags = SMALL.partition("pretrain_gpt.py ")[2].replace("EXTRA", "").strip()
    assert run_of(converted(tmp_path, script_text.replace("FLAGS", flags))).get("gpus") == gpus


def test_environment_chooses_the_attention(tmp_path: Path) -> None:
    """As Transformer Engine does by it."""
    found = script(tmp_path, text="export NVTE_FUSED_ATTN=0\n" + SMALL)
    assert run_of(found)["stack"]["fusion"]["attention_library"] == "flash2"


def test_environment_that_matters_is_told(tmp_path: Path) -> None:
    """Deterministic kernels, one ring."""
    ignored = script(tmp_path, text="export NCCL_ALGO=Ring\n" + SMALL).ignored
    assert any(each.startswith("NCCL_ALGO=Ring: rings are predicted") for each in ignored)


def test_with_all_overlaps_it_is_the_preset_of_its_time(tmp_path: Path) -> None:
    """Predictions of rows of published runs take that preset as it is."""
    path = tmp_path / "train.sh"
    flags = "--overlap-grad-reduce --overlap-param-gather --tp-comm-overlap --grad-reduce-in-bf16 --cross-entropy-loss-fusion"
    path.write_text(LLAMA.replace("EXTRA", flags))
    mapping = read_settings(path, "runs") | {"cluster": "dgx-h100"}
    one, other = api.predict(mapping), api.predict(mapping | {"stack": "megatron-core"})
    assert float(one.stages[0][1].iteration_time_s) == pytest.approx(float(other.stages[0][1].iteration_time_s), rel=1e-12)
