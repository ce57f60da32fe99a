"""May a file stand where a preset is named: its numbers, its sources, what it extends, and what is wrong with it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, model_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.run import Run

MINE = """
name: Mine
gpu: h100-sxm-80gb
gpus_per_node: 4
nics_per_node: 2
links: {node: nvlink-h100, network: infiniband-400}
compute_scale: 0.5
spread: {compute_scale: 1%, node_link_scale: 2%, network_scale: 3%}
sources: {compute_scale: measured here}
"""


def read(*overrides: str) -> Run:
    """The central preset with overrides."""
    return read_candidates("nemotron-4-15b", overrides)[0].run


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A cluster in a file of its own, with scales and doubts of its own."""
    path = tmp_path / "profile.yaml"
    path.write_text(MINE)
    return path


def test_a_file_stands_for_a_cluster(mine: Path) -> None:
    """What it states goes before the priors, doubts too; what it does not state are the priors."""
    cluster = read(f"cluster={mine}").cluster
    assert (cluster.name, cluster.compute_scale, cluster.gpus_per_node) == ("Mine", 0.5, 4)
    assert dict(cluster.spread) == pytest.approx(
        {"compute_scale": 0.01, "node_link_scale": 0.02, "network_scale": 0.03, "host_scale": 0.2}
    )
    assert cluster.gpu_speed_deviation == cluster_preset("dgx-h100").gpu_speed_deviation


def test_a_run_file_may_name_a_file(mine: Path, tmp_path: Path) -> None:
    """As it may name a preset; a list of both gives a candidate each."""
    text = "model: llama-3.1-8b\nstack: megatron-core\ntensor_parallel: 2\nsequence_length: 8192\n"
    run = tmp_path / "run.yaml"
    run.write_text(f"{text}cluster: [{mine}, dgx-h100]\nstages: [{{data_parallel: 4, global_batch_size: 128}}]\n")
    assert [each.run.cluster.name for each in read_candidates(str(run))] == ["Mine", "DGX H100"]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", "{extends: dgx-h100, name: Other, nics_per_node: 4}"),
        (".yml", "extends: dgx-h100\nname: Other\nnics_per_node: 4\n"),
        (".json", '{"extends": "dgx-h100", "name": "Other", "nics_per_node": 4}'),
        (".toml", 'extends = "dgx-h100"\nname = "Other"\nnics_per_node = 4\n'),
    ],
)
def test_a_file_of_any_format_may_extend_a_preset(suffix: str, text: str, tmp_path: Path) -> None:
    """And give only what differs."""
    path = tmp_path / f"other{suffix}"
    path.write_text(text)
    cluster = read(f"cluster={path}").cluster
    assert (cluster.name, cluster.nics_per_node, cluster.gpus_per_node) == ("Other", 4, 8)


def test_files_may_stand_inside_and_extend_each_other(mine: Path, tmp_path: Path) -> None:
    """A GPU of one's own in a cluster that extends another file."""
    gpu, cluster = tmp_path / "gpu.yaml", tmp_path / "cluster.yaml"
    gpu.write_text("{extends: h100-sxm-80gb, memory_bytes: 94GiB, sources: {memory_bytes: nvidia-smi}}")
    cluster.write_text(f"{{extends: {mine}, gpu: {gpu}}}")
    found = read(f"cluster={cluster}").cluster
    assert found.gpu.memory_bytes == 94 * 2**30
    assert found.compute_scale == 0.5
    assert read(f"cluster.gpu={gpu}").cluster.gpu == found.gpu


def test_models_and_stacks_may_be_files_too(tmp_path: Path) -> None:
    """With this project's words; a file with the words of other software is read by its importer."""
    model, stack = tmp_path / "model.yaml", tmp_path / "stack.yaml"
    model.write_text("{extends: nemotron-4-15b, name: Shallow, layers: 16}")
    stack.write_text("{extends: megatron-core, host: {launch_s: 7us}}")
    run = read(f"model={model}", f"stack={stack}")
    assert (run.model.layers, run.model.hidden_size) == (16, model_preset("nemotron-4-15b").hidden_size)
    assert run.stack.host.launch_s == pytest.approx(7e-6)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, r"^cluster: .*profile.yaml cannot be read: no such file or directory$"),
        ("", r"^cluster: .*profile.yaml is empty; it needs settings"),
        ("[1, 2]", r"^cluster: .*profile.yaml holds a list where it needs settings"),
        ("{extends: PATH}", r"^cluster: '.*profile.yaml' extends itself$"),
        ("{extends: dgx_h100}", r"^cluster: 'dgx_h100' is not a preset of clusters; did you mean dgx-h100\?"),
        ("{extends: dgx-h100, nics: 4}", r"^cluster.nics: unknown key; did you mean nics_per_node\?"),
        ("{extends: dgx-h100, gpu: none.yaml}", r"^cluster.gpu: none.yaml cannot be read: no such file or directory$"),
    ],
)
def test_a_file_that_does_not_do_is_refused_in_one_sentence(text: str | None, sentence: str, tmp_path: Path) -> None:
    """With the path of the key that names it."""
    path = tmp_path / "profile.yaml"
    if text is not None:
        path.write_text(text.replace("PATH", str(path)))
    with pytest.raises(InputError, match=sentence):
        read(f"cluster={path}")


def test_two_files_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    """Neither gives what the other lacks."""
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text(f"extends: {other}")
    other.write_text(f"extends: {one}")
    with pytest.raises(InputError, match=r"cluster: '.*' extends itself"):
        read(f"cluster={one}")
