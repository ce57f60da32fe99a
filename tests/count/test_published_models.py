"""Do the shipped models have the parameters and the FLOPs that their authors, and those who train them, print?"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from perfmodel.count.flops import layer_flop_per_token, model_flop_per_token
from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.errors import InputError
from perfmodel.exchange.presets import model_preset
from perfmodel.spec.models.model import TransformerModel

MODELS = {  # billions in all, and of those that a token passes: summed up apart from the dimensions, matrices alone
    "deepseek-v3": (671.03, 37.55),
    "kimi-k2": (1026.41, 32.86),
    "deepseek-v2": (235.74, 21.38),
    "deepseek-v2-lite": (15.71, 2.66),
    "moonlight-16b-a3b": (15.96, 2.91),
    "qwen3-30b-a3b": (30.53, 3.35),
    "qwen3-235b-a22b": (235.09, 22.19),
    "qwen2-57b-a14b": (57.41, 14.25),
    "gpt-oss-120b": (116.79, 5.71),
    "gpt-oss-20b": (20.91, 4.19),
    "mixtral-8x7b": (46.70, 12.88),
    "mixtral-8x22b": (140.63, 39.16),
    "dbrx": (131.60, 36.47),
    "olmoe-1b-7b": (6.92, 1.28),
    "grok-1": (315.68, 83.76),
    "llama-4-maverick": (400.71, 17.18),
    "glm-4.5": (352.80, 33.63),
    "glm-5": (743.91, 41.78),  # 0.73 of them the indexers'
    "deepseek-v3.2": (671.88, 38.40),
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_an_independent_count(name: str) -> None:
    """Within 0.3 %, which norms, biases and the rounding of the sums need."""
    model, (total, active) = model_preset(name), MODELS[name]
    assert parameter_count(model).total / 1e9 == pytest.approx(total, rel=0.003)
    assert active_parameter_count(model) / 1e9 == pytest.approx(active, rel=0.003)


class Printed(NamedTuple):
    """Digits of billions that authors print; active ones with the embedding, or `without` it; "" where none are, or not so."""

    total: str
    active: str = ""
    without: str = ""


PRINTED = {  # in model cards and technical reports
    "deepseek-v3": Printed("671", without="37"),
    "deepseek-v2": Printed("236", "21"),
    "deepseek-v2-lite": Printed("15.7"),
    "qwen3-30b-a3b": Printed("30.5"),
    "qwen3-235b-a22b": Printed("235", "22"),
    "qwen2-57b-a14b": Printed("57.4", "14"),
    "gpt-oss-120b": Printed("116.83", without="5.13"),
    "gpt-oss-20b": Printed("20.91", without="3.61"),
    "mixtral-8x7b": Printed("46.7", "12.9"),
    "mixtral-8x22b": Printed("141", "39"),
    "dbrx": Printed("132", "36"),
    "olmoe-1b-7b": Printed("6.9", "1.3"),
    "nemotron-3-nano": Printed("31.6", "3.6", without="3.2"),
    "nemotron-nano-9b-v2": Printed("8.89"),
    "nemotron-nano-12b-v2": Printed("12.31"),
    "gemma-4-31b": Printed("30.7"),
    "gemma-4-26b-a4b": Printed("25.2", "3.8"),
    "mimo-v2-flash": Printed("309", "15"),
    "qwen3.5-397b-a17b": Printed("", "17"),
    "qwen3-next-80b-a3b": Printed("80"),
    "qwen3-8b": Printed("8.2", "8.2"),
    "qwen3-32b": Printed("32.8", "32.8", without="32.0"),
    "olmo-2-32b": Printed("32"),
    "phi-4": Printed("14.7"),
    "mistral-nemo": Printed("12.2"),
}


@pytest.mark.parametrize("name", PRINTED)
def test_parameters_are_those_that_authors_print(name: str) -> None:
    """All digits of them."""
    model, printed = model_preset(name), PRINTED[name]
    active = active_parameter_count(model)
    for digits, parameters in (
        (printed.total, parameter_count(model).total),
        (printed.active, active),
        (printed.without, active - model.vocab_size * model.hidden_size),
    ):
        places = len(digits.partition(".")[2])
        assert digits in ("", f"{parameters / 1e9:.{places}f}")


def further(model: TransformerModel) -> TransformerModel:
    """The same with one layer that predicts further tokens."""
    return replace(model, multi_token_layers=1)


def causal(model: TransformerModel, sequence_length: int = 4096) -> float:
    """Billions of FLOPs a token, of attention the causal half."""
    return float(model_flop_per_token(model, sequence_length, convention="causal")) / 1e9


@pytest.mark.parametrize(
    ("name", "printed"),
    [("deepseek-v3", 249.7), ("kimi-k2", 204.4), ("qwen3-30b-a3b", 23.0), ("qwen3-235b-a22b", 148.0), ("gpt-oss-120b", 32.6)],
)
def test_causal_flop_are_those_that_nvidia_prints(name: str, printed: float) -> None:
    """TFLOP/s by tokens/s of Megatron-Bridge's tables, 25.09 to 26.08, within 0.5 %; they count no router."""
    assert causal(model_preset(name)) == pytest.approx(printed, rel=0.005)


