"""Do outputs of nccl-tests become tests of the right ranks, and a cluster file that runs as they measured?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.link_profiles import cluster_file_text, link_calibration, name_in_words
from perfmodel.exchange.measured.nccl_calls import NOTHING_BESIDE, RanksBeside, link_tests
from perfmodel.exchange.measured.nccl_tests import rows_in
from perfmodel.exchange.presets import cluster_preset, expand_part
from perfmodel.explanation.measured.link_tests import LinkTest
from perfmodel.spec.evidence.spread import moved
from perfmodel.spec.machines.hardware import Cluster
from tests.exchange.nccl_outputs import DGX_H100, as_json, as_text


def written(folder: Path, text: str, name: str = "log.txt") -> Path:
    """A file with that text."""
    path = folder / name
    path.write_text(text)
    return path


def only(path: Path, cluster: Cluster = DGX_H100, beside: RanksBeside = NOTHING_BESIDE) -> LinkTest:
    """The only test of an output."""
    (test,) = link_tests(path, cluster, beside)
    return test


@pytest.mark.parametrize("program", ["all_reduce", "all_gather", "reduce_scatter", "alltoall", "sendrecv"])
def test_text_and_json_say_the_same(tmp_path: Path, program: str) -> None:
    """All sizes, between the ranks of all processes."""
    text, document = only(written(tmp_path, as_text(program, 4))), only(written(tmp_path, as_json(program, 4), "out.json"))
    assert name_in_words(text) == name_in_words(document)
    assert (text.nodes, int(text.call.group.ranks), text.call.kind) == (4, 32, document.call.kind)
    assert document.seconds == pytest.approx(text.seconds, rel=1e-3)
    assert document.seconds == pytest.approx(document.times_s(DGX_H100), rel=1e-6)


def test_ranks_that_are_not_listed_follow_from_the_largest_size(tmp_path: Path) -> None:
    """Small ones round; or from what is given beside."""
    assert name_in_words(only(written(tmp_path, as_text("all_reduce", 2, ranks=False)))) == "all-reduce over 2 nodes (16 GPUs)"
    alone = written(tmp_path, as_text("sendrecv", 2, each=1, ranks=False))
    with pytest.raises(InputError, match="no '# Rank' line says how many ranks there were; --gpus 16 would"):
        only(alone)
    assert only(alone, beside=RanksBeside(gpus=2, nodes=2)).nodes == 2
    with pytest.raises(InputError, match="2 GPUs in 3 nodes cannot be"):
        only(alone, beside=RanksBeside(gpus=2, nodes=3))


def test_trays_that_nvlink_joins_are_one_node(tmp_path: Path) -> None:
    """Eight machines of four GPUs in a rack of 72."""
    text = as_text("all_gather", 8, cluster_preset("gb200-nvl72"), each=4).replace("H100 80GB HBM3", "GB200")
    assert only(written(tmp_path, text), cluster_preset("gb200-nvl72")).nodes == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"config": 3}', "out.json is not the JSON of nccl-tests -J"),
        ("{", "out.json is not the JSON of nccl-tests -J"),
        ("nothing", "out.json: no row of nccl-tests is in it"),
        (as_json("all_gather", 2).replace('"results": [', '"results": [], "x": ['), "out.json: no row of nccl-tests is in it"),
    ],
)
def test_what_is_no_output_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    """With its name."""
    with pytest.raises(InputError, match=sentence):
        link_tests(written(tmp_path, text, "out.json"), DGX_H100)


def test_the_cluster_that_is_written_runs_as_measured(tmp_path: Path) -> None:
    """It is read again, and times the tests as they were; each number has its spread and its source."""
    slow = moved(DGX_H100, {"network_scale": 0.6, "links.network.collectives.latency_s": 2.0})
    path = written(tmp_path, as_text("all_gather", 16, slow))
    found = link_calibration([path], "dgx-h100", NOTHING_BESIDE)
    text = cluster_file_text(found, files=["log.txt"], folder=tmp_path, day="2026-01-01", version="1")
    assert "nccl-tests (all-gather over 16 nodes (128 GPUs), 4 KiB to 8 GiB) in log.txt, fitted by perfmodel 1" in " ".join(
        text.split()
    )
    again = build(Cluster, expand_part(Cluster, "clusters", str(written(tmp_path, text, "ours.yaml"))))
    assert again.name == "DGX H100, links as measured"
    assert float(again.network_scale) == pytest.approx(0.6, rel=0.02)
    assert 0.04 <= again.spread["network_scale"] < 0.1
    test = found.verdicts[0].test
    assert np.abs(np.log(test.times_s(again) / test.seconds)).max() < 0.1


def test_a_cluster_file_is_extended_where_it_lies(tmp_path: Path) -> None:
    """Seen from the folder of the new one; its name says once that its links are measured."""
    ours = written(tmp_path, "extends: dgx-h100\nname: ours, links as measured\n", "ours.yaml")
    (tmp_path / "below").mkdir()
    found = link_calibration([written(tmp_path, as_text("all_gather", 2))], str(ours), NOTHING_BESIDE)
    text = cluster_file_text(found, files=["log.txt"], folder=tmp_path / "below", day="2026-01-01", version="1")
    assert "extends: ../ours.yaml\nname: ours, links as measured\n" in text


def test_other_gpus_than_those_of_the_cluster_are_doubted(tmp_path: Path) -> None:
    """By the name that the driver gives them."""
    path = written(tmp_path, as_text("all_gather", 1))
    found = link_calibration([path], "dgx-a100", NOTHING_BESIDE)
    assert found.warnings == ("the tests ran on NVIDIA H100 80GB HBM3, DGX A100 has A100 SXM 80GB",)
    assert link_calibration([path], "dgx-h100", NOTHING_BESIDE).warnings == ()


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        ('"ngpus": 8', '"ngpus": 1e30'),
        ('"ngpus": 8', '"ngpus": 1e999'),
        ('"nthreads": 1', '"nthreads": -1'),
        ('"iterations": 20', '"iterations": 1e999'),
        ('"version": 3', '"version": ' + "9" * 5000),
    ],
)
def test_numbers_that_no_test_has_are_one_sentence(word: str, instead: str) -> None:
    """A process with a billion GPUs would be listed for ever."""
    text = as_json("all_gather", 2)
    assert word in text
    with pytest.raises(InputError, match=r"is not the JSON of nccl-tests -J"):
        rows_in(text.replace(word, instead), "a.json")


@pytest.mark.parametrize("number", ["9" * 5000, "1e999", "nan"])
def test_a_row_of_no_numbers_is_one_sentence(number: str) -> None:
    """With its line."""
    *lines, last = as_text("all_gather", 2).splitlines()
    words = last.split()
    with pytest.raises(InputError, match="not a row of nccl-tests"):
        rows_in("\n".join([*lines, " ".join([*words[:5], number, *words[6:]])]), "a.txt")
