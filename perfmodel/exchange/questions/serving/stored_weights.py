"""In which format the weights of a checkpoint are: what the quantization_config of its config.json says, or its name alone.

Each quantiser has words of its own for the same thing: numbers of some bits, whole or floating, whose scales blocks of numbers
share. Sources: transformers 5.24, utils/quantization_config.py; vLLM, model_executor/layers/quantization (compressed_tensors,
modelopt.py); NVIDIA Model Optimizer, hf_quant_config.json.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.importers.registry import assumed, document_at
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES
from perfmodel.exchange.tables.serving_models import is_repository
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.serving.formats import METHODS, WEIGHT_FORMATS, WIDE

KEY: Final = "quantization_config"
BESIDE: Final = "hf_quant_config.json"  # what Model Optimizer writes beside a config.json
NARROW: Final = 8  # bits, up to which products whose inputs are cast too have circuits of their own
ALGORITHMS: Final = {  # of Model Optimizer
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB": "fp8_block",
    "FP8_PB_WO": "fp8_block",
    "FP8_BLOCK_SCALES": "fp8_block",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "MXFP4": "mxfp4",
    "W4A16": "int4",
    "W4A16_AWQ": "int4",
    "INT4_AWQ": "int4",
    "W8A16": "int8_wo",
    "W8A8_SQ_PER_CHANNEL": "int8",
}
NAMES: Final = {"fp4": "nvfp4"}  # that people call a format, beside its own and its methods
LEFT_OUT: Final = ("multi_token_layers",)  # of what an importer assumes: no server runs these


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNumbers:
    """How a checkpoint holds the numbers of its linears: `block` of them share a scale, 0 where channels or matrices do.

    Where it leaves the inputs of products in 16 bits, engines multiply in 16 bits too (vLLM, CompressedTensorsW4A16Fp4 and
    CompressedTensorsW8A16Fp8): that is no product of fp8 or nvfp4.
    """

    bits: int
    is_float: bool
    block: int = 0
    casts_inputs: bool = False

    @property
    def format(self) -> str | None:
        """The name of the format; None for one that is not known."""
        if self.is_float:
            found = {(8, 0): "fp8", (4, 16): "nvfp4", (4, 32): "mxfp4"}.get((self.bits, self.block if self.bits == 4 else 0))
            return found if self.casts_inputs or found == "mxfp4" else None  # of which engines choose the inputs
        narrow = {8: "int8"} if self.casts_inputs else {8: "int8_wo", 4: "int4"}
        return narrow.get(self.bits)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """The format that the weights of a model are taken in, and what is said of it."""

    precision: str
    sentences: tuple[str, ...] = ()


def stored_weights(model: Any, precision: str | None = None) -> StoredWeights:
    """The format in which engines load a model that somebody names: that asked for, else the checkpoint's, else 16 bits.

    Errors: NotSupportedError for a checkpoint in a format that is not known.
    """
    if isinstance(model, str) and is_repository(model):
        return StoredWeights(precision=precision or WIDE, sentences=() if precision else tuple(_of_name(model)))
    said = tuple(sentence for key, sentence in assumed(model).items() if key not in LEFT_OUT)
    if precision:
        return StoredWeights(precision=precision, sentences=said)
    config = _quantisation(model)
    if not config:
        return StoredWeights(precision=WIDE, sentences=said)
    precision = _format(config)
    found = [f"weights are in {precision}, as {KEY} of the config.json has them; --precision takes others"]
    if _has_narrow_cache(config):
        found.append(f"keys and values stay in {WIDE}; --kv-precision fp8 holds them as the checkpoint's scales allow")
    return StoredWeights(precision=precision, sentences=(*said, *found))


def named_format(name: str) -> str:
    """The format of weights that a word of a name stands for, "" where none does.

    >>> named_format("nvidia/Llama-3.3-70B-Instruct-NVFP4"), named_format("Qwen/Qwen3-8B-AWQ"), named_format("Qwen/Qwen3-8B")
    ('nvfp4', 'int4', '')
    """
    known = {each: each for each in WEIGHT_FORMATS if each != WIDE} | METHODS | NAMES
    words = re.split(r"[-_. /]", name.lower())
    return next((known[word] for word in words if word in known), "")


def _of_name(name: str) -> Iterator[str]:
    """A sentence where a repository is called after a format, of which nothing else is known here."""
    if found := named_format(name):
        yield f"weights are taken in {WIDE}, though the name of {name} says {found}: --precision {found} takes them so"


def _quantisation(model: Any) -> Mapping[str, Any]:
    """What a config.json, or the file beside it, says of how its weights are stored; empty where it says nothing."""
    if isinstance(model, str) and Path(model).suffix.lower() in FILE_SUFFIXES:
        path = Path(model)
        own = _found_in(document_at(path).mapping)
        beside = path.parent / BESIDE
        return own if own or not beside.is_file() else _found_in({KEY: document_at(beside).mapping.get("quantization")})
    return _found_in(model) if isinstance(model, Mapping) else {}


def _found_in(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    """The quantization_config of a config, or of the text model inside it. Errors: InputError."""
    inside = (each for each in mapping.values() if isinstance(each, Mapping) and KEY in each)
    found = mapping.get(KEY) or next(inside, {}).get(KEY)
    if found is not None and not isinstance(found, Mapping):
        raise InputError(f"{shown(found)} does not say how weights are stored", key=KEY)
    return found or {}


def _format(config: Mapping[str, Any]) -> str:
    """The format that a quantization_config describes. Errors: NotSupportedError."""
    algorithm = config.get("quant_algo")
    if config.get("config_groups"):
        found = _of_groups(config)
    elif algorithm is not None:
        found = ALGORITHMS.get(str(algorithm).upper())
    else:
        found = _of_method(config)
    if found is None:
        method = algorithm or config.get("quant_method")
        known = ", ".join(name for name in WEIGHT_FORMATS if name != WIDE)
        raise NotSupportedError(f"weights as {shown(method)} has them here are not covered; --precision takes {known}", key=KEY)
    return found


def _of_method(config: Mapping[str, Any]) -> str | None:
    """That of a quantiser which holds all linears alike."""
    method = str(config.get("quant_method", "")).lower().replace("_", "-")
    if method in ("fp8", "fbgemm-fp8"):
        if config.get("expert_dtype", "fp8") != "fp8":
            return None
        return "fp8_block" if config.get("weight_block_size") else "fp8"
    if method == "mxfp4":
        return "mxfp4"
    if method == "bitsandbytes":
        return _of_bitsandbytes(config)
    if method in ("awq", "gptq", "auto-round", "gptq-marlin", "awq-marlin"):
        bits = config.get("bits", config.get("w_bit"))
        return StoredNumbers(bits=bits, is_float=False).format if isinstance(bits, int) else None
    return None


def _of_bitsandbytes(config: Mapping[str, Any]) -> str | None:
    """Numbers of 4 bits; those of 8 are multiplied with outliers apart, of which nothing is known here."""
    if not config.get("load_in_4bit") or config.get("bnb_4bit_quant_type") != "nf4":
        return None
    return "nf4-dq" if config.get("bnb_4bit_use_double_quant") else "nf4"


def _of_groups(config: Mapping[str, Any]) -> str | None:
    """That of compressed-tensors and Model Optimizer, whose groups of linears have to be alike."""
    listed = config["config_groups"]
    groups = [each for each in listed.values() if isinstance(each, Mapping)] if isinstance(listed, Mapping) else []
    numbers = {(each.bits, each.is_float, each.block, each.casts_inputs): each for each in map(_of_group, groups) if each}
    if len(numbers) != 1:
        return None
    (stored,) = numbers.values()
    if stored.format == "fp8" and stored.block:
        return "fp8_block"
    ignored = config.get("ignore")
    spared = ignored if isinstance(ignored, list) else ()
    if stored.format == "int4" and stored.block == 32 and any("attn" in str(each) for each in spared):
        return "int4_experts"
    return stored.format


def _of_group(group: Mapping[str, Any]) -> StoredNumbers | None:
    """What one group says of its weights, and of the inputs of its products."""
    weights, inputs = group.get("weights"), group.get("input_activations")
    if not isinstance(weights, Mapping) or not isinstance(weights.get("num_bits"), int):
        return None
    size = weights.get("group_size") or weights.get("block_structure") or 0
    if isinstance(size, str):  # "128x128", as older versions of compressed-tensors have it
        size = [int(each) for each in re.findall(r"\d{1,6}", size)]
    block = size[-1] if isinstance(size, Sequence) and size else size
    casts = isinstance(inputs, Mapping) and isinstance(inputs.get("num_bits"), int) and inputs["num_bits"] <= NARROW
    return StoredNumbers(
        bits=weights["num_bits"],
        is_float=weights.get("type") == "float",
        block=block if isinstance(block, int) and block > 0 else 0,
        casts_inputs=casts,
    )


def _has_narrow_cache(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint has scales for keys and values in 8 bits."""
    return bool(config.get("kv_cache_scheme") or config.get("kv_cache_quant_algo"))