def test_a_layer_that_predicts_further_tokens_is_counted_as_nvidia_prints_it() -> None:
    """DeepSeek-V3 with it: 260.0 billion FLOPs a token, in the same tables."""
    assert causal(further(model_preset("deepseek-v3"))) == pytest.approx(260.0, rel=0.005)


def test_causal_flop_of_hybrids_are_those_that_nvidia_prints() -> None:
    """Nano 22.3, Super 84.7, Qwen3-Next 24.5, after what those tables count otherwise.

    Of Mamba-2 they take twice the stream for the width of all heads, which Nano's have not; Super is trained with two layers
    of attention and two of experts that predict further tokens; of Qwen3-Next they count no gate behind attention.
    """
    nano, super_ = model_preset("nemotron-3-nano"), model_preset("nemotron-3-super")
    assert nano.state_space is not None
    wide = replace(nano, state_space=replace(nano.state_space, heads=2 * 2688 / 64))
    assert causal(wide, 8192) == pytest.approx(22.3, rel=0.005)
    of_a_layer = sum(layer_flop_per_token(super_, kind, 8192, convention="causal") for kind in ("full", "experts"))
    deeper = of_a_layer + 6 * super_.vocab_size * super_.hidden_size
    assert causal(super_, 8192) + 2 * float(deeper) / 1e9 == pytest.approx(84.7, rel=0.005)
    qwen = replace(further(model_preset("qwen3-next-80b-a3b")), attention_gate=False)
    assert causal(qwen) == pytest.approx(24.5, rel=0.005)


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("mixtral-8x22b", 250.7),  # arXiv:2504.14960, whose MFU counts all of attention
        ("qwen2-57b-a14b", 87.2),
        ("gpt-oss-120b", 34.53),  # pytorch/torchtitan#4300, windows counted as far as they reach
    ],
)
def test_full_flop_are_those_that_are_printed(name: str, printed: float) -> None:
    """Papers of 2024, and torchtitan, count the pairs that the mask hides; within 0.5 %."""
    assert float(model_flop_per_token(model_preset(name), 4096)) / 1e9 == pytest.approx(printed, rel=0.005)


def test_the_causal_convention_counts_the_pairs_that_the_mask_leaves() -> None:
    """Half of all; in a window w*(1 - w/(2*s)), which is half where the window is as long as the sequence."""
    gemma = model_preset("gemma-2-9b")
    core = {each: float(model_flop_per_token(gemma, 8192, convention=each)) for each in ("full", "causal")}
    pairs = 12.0 * 21 * gemma.query_size  # of 21 layers of each kind, a key
    hidden = 8192 / 2 + 4096 * 4096 / (2 * 8192)
    assert core["full"] - core["causal"] == pytest.approx(pairs * hidden, rel=1e-9)
    shorter = {each: float(model_flop_per_token(gemma, 2048, convention=each)) for each in ("full", "causal")}
    assert shorter["full"] - shorter["causal"] == pytest.approx(2 * pairs * 1024, rel=1e-9)
    with pytest.raises(InputError, match="half is no convention"):
        model_flop_per_token(gemma, 2048, convention="half")
