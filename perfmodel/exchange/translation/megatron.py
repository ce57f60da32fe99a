"""What the flags of Megatron-LM make together: the run of a launch script, of a YAML of arguments, or of the head of a log.

Defaults are Megatron's own (data/formats/megatron_defaults.yaml): whatever is silent there is said in the run's assumptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.translation.batch_ramps import linear_ramp, named_steps, rounded_down
from perfmodel.exchange.translation.conversion import Conversion, nested, stage, uncovered
from perfmodel.exchange.translation.defaults import Default, defaults_of, vocabulary_of
from perfmodel.exchange.translation.megatron_software import software
from perfmodel.exchange.translation.pipeline_layouts import chunks_of
from perfmodel.exchange.translation.word_table import Reading, is_true, reading, says_nothing, word_table

NEEDED: Final = {  # without which there is no run
    "model.layers": "--num-layers",
    "model.hidden_size": "--hidden-size",
    "model.attention_heads": "--num-attention-heads",
    "sequence_length": "--seq-length",
    "micro_batch_size": "--micro-batch-size",
}
SHARDINGS: Final = {"no_shard": "none", "optim": "zero1", "optim_grads": "zero2", "optim_grads_params": "zero3"}
FSDP: Final = "optim_grads_params"  # what --use-megatron-fsdp shards unless it is told
GATED: Final = ("swiglu", "geglu")


def from_flags(given: Mapping[str, Any], *, format_name: str, name: str, gpus: int | None = None) -> Conversion:
    """The run that flags with their values describe, on so many GPUs where a launcher says it.

    Errors: InputError for a flag that is missing or has no sound value.
    """
    said = reading(given, word_table("megatron"))
    for key, flag in NEEDED.items():
        if key not in said.settings:
            raise InputError("missing; the run needs it", key=flag)
    draft = _Draft(said)
    for part in (_sizes, _layout, _software, _recompute, _states_of_pipeline):
        part(draft)
    world = gpus or _whole(said.facts.get("world_size"))
    stages = _stages(draft, world)
    settings = {"name": name, "model.name": name, **draft.settings, **({"gpus": world} if world else {}), "stages": stages}
    refused = (*said.refused, *draft.refused, *uncovered(settings, said.names))
    return Conversion(
        format=format_name, run=nested(settings), assumed=tuple(draft.assumed), ignored=said.ignored, refused=refused
    )


class _Draft:
    """A run as far as it is made: settings by key path, and what they take for granted."""

    def __init__(self, said: Reading) -> None:
        self.facts, self.settings = said.facts, dict(said.settings)
        self.assumed: list[str] = []
        self.refused: list[str] = []

    def take(self, default: Default) -> None:
        """A default, where nothing was said."""
        if default.key not in self.settings:
            self.settings[default.key] = default.value
            self.assumed += [default.says] if default.says else []

    def attempt(self, key: str, value: Callable[[], Any]) -> None:
        """A setting that may not be covered: then the reason is kept."""
        try:
            self.settings[key] = value()
        except NotSupportedError as error:
            self.refused.append(str(error))


def _sizes(draft: _Draft) -> None:
    """The model."""
    settings, facts = draft.settings, draft.facts
    for default in defaults_of("megatron", "model."):
        draft.take(default)
    hidden, heads = (_number(settings[f"model.{each}"], each) for each in ("hidden_size", "attention_heads"))
    is_gated = settings["model.activation"] in GATED
    wide = 4 * hidden
    if "model.ffn_hidden_size" not in settings:
        settings["model.ffn_hidden_size"] = wide * 2 // 3 // 64 * 64 if is_gated else wide
        rule = "4 * hidden_size * 2/3, rounded down to 64" if is_gated else "4 * hidden_size"
        draft.assumed.append(f"--ffn-hidden-size is not given: Megatron-LM takes {rule}, {settings['model.ffn_hidden_size']:,}")
    settings.setdefault("model.head_size", max(hidden // max(heads, 1), 1))
    settings["model.kv_heads"] = _kv_heads(draft, heads)
    settings["model.dropout"] = _dropout(draft)
    if settings["model.position"] == "learned":
        settings["model.max_positions"] = facts.get("max_positions") or settings["sequence_length"]
    if facts.get("qk_norm"):
        settings["model.qk_norm"] = "head" if settings["model.norm"] == "rmsnorm" else "head_with_bias"
    if facts.get("qkv_bias") and not settings["model.biases"]:
        settings["model.biases_of"] = "qkv"
    size, sentence = vocabulary_of(facts)
    settings["model.vocab_size"] = size
    draft.assumed += [sentence] if sentence else []


def _kv_heads(draft: _Draft, heads: int) -> int:
    groups = _whole(draft.facts.get("query_groups"))
    if draft.facts.get("grouped_queries"):
        if groups is None:
            draft.assumed.append("--num-query-groups is not given: Megatron-LM takes 1 KV head")
        return groups or 1
    if groups not in (None, heads):
        draft.assumed.append(
            f"--num-query-groups {groups} counts only with --group-query-attention: {heads} KV heads are taken"
        )
    return heads


def _dropout(draft: _Draft) -> bool:
    rates = {"--attention-dropout": "attention_dropout", "--hidden-dropout": "hidden_dropout"}
    missing = [flag for flag, fact in rates.items() if fact not in draft.facts]
    if missing:
        draft.assumed.append(
            f"{' and '.join(missing)} not given: Megatron-LM's default is a dropout of 0.1, whose masks are kept"
        )
    return bool(missing) or any(float(draft.facts[fact]) > 0 for fact in rates.values())


def _layout(draft: _Draft) -> None:
    """Degrees, the schedule, and the sharding."""
    for default in defaults_of("megatron", "layout."):
        draft.take(Default(key=default.key.removeprefix("layout."), value=default.value, says=default.says))
    settings, facts = draft.settings, draft.facts
    layers, pipeline = _number(settings["model.layers"], "--num-layers"), _number(settings["pipeline_parallel"], "pipeline")
    settings["virtual_pipeline"] = 1
    draft.attempt("virtual_pipeline", lambda: chunks_of(facts, layers=layers, pipeline=pipeline))
    if settings["sequence_parallel"] and settings["tensor_parallel"] == 1:
        settings["sequence_parallel"] = False
    settings["sharding"] = _sharding(draft)
    instances = _whole(facts.get("optimizer_instances")) or 1
    if instances > 1 and settings["sharding"] == "zero3":
        settings |= {"sharding": "hsdp", "data_parallel_replicas": instances}
    elif instances > 1:
        draft.refused.append(
            f"--num-distributed-optimizer-instances {instances}: copies of optimizer shards cannot be expressed yet"
        )


def _sharding(draft: _Draft) -> str:
    facts = draft.facts
    if facts.get("torch_fsdp"):
        return "zero3"
    if facts.get("megatron_fsdp"):
        strategy = str(facts.get("sharding_strategy", FSDP))
        if strategy not in SHARDINGS:
            raise InputError(f"{shown(strategy)} is none of {', '.join(SHARDINGS)}", key="--data-parallel-sharding-strategy")
        if "sharding_strategy" not in facts:
            draft.assumed.append(f"--data-parallel-sharding-strategy is not given: {FSDP}, which is zero3")
        return SHARDINGS[strategy]
    if facts.get("distributed_optimizer"):
        return "zero1"
    if (zero := _whole(facts.get("zero_stage"))) is not None and facts.get("deepspeed"):
        return f"zero{zero}" if zero else "none"
    draft.assumed.append("--use-distributed-optimizer is not given: every replica holds all optimizer states")
    return "none"


def _software(draft: _Draft) -> None:
    """The stack preset that fits, and what the flags change of it; and the precision."""
    draft.settings |= software(draft.facts, draft.settings, draft.assumed)


def _recompute(draft: _Draft) -> None:
    facts, settings = draft.facts, draft.settings
    selective = "selective" if facts.get("recompute_activations") else None
    granularity = facts.get("recompute_granularity") or selective or ("full" if facts.get("checkpoint_activations") else "none")
    settings["recompute"] = granularity
    number = _whole(facts.get("recompute_layers"))
    if granularity == "full" and facts.get("recompute_method") == "block" and number is not None:
        held = -(-settings["model.layers"] // settings["pipeline_parallel"])
        again = min(number * settings["virtual_pipeline"], held)
        settings |= {"recompute_layers": again} if again else {"recompute": "none"}
    elif granularity == "full" and (number or 1) > 1:
        draft.assumed.append(f"units of {number} layers are run again together: each layer's input is taken to be kept")
    modules = _words(facts.get("recompute_modules"))
    if granularity == "selective" and modules not in ([], ["core_attn"]):
        draft.refused.append(f"--recompute-modules {' '.join(modules)}: only core_attn can be run again by itself yet")


def _states_of_pipeline(draft: _Draft) -> None:
    """Messages between stages run beside passes where stages are interleaved; otherwise Megatron-LM waits for each."""
    if draft.settings["virtual_pipeline"] > 1 and "stack.overlap.pipeline" not in draft.settings:
        draft.settings["stack.overlap.pipeline"] = True


def _stages(draft: _Draft, gpus: int | None) -> list[dict[str, Any]]:
    """The ramp stages; the global batch is that of one micro-batch a replica where no other is given."""
    facts, length = draft.facts, _number(draft.settings["sequence_length"], "--seq-length")
    batch = _whole(facts.get("global_batch_size"))
    if batch is None and not facts.get("batch_schedule"):
        draft.assumed.append("--global-batch-size is not given: Megatron-LM takes --micro-batch-size times the replicas")
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


def _tokens(draft: _Draft, batch: int | None, length: int) -> float | None:
    """Tokens of the whole run. With a ramp, iterations do not say them."""
    facts = draft.facts
    if samples := facts.get("train_samples"):
        return float(_number(samples, "--train-samples")) * length
    if tokens := facts.get("train_tokens"):
        return float(_number(tokens, "--train-tokens"))
    iterations = facts.get("train_iterations")
    is_ramp = facts.get("ramp") or facts.get("batch_schedule")
    if iterations and batch is not None and not is_ramp:
        return float(_number(iterations, "--train-iters")) * batch * length
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


def _whole(value: Any) -> int | None:
    """A whole number; None where there is none. Errors: InputError for what is another value."""
    return None if value is None or says_nothing(value) else _number(value, "")


def _number(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise InputError(f"{shown(value)} where a whole number is needed", key=key)
    return int(value)
