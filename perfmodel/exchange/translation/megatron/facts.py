"""What the flags of Megatron-LM make together: the run of a launch script, of a YAML of arguments, or of the head of a log.

Defaults are Megatron's own (data/formats/megatron_defaults.yaml): whatever is silent there is said in the run's assumptions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.translation.batch_ramps import linear_ramp, named_steps, rounded_down
from perfmodel.exchange.translation.conversion import Conversion, stage
from perfmodel.exchange.translation.defaults import Default, defaults_of, vocabulary_of
from perfmodel.exchange.translation.megatron.parts import add_parts
from perfmodel.exchange.translation.megatron.pipeline_layouts import pieces_given
from perfmodel.exchange.translation.megatron.software import software
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, number, whole
from perfmodel.exchange.translation.words.word_table import is_true, says_nothing, word_table
from perfmodel.spec.layout import RECOMPUTE_MODULES

NEEDED: Final = (  # without which there is no run
    *("model.layers", "model.hidden_size", "model.attention_heads", "sequence_length", "micro_batch_size"),
)
SHARDINGS: Final = {"no_shard": "none", "optim": "zero1", "optim_grads": "zero2", "optim_grads_params": "zero3"}
FSDP: Final = "optim_grads_params"  # what --use-megatron-fsdp shards unless it is told
GATED: Final = ("swiglu", "geglu")


MEGATRON: Final = Dialect(table="megatron", software="Megatron-LM", switches_groups=True)


def from_flags(given: Mapping[str, Any], *, format_name: str, name: str, gpus: int | None = None) -> Conversion:
    """The run that flags of Megatron-LM with their values describe, on so many GPUs where a launcher says it.

    Errors: InputError for a flag that is missing or has no sound value.
    """
    return from_words(given, dialect=MEGATRON, format_name=format_name, name=name, gpus=gpus)


def from_words(
    given: Mapping[str, Any], *, dialect: Dialect, format_name: str, name: str, gpus: int | None = None
) -> Conversion:
    """The run that words of one of the dialects with their values describe. Errors: InputError."""
    draft = RunDraft(given, dialect)
    for key in NEEDED:
        draft.need(key)
    for part in (_sizes, _layout, add_parts, _software, _recompute, _states_of_pipeline):
        part(draft)
    world = gpus or whole(draft.facts.get("world_size")) or _nodes(draft)
    return draft.conversion(format_name=format_name, name=name, gpus=world, stages=_stages(draft, world))


def _nodes(draft: RunDraft) -> int | None:
    """GPUs as nodes and GPUs a node."""
    nodes, each = whole(draft.facts.get("nodes")), draft.facts.get("gpus_per_node")
    return nodes * each if nodes and isinstance(each, int) and each > 0 else None  # it may be "auto", or -1


def _sizes(draft: RunDraft) -> None:
    """Take the sizes and parts of the model."""
    settings, facts = draft.settings, draft.facts
    for default in defaults_of(draft.dialect.table, "model."):
        draft.take(default)
    hidden, heads = (number(settings[f"model.{each}"], each) for each in ("hidden_size", "attention_heads"))
    is_gated = settings["model.activation"] in GATED
    wide = 4 * hidden
    if "model.ffn_hidden_size" not in settings:
        settings["model.ffn_hidden_size"] = wide * 2 // 3 // 64 * 64 if is_gated else wide
        rule = "4 * hidden_size * 2/3, rounded down to 64" if is_gated else "4 * hidden_size"
        draft.silent("model.ffn_hidden_size", f"{draft.dialect.software} takes {rule}, {settings['model.ffn_hidden_size']:,}")
    settings.setdefault("model.head_size", max(hidden // max(heads, 1), 1))
    settings["model.kv_heads"] = _kv_heads(draft, heads)
    settings["model.dropout"] = _dropout(draft)
    if settings["model.position"] == "learned":
        settings["model.max_positions"] = facts.get("max_positions") or settings["sequence_length"]
    if facts.get("qk_norm") and not facts.get("latent"):  # whose narrow vectors are normalised in any case
        settings["model.qk_norm"] = "head" if settings["model.norm"] == "rmsnorm" else "head_with_bias"
    if facts.get("qkv_bias") and not settings["model.biases"]:
        settings["model.biases_of"] = "qkv"
    size, sentence = vocabulary_of(facts)
    settings["model.vocab_size"] = size
    draft.assumed += [sentence] if sentence else []


def _kv_heads(draft: RunDraft, heads: int) -> int:
    if given := whole(draft.facts.get("kv_heads")):
        return given
    groups = whole(draft.facts.get("query_groups"))
    if not draft.dialect.switches_groups:
        return groups or heads
    if draft.facts.get("grouped_queries"):
        if groups is None:
            draft.silent("query_groups", f"{draft.dialect.software} takes 1 KV head")
        return groups or 1
    if groups not in (None, heads):
        draft.assumed.append(
            f"--num-query-groups {groups} counts only with --group-query-attention: {heads} KV heads are taken"
        )
    return heads


def _dropout(draft: RunDraft) -> bool:
    rates = ("attention_dropout", "hidden_dropout")
    missing = [draft.words[fact] for fact in rates if fact not in draft.facts]
    if missing:
        default = f"{draft.dialect.software}'s default is a dropout of 0.1, whose masks are kept"
        draft.assumed.append(f"{' and '.join(missing)} not given: {default}")
    return bool(missing) or any(float(draft.facts[fact]) > 0 for fact in rates)


def _layout(draft: RunDraft) -> None:
    """Degrees, the schedule, and the sharding."""
    for default in defaults_of(draft.dialect.table, "layout."):
        draft.take(Default(key=default.key.removeprefix("layout."), value=default.value, says=default.says))
    settings, facts = draft.settings, draft.facts
    layers, pipeline = number(settings["model.layers"], "--num-layers"), number(settings["pipeline_parallel"], "pipeline")
    settings["virtual_pipeline"] = 1
    try:
        settings |= pieces_given(facts, layers=layers, pipeline=pipeline, further=settings.get("model.multi_token_layers", 0))
    except NotSupportedError as error:
        draft.refused.append(": ".join(filter(None, (draft.said.names.get("pipeline_layout"), str(error)))))
    if settings["sequence_parallel"] and settings["tensor_parallel"] == 1:
        settings["sequence_parallel"] = False
        draft.assumed.append(f"{draft.words['sequence_parallel']} is without effect: there is one tensor-parallel rank")
    settings["sharding"] = _sharding(draft)
    instances = whole(facts.get("optimizer_instances")) or 1
    if instances > 1 and settings["sharding"] == "zero3":
        settings |= {"sharding": "hsdp", "data_parallel_replicas": instances}
    elif instances > 1:
        draft.refused.append(
            f"--num-distributed-optimizer-instances {instances}: copies of optimizer shards cannot be expressed yet"
        )


def _sharding(draft: RunDraft) -> str:
    facts = draft.facts
    if facts.get("torch_fsdp"):
        return "zero3"
    if facts.get("megatron_fsdp"):
        strategy = str(facts.get("sharding_strategy", FSDP))
        if strategy not in SHARDINGS:
            raise InputError(f"{shown(strategy)} is none of {', '.join(SHARDINGS)}", key=draft.words["sharding_strategy"])
        if "sharding_strategy" not in facts:
            draft.silent("sharding_strategy", f"{FSDP}, which is zero3")
        return SHARDINGS[strategy]
    if facts.get("distributed_optimizer"):
        return "zero1"
    if (zero := whole(facts.get("zero_stage"))) is not None and facts.get("deepspeed"):
        return f"zero{zero}" if zero else "none"
    draft.silent("distributed_optimizer", "every replica holds all optimizer states")
    return "none"


def _software(draft: RunDraft) -> None:
    """The stack preset that fits, and what the flags change of it; and the precision."""
    draft.settings |= software(draft.facts, draft.settings, draft.silent)
    draft.assumed.append(f"kernels, their host times and their efficiency are those of stack {draft.settings['stack.extends']}")


def _recompute(draft: RunDraft) -> None:
    facts, settings = draft.facts, draft.settings
    selective = "selective" if facts.get("recompute_activations") else None
    granularity = facts.get("recompute_granularity") or selective or ("full" if facts.get("checkpoint_activations") else "none")
    settings["recompute"] = granularity
    number = whole(facts.get("recompute_layers"))
    if granularity == "full" and facts.get("recompute_method") == "block" and number is not None:
        held = -(-settings["model.layers"] // settings["pipeline_parallel"])
        again = min(number * settings["virtual_pipeline"], held)
        settings |= {"recompute_layers": again} if again else {"recompute": "none"}
    elif granularity == "full" and (number or 1) > 1:
        draft.assumed.append(f"units of {number} layers are run again together: each layer's input is taken to be kept")
    if granularity == "selective":
        _again(draft, _words(facts.get("recompute_modules")))


def _again(draft: RunDraft, modules: list[str]) -> None:
    """Which modules run again, where not the attention core alone."""
    if unknown := [each for each in modules if each not in RECOMPUTE_MODULES]:
        known = f"known are {', '.join(RECOMPUTE_MODULES)}"
        draft.refused.append(f"{draft.words['recompute_modules']} {' '.join(modules)}: {unknown[0]} is not covered; {known}")
    elif modules not in ([], ["core_attn"]):
        names = " ".join(dict.fromkeys(modules))
        draft.settings |= {"recompute_modules": names, "stack.offers.recompute_modules": names}


def _states_of_pipeline(draft: RunDraft) -> None:
    """Messages between stages run beside passes where stages are interleaved; otherwise Megatron-LM waits for each."""
    if draft.settings["virtual_pipeline"] > 1 and "stack.overlap.pipeline" not in draft.settings:
        draft.settings["stack.overlap.pipeline"] = True


def _stages(draft: RunDraft, gpus: int | None) -> list[dict[str, Any]]:
    """The ramp stages; the global batch is that of one micro-batch a replica where no other is given."""
    facts, length = draft.facts, number(draft.settings["sequence_length"], "--seq-length")
    batch = whole(facts.get("global_batch_size"))
    if batch is None and not facts.get("batch_schedule"):
        draft.silent(
            "global_batch_size", f"{draft.dialect.software} takes {draft.words['micro_batch_size']} times the replicas"
        )
    tokens = _tokens(draft, batch, length)
    if facts.get("batch_schedule"):
        return named_steps(facts["batch_schedule"], length=length, tokens=tokens)
    if not facts.get("ramp") or batch is None:
        return [stage(batch, tokens)]
    stages = linear_ramp(facts["ramp"], batch=batch, length=length, tokens=tokens)
    replica = draft.settings["tensor_parallel"] * draft.settings["pipeline_parallel"] * draft.settings["context_parallel"]
    if facts.get("rounds_batches") and gpus:
        return rounded_down(stages, draft.settings["micro_batch_size"] * max(gpus // replica, 1))
    return stages


def _tokens(draft: RunDraft, batch: int | None, length: int) -> float | None:
    """Tokens of the whole run. With a ramp, iterations do not say them."""
    facts = draft.facts
    if samples := facts.get("train_samples"):
        return float(number(samples, "--train-samples")) * length
    if tokens := facts.get("train_tokens"):
        return float(number(tokens, "--train-tokens"))
    iterations = facts.get("train_iterations")
    is_ramp = facts.get("ramp") or facts.get("batch_schedule")
    if iterations and batch is not None and not is_ramp:
        return float(number(iterations, "--train-iters")) * batch * length
    if iterations:
        why = "the batch grows" if is_ramp else "the global batch is not given"
        draft.ignored.append(f"{draft.words['train_iterations']}: {why}; --tokens says for how many tokens it trains")
    return None


def from_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that arguments by their internal names stand for, as YAML and the head of a log have them.

    >>> from_arguments({"num_layers": 2, "add_bias_linear": False, "bf16": True, "swiglu": False})
    {'--num-layers': 2, '--disable-bias-linear': True, '--bf16': True}
    """
    return dict(_flags(arguments))


def _flags(arguments: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    table = word_table("megatron")
    flags = {word.argument or _argument(name): word for name, word in table.read.items()}
    for name, value in arguments.items():
        word = flags.get(name)
        if word is None:
            flag = f"--{name.replace('_', '-')}"
            if not says_nothing(value) and value not in (False, 0, "False", "0", "0.0"):
                yield flag, value
        elif word.value is None:
            yield word.name, value
        elif not says_nothing(value) and is_true(value) is word.when:
            yield word.name, True


def _argument(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _words(value: Any) -> list[str]:
    words = value if isinstance(value, list) else str(value or "").split()
    return [str(each).strip("[],'\"") for each in words]
