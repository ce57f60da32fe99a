"""Columns of mixtures of experts become sections of a model, settings of a layout and of its software."""

from __future__ import annotations

import csv
from functools import cache
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.mixture_columns import mixture_settings, mixture_stack
from perfmodel.exchange.tables.published_runs import described_run
from perfmodel.spec.run import Run


@cache
def presets() -> dict[str, Any]:
    """What stands for the words of a table."""
    return dict(read_mapping(DATA / "csv_columns.yaml"))


@cache
def rows() -> tuple[dict[str, str], ...]:
    """The shipped table."""
    with (DATA / "mixture_runs.csv").open(newline="") as file:
        return tuple(csv.DictReader(file))


def row(model: str, **cells: str) -> dict[str, str]:
    """The first row of a model that has all these cells."""
    wanted = {"model": model, **cells}
    return dict(next(each for each in rows() if all(each[key] == value for key, value in wanted.items())))


def run_of(cells: dict[str, str]) -> Run:
    """The run that a row describes."""
    described = described_run(cells, presets())
    assert described.run is not None, described.reason
    return described.run


def test_latent_attention_and_dense_first_layers_are_read() -> None:
    """DeepSeek-V3: three dense layers, then 58 with experts, ranks of its narrow vectors, node-limited routing."""
    model = run_of(row("DeepSeek-V3")).model
    assert model.latent is not None
    assert model.mixture is not None
    assert (model.latent.query_rank, model.latent.kv_rank, model.head_size) == (1536, 512, 192)
    assert (len(model.first_layers), model.layers_of("sparse", 0, 61)) == (3, 58)
    assert (model.mixture.groups, model.mixture.groups_per_token) == (8, 4)


def test_windows_on_every_other_layer_and_biases_are_read() -> None:
    """GPT-OSS: 128 tokens in half of its layers, biases and sinks."""
    model = run_of(row("GPT-OSS-120B")).model
    assert [kind.window for kind in model.kinds.values()] == [None, 128]
    assert model.biases
    assert model.sinks


def test_every_other_layer_may_have_experts() -> None:
    """Llama 4 Maverick: 24 of 48."""
    model = run_of(row("Llama4-Maverick-400B")).model
    assert model.layers_of("sparse", 0, 48) == 24


def test_pieces_that_notes_place_are_read() -> None:
    """Four layers beside the embedding, one beside the loss."""
    run = run_of(row("DeepSeek-V3", gpu="gb300", cuda_graphs="full_iteration"))
    assert run.pipeline_layout == "Et*4|(t*4|)*14tmL"
    assert run.stack.host.cuda_graphs


@pytest.mark.parametrize(
    ("cells", "section", "setting", "value"),
    [
        ({"dispatcher": "own kernels (DeepEP), 20 SMs"}, "experts", "dispatcher", "deepep"),
        ({"dispatcher": "hybridep"}, "experts", "dispatcher", "hybridep"),
        ({"ep_overlap": "yes + delayed wgrad"}, "experts", "overlap", "passes"),
        ({"ep_overlap": "no"}, "experts", "overlap", "none"),
        ({"cuda_graphs": "transformer_engine:attn,moe_router"}, "host", "graphed", ["attention", "router"]),
        ({"cuda_graphs": "local:moe_router,moe_preprocess"}, "host", "graphed", ["preprocess", "router"]),
        ({"cuda_graphs": "full_iteration"}, "host", "cuda_graphs", True),
        ({"cuda_graphs": "none:attn"}, "host", "cuda_graphs", False),
        ({"optimizer_state": "moments bf16"}, "states", "optimizer_bytes", 8),
    ],
)
def test_what_ran_is_read(cells: dict[str, str], section: str, setting: str, value: object) -> None:
    """The dispatcher, its overlap, what CUDA graphs replay, moments in 16 bits."""
    blank = dict.fromkeys(("dispatcher", "ep_overlap", "cuda_graphs", "optimizer_state", "model", "software", "source"), "")
    assert mixture_stack(blank | cells, presets())[section][setting] == value


def test_modules_that_run_again_may_have_other_names() -> None:
    """A source may call a norm by its kind; what is no module is refused."""
    cells = row("DeepSeek-V3", stack="hai-llm")
    assert mixture_settings(cells, presets())["recompute_modules"] == ("layernorm", "mla_up_proj", "moe_act")
    with pytest.raises(InputError, match="recompute_modules"):
        mixture_settings(cells | {"recompute_modules": "everything"}, presets())


def test_natural_routing_is_uneven() -> None:
    """Balanced where benchmarks force it, or where nothing is said."""
    loads = {
        word: mixture_settings(row("Qwen3-235B-A22B") | {"router_load": word}, presets())["expert_load"]
        for word in ("natural (dropless)", "force-balanced", "")
    }
    assert loads["natural (dropless)"] > loads["force-balanced"] == loads[""] == 1.0


@pytest.mark.parametrize(("step", "are_held"), [(9, False), (10, True)])
def test_graphs_of_routers_hold_shared_experts_unless_a_source_says_that_they_do_not(step: int, are_held: bool) -> None:
    """NVIDIA's guide for GB200 captured them in its tenth step; GPT-OSS has none."""
    cells = next(each for each in rows() if each["notes"].startswith(f"step {step}/13"))
    held = {"attention", "preprocess", "router"}
    assert set(run_of(cells).stack.host.graphed) == held | ({"shared_experts"} if are_held else set())
    assert set(run_of(row("GPT-OSS-120B", cuda_graphs=cells["cuda_graphs"])).stack.host.graphed) == held


@pytest.mark.parametrize(("column", "word"), [("dispatcher", "foo"), ("ep_overlap", "maybe"), ("cuda_graphs", "sometimes")])
def test_a_word_that_means_nothing_is_named(column: str, word: str) -> None:
    """It is a slip, not what ran by default."""
    with pytest.raises(InputError) as caught:
        mixture_stack(row("DeepSeek-V3") | {column: word}, presets())
    assert caught.value.key == column
