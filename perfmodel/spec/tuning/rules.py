"""Which fine-tunings can be, and which the software of a run has: every rule, with what would work instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import numpy as np

from perfmodel.errors import NotSupportedError
from perfmodel.spec.axes import AXES, CONTEXT, DATA
from perfmodel.spec.layout import GATHERED
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.rules import Rule
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import AS_THE_STACK, PARTS, FineTuning

OF_ATTENTION: Final = ("query", "key", "value", "qkv", "projection")
WITH_ADAPTERS: Final = ("full", "sliding")  # kinds of attention whose linears have names for adapters


def tuning_rules(setup: Setup) -> Iterator[Rule]:
    """The rules of fine-tuning; none for a run that is none."""
    if setup.tuning is None:
        return
    yield from _of_the_stack(setup, setup.tuning)
    if setup.stack.tuning is None:
        return
    yield from _of_the_layout(setup, setup.tuning)
    yield from _of_the_weights(setup.tuning)
    yield from _of_the_parts(setup.tuning)
    if setup.tuning.has_adapters:
        yield from _of_adapters(setup, setup.tuning)


def _of_the_stack(setup: Setup, tuning: FineTuning) -> Iterator[Rule]:
    """What the software has of it."""
    stack, work = setup.stack, setup.stack.tuning
    yield Rule(
        key="training",
        allows=work is not None,
        sentence=lambda: f"{stack.name} does not fine-tune; a stack that does would, as in stack: hf-peft",
        error=NotSupportedError,
    )
    if work is None:
        return
    asked = (
        ("training", tuning.training, work.trainings),
        ("weights", tuning.weights, work.weights),
        ("optimizer", tuning.optimizer, work.optimizers),
        *(("offload", each, work.offloads) for each in tuning.offload),
    )
    for key, word, offered in asked:
        yield _offered(stack.name, key, word, offered)


def _offered(name: str, key: str, word: str, offered: Sequence[str]) -> Rule:
    return Rule(
        key=key,
        allows=word in offered,
        sentence=lambda: f"{name} has no {key} {word}; it has {', '.join(offered) or 'none'}",
        error=NotSupportedError,
    )


def _of_the_layout(setup: Setup, tuning: FineTuning) -> Iterator[Rule]:
    layout = setup.layout
    covered = (DATA.name, CONTEXT.name)
    for axis in AXES:
        if axis.name not in covered:
            yield Rule(
                key=axis.name,
                allows=np.asarray(layout.degree(axis)) == 1,
                sentence=partial("fine-tuning is covered on data-parallel GPUs alone; {} 1 would do".format, axis.name),
                error=NotSupportedError,
            )
    yield Rule(
        key="precision",
        allows=not layout.recipe.casts and layout.recipe.has_master,
        sentence=lambda: f"fine-tuning in {layout.precision} is not covered; bf16 or fp16 would do",
        error=NotSupportedError,
    )
    yield Rule(
        key="recompute",
        allows=layout.recompute in ("none", "full") and layout.recompute_layers is None,
        sentence=lambda: f"fine-tuning with recompute {layout.recompute} of some layers is not covered; none or full would do",
        error=NotSupportedError,
    )
    yield Rule(
        key="offload",
        allows="parameters" not in tuning.offload or layout.sharding in GATHERED,
        sentence=lambda: "parameters lie in the host's memory where they are sharded; sharding zero3 would do",
    )
    yield Rule(
        key="offload",
        allows="activations" not in tuning.offload or layout.recompute == "full",
        sentence=lambda: "what travels are the inputs of layers that run again; recompute full would do",
    )
    yield Rule(
        key="cluster.gpu.host_bytes_per_s",
        allows=not tuning.offload or setup.cluster.gpu.host_bytes_per_s is not None,
        sentence=lambda: f"missing; how fast {setup.cluster.gpu.name} reaches its host is needed for offload",
    )


def _of_the_weights(tuning: FineTuning) -> Iterator[Rule]:
    yield Rule(
        key="weights",
        allows=tuning.has_adapters or not tuning.is_quantised,
        sentence=lambda: f"{tuning.weights} weights cannot be trained themselves; training: qlora puts adapters beside them",
    )
    yield Rule(
        key="weights",
        allows=not tuning.has_adapters or tuning.weights != AS_THE_STACK,
        sentence=lambda: "weights beside adapters are frozen; bf16 would do",
    )
    yield Rule(
        key="weights",
        allows=tuning.training != "qlora" or tuning.is_quantised,
        sentence=lambda: f"{tuning.weights} is not quantised; training: lora is that, or weights: nf4-dq",
    )


def _of_the_parts(tuning: FineTuning) -> Iterator[Rule]:
    yield Rule(
        key="frozen_parts",
        allows=not tuning.frozen_parts or not tuning.has_adapters,
        sentence=lambda: "everything beside adapters is frozen; trained_parts names what is not",
    )
    yield Rule(
        key="frozen_parts",
        allows=tuning.has_adapters or set(tuning.frozen_parts) != set(PARTS),
        sentence=lambda: "nothing is left to train",
    )
    yield Rule(
        key="trained_parts",
        allows=not tuning.trained_parts or tuning.has_adapters,
        sentence=lambda: "a full fine-tuning trains all parts; frozen_parts names what it leaves",
    )


def _of_adapters(setup: Setup, tuning: FineTuning) -> Iterator[Rule]:
    kinds: Sequence[LayerKind] = tuple(setup.model.kinds.values())
    others = [kind.attention for kind in kinds if kind.attention not in (*WITH_ADAPTERS, "none")]
    yield Rule(
        key="training",
        allows=not others,
        sentence=lambda: f"adapters beside {others[0]} attention are not covered",
        error=NotSupportedError,
    )
    of_mlps = [each for each in tuning.adapter_targets if each not in OF_ATTENTION]
    yield Rule(
        key="adapter_targets",
        allows=not of_mlps or all(kind.feed_forward in ("dense", "none") for kind in kinds),
        sentence=lambda: "adapters beside experts are not covered; query key value projection would do",
        error=NotSupportedError,
    )
    yield Rule(
        key="adapter_targets",
        allows="qkv" not in tuning.adapter_targets or not {"query", "key", "value"} & set(tuning.adapter_targets),
        sentence=lambda: "qkv is query, key and value as one; name it or them",
    )
    yield Rule(
        key="optimizer",
        allows=tuning.optimizer != "muon",
        sentence=lambda: "Muon on the matrices of adapters is not covered; adamw would do",
        error=NotSupportedError,
    )
