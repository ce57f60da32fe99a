"""Is what a launch script of Megatron-LM says and does not get told: refused, without effect, or under open conditions?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.importers.registry import read_settings
from tests.exchange.importers.scripts import SMALL, converted, run_of, script


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--optimizer muon", "--optimizer 'muon' is not covered; adam, adamw, sgd are"),
        (
            "--fp8-format hybrid --fp8-recipe blockwise",
            "--fp8-recipe: precision fp8_blockwise is known but not supported yet; ",
        ),
        ("--pipeline-model-parallel-size 2 --pipeline-model-parallel-layout Et|t", "--pipeline-model-parallel-layout: 'Et"),
    ],
)
def test_a_refusal_names_the_flag_and_a_way_on(tmp_path: Path, flags: str, words: str) -> None:
    """What is covered instead, and that the rest can be written."""
    assert any(each.startswith(words) for each in script(tmp_path, flags.replace("Et|t", "'Et|t'")).refused)
    with pytest.raises(NotSupportedError, match="perfmodel convert writes the rest as a run file"):
        read_settings(tmp_path / "train.sh", "runs")


@pytest.mark.parametrize(
    "flags",
    ["--recompute-modules mlp", "--main-grads-dtype bf16", "--cp-comm-type a2a", "--moe-router-topk 4", "--fp8-recipe mxfp8"],
)
def test_a_flag_that_changes_nothing_is_listed(tmp_path: Path, flags: str) -> None:
    """As Megatron-LM reads it only beside others, which are not given."""
    found = script(tmp_path, flags)
    assert f"{flags.split(maxsplit=1)[0]}: without effect, as the rest of the file has it" in found.ignored
    assert not found.refused


@pytest.mark.parametrize("flags", ["", "--global-batch-size 64 --rampup-batch-size 16 16 3000"])
def test_iterations_of_batches_that_are_not_known_are_told(tmp_path: Path, flags: str) -> None:
    """They do not say for how many tokens a run trains."""
    assert any(each.startswith("--train-iters: the ") for each in script(tmp_path, f"{flags} --train-iters 100").ignored)


def test_sequence_parallelism_of_one_rank_is_told(tmp_path: Path) -> None:
    """It is none."""
    assert any(
        each.startswith("--sequence-parallel is without effect") for each in script(tmp_path, "--sequence-parallel").assumed
    )


def test_one_way_of_exchange_for_every_layer_is_one(tmp_path: Path) -> None:
    """As Megatron-LM takes one a layer; several are refused."""
    flags = "--context-parallel-size 2 --cp-comm-type"
    assert (
        run_of(script(tmp_path, f"{flags} all_gather all_gather"))["stack"]["overlap"]["context_parallel_exchange"]
        == "all_gather"
    )
    assert script(tmp_path, f"{flags} p2p all_gather").refused


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--num-layers-per-virtual-pipeline-stage 3", "3 does not divide the 8 layers of a pipeline stage"),
        (
            "--num-layers-per-virtual-pipeline-stage 2 --num-virtual-stages-per-pipeline-rank 2",
            "2 makes 4 pieces of a stage, and --num-virtual-stages-per-pipeline-rank says 2",
        ),
    ],
)
def test_layers_that_make_no_whole_pieces_are_wrong(tmp_path: Path, flags: str, words: str) -> None:
    """Megatron-LM stops there too."""
    with pytest.raises(InputError, match=words):
        script(tmp_path, f"--num-layers 32 --pipeline-model-parallel-size 4 {flags}")


@pytest.mark.parametrize(
    ("head", "taken", "is_told"),
    [
        ('[ "$FP8" = 1 ] && ARGS+=" --fp8-format hybrid"', "bf16", True),
        ('FP8=0\n[[ $FP8 == 1 ]] && ARGS+=" --fp8-format hybrid"', "bf16", False),
        ('FP8=1\n[[ $FP8 == 1 ]] && ARGS+=" --fp8-format hybrid"', "fp8", False),
        ('(( FP8 == 1 )) && ARGS+=" --fp8-format hybrid"', "bf16", True),
        ('[ -d /data ] || ARGS=" --fp8-format hybrid"', "bf16", True),
        ('cd /data || exit 1\nARGS="--fp8-format hybrid"', "fp8", False),
        ('if [ "$FP8" = 1 ]; then ARGS=(--fp8-format hybrid); fi', "bf16", True),
        ("FP8=${FP8:-0}\nif [ $FP8 -eq 1 ]; then ARGS=(--fp8-format hybrid); fi", "bf16", False),
    ],
)
def test_conditions_that_a_script_does_not_settle_are_told(tmp_path: Path, head: str, taken: str, is_told: bool) -> None:
    """With the flags under them, which are taken as not given."""
    found = script(tmp_path, "--bf16 ${ARGS[@]}", text=f"{head}\n{SMALL}")
    assert run_of(found)["precision"] == taken
    assert any("--fp8-format" in each and "under a condition" in each for each in found.assumed) is is_told


@pytest.mark.parametrize("flag", ["--train-iters", "--normalization", "--vocab-size"])
def test_a_flag_without_its_value_is_named(tmp_path: Path, flag: str) -> None:
    """As one whose variable is empty."""
    with pytest.raises(InputError, match=f"{flag}: it needs a value, and has none"):
        script(tmp_path, f"{flag} $NOTHING --bf16", text=f"NOTHING=\n{SMALL}")


def test_ranks_of_a_script_inside_srun_are_those_of_srun(tmp_path: Path) -> None:
    """Whose options stand outside of the words that it starts."""
    command = SMALL.partition("pretrain_gpt.py")[2].replace("EXTRA", "").strip()
    text = f"CMD='python -u pretrain_gpt.py {command}'\nsrun -N 4 --ntasks-per-node=8 -l sh -c \"${{CMD}}\"\n"
    assert run_of(converted(tmp_path, text))["gpus"] == 32
