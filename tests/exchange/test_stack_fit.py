"""Is a run told what its software lacks, or cannot have held, and which presets would have it?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.memory.fit import DOES_NOT_FIT
from perfmodel.exchange.presets import preset_names, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.stack_fit import NOT_SOFTWARE, beyond_the_memory, beyond_the_stack, software_offering
from perfmodel.prediction import predict
from perfmodel.spec.run import Run


def asked(*settings: str) -> Run:
    """The central run with other settings."""
    return read_candidates("nemotron-4-15b", settings)[0].run


def named(sentence: str) -> list[str]:
    """The presets that a sentence ends with."""
    words = sentence.rpartition("; ")[2].replace(" and ", " ").split()
    return [word for word in words if word in preset_names("stacks")]


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        (["stack=pytorch-fsdp", "sharding=zero3"], "no tensor parallelism"),
        (["stack=pytorch-fsdp", "sharding=zero3", "context_parallel=2"], "no tensor parallelism and no context parallelism"),
        (["sharding=zero3"], "no zero3 sharding"),
        (["sharding=none", "pipeline_parallel=2", "pipeline_schedule=zb-h1"], "no zb-h1 schedule"),
    ],
)
def test_what_the_software_lacks_is_named_with_presets_that_have_it(settings: list[str], lacking: str) -> None:
    """And those presets have all of it."""
    run = asked(*settings)
    (sentence,) = beyond_the_stack(run)
    assert sentence.startswith(f"{run.stack.name} offers {lacking}; it is predicted as if it did")
    assert named(sentence)
    for name in named(sentence):
        assert name not in NOT_SOFTWARE
        assert beyond_the_stack(replace(run, stack=stack_preset(name))) == ()


def test_states_that_stay_whole_ask_for_nothing() -> None:
    """Also of software that shards them unless it is told otherwise."""
    assert beyond_the_stack(asked("stack=pytorch-fsdp", "sharding=none", "tensor_parallel=1", "sequence_parallel=false")) == ()
    assert beyond_the_stack(asked()) == ()


def too_large(**changes: Any) -> Run:
    """Micro-batches that no GPU holds with all activations kept."""
    return replace(asked("micro_batch_size=4", "tensor_parallel=1", "sequence_parallel=false"), **changes)


def test_a_run_that_ran_beyond_its_memory_is_doubted() -> None:
    """With what it needs, what it ran on, and presets on which it may fit; where none does, none is named."""
    run = too_large()
    assert predict(run).verdict == DOES_NOT_FIT
    sentence = beyond_the_memory(run)
    assert f"with {run.stack.name} and ran on 79.1 GiB" in sentence
    for name in named(sentence):
        assert predict(replace(run, stack=stack_preset(name))).may_fit
    small = replace(run, cluster=replace(run.cluster, gpu=replace(run.cluster.gpu, memory_bytes=4e9)))
    assert named(beyond_the_memory(small)) == []
    assert beyond_the_memory(asked()) == ""


def test_a_smaller_need_finds_software_that_holds_less() -> None:
    """llm-foundry's loss holds a third of what another FSDP holds a logit: where the one does not fit, it is named."""
    settings = ["stack=pytorch-fsdp", "sharding=zero3", "tensor_parallel=1", "sequence_parallel=false", "recompute=full"]
    run = next(
        run
        for micro_batch_size in (2, 4, 6, 8, 12, 16)
        if predict(
            run := asked(
                *settings,
                f"micro_batch_size={micro_batch_size}",
                f"stages.0.global_batch_size={96 * micro_batch_size}",
                f"stages.1.global_batch_size={192 * micro_batch_size}",
                f"stages.2.global_batch_size={288 * micro_batch_size}",
            )
        ).verdict
        == DOES_NOT_FIT
    )
    assert predict(replace(run, stack=stack_preset("llm-foundry"))).fit_probability > predict(run).fit_probability


def test_software_that_offers_a_layout_has_all_that_it_asks() -> None:
    """FSDP alone splits no layer; the run's own software is not another one."""
    run = read_candidates("nemotron-4-15b")[0].run
    layout = replace(run.layout(run.stages[0]), sharding="none")
    whole = replace(layout, tensor_parallel=1, sequence_parallel=False)
    cut, uncut = ({each.name for each in software_offering(run, each)} for each in (layout, whole))
    fsdp = stack_preset("pytorch-fsdp").name
    assert fsdp in uncut - cut
    assert cut < uncut
    assert run.stack.name not in uncut
    assert stack_preset("ideal").name not in uncut
