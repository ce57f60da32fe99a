"""Which model is it that a table or a person names by a repository, and has it the size that its name says?"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from perfmodel.count.parameters import active_parameter_count, parameter_count
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.tables.serving_models import (
    is_repository,
    model_stem,
    named_served_model,
    repository_model,
    served_model_row,
    served_model_rows,
)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("nvidia/Qwen3.5-397B-A17B-NVFP4", "qwen3.5-397b-a17b"),
        ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-FP8", "nemotron-3-super"),
        ("zai-org/GLM-5.2-FP8", "glm-5"),
        ("nvidia/Kimi-K2.7-Code-NVFP4", "kimi-k2"),
        ("neuralmagic/Meta-Llama-3.1-405B-Instruct-quantized.w4a16", "llama-3.1-405b"),
        ("deepseek-ai/DeepSeek-V3-0324", "deepseek-v3"),
        ("META-LLAMA/llama-3.1-8b", "llama-3.1-8b"),
        ("Llama-3.3-70B-Instruct", "llama-3.1-70b"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "llama-3.1-8b"),
        ("Llama3.1-8B", "llama-3.1-8b"),
        ("unsloth/mistral-7b-bnb-4bit", "mistral-7b-v0.1"),
        ("Mixtral-8x7B", "mixtral-8x7b"),
        ("deepseek-ai/DeepSeek-V3.1-Terminus", "deepseek-v3"),
    ],
)
def test_other_weights_of_a_model_are_that_model(name: str, preset: str) -> None:
    """Its owner, how it was tuned and how it is stored change no dimension."""
    assert repository_model(name) == preset


@pytest.mark.parametrize(
    "name",
    [
        "meta-llama/Llama-3.1-9B",
        "no/DeepSeek-R1-Distill-Llama-9B",
        "Qwen/Qwen3-15B-FP8",
        "nobody/Instruct",
        "8b",
        "",
        "pythia-70m",
    ],
)
def test_a_model_that_only_resembles_one_is_not_known(name: str) -> None:
    """A slip, another size, or words that say nothing."""
    assert served_model_row(name) is None
    with pytest.raises(NotSupportedError, match=r"dimensions of .* are not known"):
        named_served_model(name)


def test_names_of_a_family_and_its_number_are_one_however_they_are_parted() -> None:
    """People write Llama2-7B and Llama-2-7B; sizes are parted from both."""
    assert model_stem("Llama2-7B") == model_stem("meta-llama/Llama-2-7b-hf") == "llama2-7b"
    assert model_stem("microsoft/phi-2") == "phi2" != model_stem("microsoft/phi-2b")


def test_a_folder_of_that_name_is_not_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has one there means what lies in it."""
    monkeypatch.chdir(tmp_path)
    assert is_repository("llama-3.1-8b-instruct")
    assert is_repository("Llama-3.1-8B-" + "Instruct-" * 1000)
    (tmp_path / "llama-3.1-8b-instruct").mkdir()
    assert not is_repository("llama-3.1-8b-instruct")


def test_rows_that_differ_in_no_dimension_describe_one_model() -> None:
    """Else which of them a third repository is would hang on their order."""
    found = defaultdict(set)
    for name in served_model_rows():
        found[model_stem(name)].add(replace(named_served_model(name), name="one"))
    assert [stem for stem, models in found.items() if len(models) > 1] == []


@pytest.mark.parametrize(
    ("name", "total_billions", "active_billions"),
    [
        ("Qwen/Qwen3.5-27B", 27, 27),
        ("Qwen/Qwen3.5-35B-A3B", 35, 3.5),
        ("Qwen/Qwen3.5-122B-A10B", 122, 10),
        ("nvidia/Nemotron-H-56B-Base-8K", 56, 56),
        ("nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16", 550, 55),
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct", 480, 35),
        ("meta-llama/Llama-3.2-3B", 3.2, 3.2),
        ("google/gemma-3-4b-it", 3.9, 3.9),
        ("mistralai/Mistral-Large-Instruct-2407", 123, 123),
        ("HuggingFaceTB/SmolLM2-1.7B", 1.7, 1.7),
        ("01-ai/Yi-1.5-9B", 8.8, 8.8),
        ("deepseek-ai/deepseek-llm-67b-base", 67, 67),
        ("microsoft/Phi-3-medium-4k-instruct", 14, 14),
        ("microsoft/Phi-3.5-MoE-instruct", 41.9, 6.6),
        ("google/gemma-4-26B-A4B-it", 25.2, 3.8),
        ("nvidia/Gemma-4-31B-IT-NVFP4", 30.7, 30.7),
        ("XiaomiMiMo/MiMo-V2-Flash", 309, 15),
        ("zai-org/GLM-4.5-Air", 106, 13.4),
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", 12.31, 12.31),
        ("bigscience/bloom-7b1", 7.07, 7.07),
        ("facebook/opt-66b", 66, 66),
        ("EleutherAI/pythia-12b", 11.85, 11.85),
        ("mosaicml/mpt-30b", 30, 30),
        ("bigcode/starcoder", 15.5, 15.5),
        ("bigcode/starcoder2-15b", 16, 16),
        ("openlm-research/open_llama_3b", 3.43, 3.43),
        ("Qwen/Qwen1.5-110B-Chat", 111, 111),
        ("Qwen/QwQ-32B", 32.8, 32.8),
        ("CohereForAI/c4ai-command-r-plus", 104, 104),
        ("allenai/OLMo-2-1124-13B", 13.7, 13.7),
        ("LGAI-EXAONE/EXAONE-4.0-32B-FP8", 32, 32),
        ("ibm-granite/granite-3.0-8b-instruct", 8.17, 8.17),
        ("stabilityai/stablelm-3b-4e1t", 2.8, 2.8),
        ("microsoft/Phi-3-mini-128k-instruct", 3.8, 3.8),
        ("google/gemma2-9b", 9.2, 9.2),
        ("openai-community/gpt2-xl", 1.56, 1.56),
        ("deepseek-ai/deepseek-coder-33b-instruct", 33.3, 33.3),
        ("mistralai/Codestral-22B-v0.1", 22.2, 22.2),
        ("nvidia/Minitron-8B-Base", 8.3, 8.3),
        ("allenai/OLMo-3-7B-Base", 7.3, 7.3),
        ("bigscience/bloom", 176.2, 176.2),
        ("facebook/opt-175b", 174.6, 174.6),
    ],
)
def test_a_model_has_as_many_parameters_as_its_name_says(name: str, total_billions: float, active_billions: float) -> None:
    """Within 3 % of what is published; of active ones the embedding may count or not."""
    model = named_served_model(name)
    assert float(parameter_count(model).total) / 1e9 == pytest.approx(total_billions, rel=0.03)
    assert float(active_parameter_count(model)) / 1e9 == pytest.approx(active_billions, rel=0.05)
