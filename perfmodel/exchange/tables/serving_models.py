"""Models that tables of serving runs name by their repository: a preset, or dimensions of a decoder in one row of a table."""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import NotSupportedError, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import DATA, model_preset
from perfmodel.exchange.questions.serving.served_models import served
from perfmodel.exchange.tables.csv_tables import table_rows
from perfmodel.spec.models.model import TransformerModel

MODEL_COLUMNS: Final = (
    *("model", "preset", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "qk_norm", "source"),
)


# Words of a name that say nothing of dimensions: who published the weights, how they were tuned, how they are stored.
PUBLISHED: Final = {"meta", "nvidia", "hf", "preview"}
TUNED: Final = {"it", "instruct", "chat", "base", "pt", "thinking", "reasoning", "coder", "code", "python", "terminus"}
STORED: Final = {
    *("quantized", "quant", "static", "dynamic", "pertensor", "perchannel", "block", "kv"),
    *("bf16", "fp16", "fp8", "fp4", "nvfp4", "mxfp4", "mxfp8", "nf4", "int4", "int8"),
    *("4bit", "8bit", "bnb", "awq", "gptq", "gguf"),
}
NO_DIMENSION: Final = re.compile(
    r"(?:quantized\.)?w\d{1,2}a\d{1,2}"  # bits of weights and activations
    r"|\d{4}|v0\.1"  # the month of a release; the first one, which names leave out as often as not
    r"|\d{1,4}k|1m"  # tokens of context
)
VERSION: Final = re.compile(r"(?<=[a-z])-(?=\d+(?:\.\d+)?(?:-|$))")  # of a family: "llama-3.1" is "llama3.1" to others


@cache
def served_model_rows() -> dict[str, dict[str, str]]:
    """The rows of perfmodel/data/serving_models.csv, by the repository of the model."""
    return {cells["model"]: cells for _, cells in table_rows(DATA / "serving_models.csv", MODEL_COLUMNS)}


def model_stem(name: str) -> str:
    """What is left of a repository's name without its owner and what says nothing of the dimensions.

    >>> model_stem("nvidia/Llama-3.1-8B-Instruct-FP8"), model_stem("RedHatAI/Meta-Llama3.1-8B-Instruct-quantized.w8a16")
    ('llama3.1-8b', 'llama3.1-8b')
    >>> model_stem("mistralai/Mistral-7B-Instruct-v0.3"), model_stem("deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
    ('mistral-7b-v0.3', 'deepseek-r1-distill-llama-8b')
    >>> model_stem("unsloth/mistral-7b-bnb-4bit"), model_stem("togethercomputer/LLaMA-2-7B-32K")
    ('mistral-7b', 'llama2-7b')
    """
    words = re.split(r"[-_ ]", name.rpartition("/")[2].lower())
    return VERSION.sub("", "-".join(word for word in words if word and not _says_nothing(word)))


def _says_nothing(word: str) -> bool:
    return word in PUBLISHED | TUNED | STORED or NO_DIMENSION.fullmatch(word) is not None


@cache
def _rows_by_stem() -> dict[str, dict[str, str]]:
    return {model_stem(name): cells for name, cells in reversed(served_model_rows().items())}


def served_model_row(name: str) -> dict[str, str] | None:
    """The row of a repository: its own, or that of other weights of the same model; None for one that is not known.

    >>> served_model_row("nvidia/Llama-3.1-405B-Instruct-NVFP4")["preset"], served_model_row("nobody/nothing")
    ('llama-3.1-405b', None)
    """
    return served_model_rows().get(name) or _rows_by_stem().get(model_stem(name))


def is_repository(name: str) -> bool:
    """Whether a name is that of a repository whose model is known, and not of a file or folder that is there."""
    if served_model_row(name) is None:
        return False
    try:
        return not Path(name).exists()
    except (OSError, ValueError):
        return True


@cache
def named_served_model(name: str) -> TransformerModel:
    """The model of a repository, as engines hold it. Errors: NotSupportedError for one whose dimensions are not known here."""
    cells = served_model_row(name)
    if cells is None:
        near = get_close_matches(name, served_model_rows(), n=1)
        hint = f"did you mean {near[0]}?" if near else "a preset (perfmodel list models) or a config.json would do"
        raise NotSupportedError(f"dimensions of {shown(name)} are not known; {hint}", key="model")
    if cells["preset"]:
        return served(model_preset(cells["preset"]))
    return served(build(TransformerModel, _mapping(cells)))


def repository_model(name: str) -> str | dict[str, Any] | None:
    """The preset that a repository of Hugging Face is here, or the settings of its model; None for one that is not known.

    >>> repository_model("meta-llama/Llama-3.1-70B-Instruct"), repository_model("nobody/nothing")
    ('llama-3.1-70b', None)
    """
    cells = served_model_row(name)
    return cells and (cells["preset"] or _mapping(cells))


def _mapping(cells: dict[str, str]) -> dict[str, Any]:
    """The settings of a model from the dimensions of its row: a gated MLP and RMS norms unless the row says otherwise."""
    gated = cells.get("activation", "") in ("", "swiglu")
    model: dict[str, Any] = {
        "name": cells["model"],
        "layers": int(cells["layers"]),
        "hidden_size": int(cells["hidden"]),
        "attention_heads": int(cells["heads"]),
        "kv_heads": int(cells["kv_heads"] or cells["heads"]),
        "head_size": int(cells["head_dim"]),
        "ffn_hidden_size": int(cells["ffn"] or cells["moe_ffn"]),
        "vocab_size": int(cells["vocab"]),
        "activation": "swiglu" if gated else cells["activation"],
        "norm": "rmsnorm" if gated else "layernorm",
        "tied_embeddings": cells["tied"].lower() == "true",
    }
    if cells["parallel"]:
        model["parallel_residual"] = cells["parallel"]
    if cells["qk_norm"]:
        model["qk_norm"] = cells["qk_norm"]
    if cells["experts"]:
        experts = {"experts": int(cells["experts"]), "experts_per_token": int(cells["top_k"] or 8)}
        model["mixture"] = experts | {"ffn_hidden_size": int(cells["moe_ffn"] or cells["ffn"])}
    if cells["window"]:
        model["layer_kinds"] = {
            "local": {"attention": "sliding", "window": int(cells["window"])},
            "full": {"attention": "full"},
        }
        model["layer_pattern"] = ["local"] * (int(cells["every"]) - 1) + ["full"]
    return model
