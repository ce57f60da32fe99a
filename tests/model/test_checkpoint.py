"""A run that was stopped goes on as if it had not been; nothing that is half written is ever taken for a checkpoint."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.checkpoint.metadata import BytesStorageMetadata

from perfmodel.errors import InputError
from perfmodel.model.groups import one_rank
from perfmodel.model.training import checkpoint
from perfmodel.model.training.checkpoint import latest, latest_whole, load, save
from perfmodel.model.training.checkpoint_files import contents_of
from perfmodel.model.training.trainer import Trainer
from tests.model.cases import STOPPED, Case, losses
from tests.model.conftest import Outcomes
from tests.model.small_models import NEMOTRON, ONE_RANK

EVERY_STOP = [pytest.param(ranks, case, id=f"{ranks} ranks: {case.name}") for ranks, cases in STOPPED.items() for case in cases]


@pytest.fixture
def trainer() -> Trainer:
    """After two steps."""
    made = Trainer(NEMOTRON, ONE_RANK, one_rank())
    losses(made, 2)
    return made


@pytest.mark.slow
@pytest.mark.ranks
@pytest.mark.parametrize(("ranks", "case"), EVERY_STOP)
def test_losses_go_on_bit_for_bit(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """Iterations 3 and 4 of a run that was stopped after the second are those of the run that was not."""
    found = outcomes.of(ranks)[0][case.name]
    assert found["began_with_it"] == found["went_on"]
    assert len(set(found["went_on"])) == 2


def test_the_latest_is_that_of_the_last_iteration(trainer: Trainer, tmp_path: Path) -> None:
    """And none where nothing was saved."""
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nowhere") is None
    first = save(trainer, tmp_path)
    assert latest(tmp_path) == first
    losses(trainer, 1)
    assert latest(tmp_path) == first
    assert save(trainer, tmp_path) == latest(tmp_path) != first


def test_a_run_that_is_killed_while_it_saves_leaves_the_last_checkpoint(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had begun has another name, and the next one to save clears it away."""
    first = save(trainer, tmp_path)
    losses(trainer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_finish", _killed)
        with pytest.raises(KeyboardInterrupt):
            save(trainer, tmp_path)
    assert latest(tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 2
    second = save(trainer, tmp_path)
    assert sorted(tmp_path.iterdir()) == [first, second]


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_the_same_iteration_is_saved_once_more_in_the_place_of_the_first(trainer: Trainer, tmp_path: Path) -> None:
    """And nothing else is left."""
    assert save(trainer, tmp_path) == save(trainer, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000002"]


@pytest.mark.parametrize(
    ("model", "layout", "seed", "sentence"),
    [
        ({"layers": 2}, {}, 1, "^model.layers: .* is a checkpoint of 3, and this run has 2; another folder would do$"),
        ({}, {"precision": "bf16"}, 1, "^layout.precision: .* is a checkpoint of fp32, and this run has bf16"),
        ({}, {}, 2, "^seed: .* is a checkpoint of 1, and this run has 2"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    trainer: Trainer, tmp_path: Path, model: dict[str, Any], layout: dict[str, Any], seed: int, sentence: str
) -> None:
    """In one sentence, which names what differs; the run keeps what it had."""
    saved = save(trainer, tmp_path)
    other = Trainer(replace(NEMOTRON, **model), replace(ONE_RANK, **layout), one_rank(), seed=seed)
    before = other.optimizer.dense.parameters.clone()
    with pytest.raises(InputError, match=sentence):
        load(other, saved)
    assert other.optimizer.dense.parameters.equal(before)


def test_what_is_no_checkpoint_is_one_sentence(trainer: Trainer, tmp_path: Path) -> None:
    """A folder without one, and one whose numbers are gone."""
    with pytest.raises(InputError, match=r"is not a checkpoint: its checkpoint\.json cannot be read$"):
        load(trainer, tmp_path)
    saved = save(trainer, tmp_path)
    for part in saved.glob("*.distcp"):
        part.unlink()
    with pytest.raises(InputError, match=f"^{saved} cannot be read: "):
        load(trainer, saved)


def test_a_folder_that_cannot_be_is_one_sentence(trainer: Trainer, tmp_path: Path) -> None:
    """A file stands in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file cannot hold checkpoints: file exists$"):
        save(trainer, tmp_path / "file")


def test_the_last_whole_checkpoint_is_gone_on_with(trainer: Trainer, tmp_path: Path) -> None:
    """What is missing of a cut one is said; where none is whole, nothing begins anew over it."""
    first = save(trainer, tmp_path)
    losses(trainer, 1)
    second = save(trainer, tmp_path)
    assert latest_whole(tmp_path) == (second, ())
    part = next(second.glob("*.distcp"))
    part.write_bytes(part.read_bytes()[:1000])
    last, cut = latest_whole(tmp_path)
    assert (last, len(cut)) == (first, 1)
    assert f"its {part.name} is cut: 1,000 of" in cut[0]
    (first / ".metadata").write_bytes((first / ".metadata").read_bytes()[:-9])
    with pytest.raises(InputError, match="no other checkpoint is whole"):
        latest_whole(tmp_path)


@pytest.mark.parametrize(
    "content", ["{}", "[]", '{"iteration": true, "settings": {}}', '{"iteration": 1, "settings": 7}', "[" * 9999]
)
def test_a_description_that_says_nothing_is_one_sentence(trainer: Trainer, tmp_path: Path, content: str) -> None:
    """As a disk that was full leaves it, or another program writes it."""
    saved = save(trainer, tmp_path)
    (saved / "checkpoint.json").write_text(content)
    with pytest.raises(InputError, match=r"is not a checkpoint: its checkpoint\.json"):
        load(trainer, saved)


class _Planted:
    """What runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_nothing_in_a_checkpoint_runs(trainer: Trainer, tmp_path: Path) -> None:
    """Neither a planted pickle, nor an entry that PyTorch would unpickle as something else than a tensor."""
    saved, marker = save(trainer, tmp_path / "all"), tmp_path / "ran"
    whole = contents_of(saved)
    name = next(iter(whole.state_dict_metadata))
    disguised = replace(whole, state_dict_metadata=whole.state_dict_metadata | {name: BytesStorageMetadata()})
    for planted in (_Planted(marker), disguised):
        (saved / ".metadata").write_bytes(pickle.dumps(planted))
        with pytest.raises(InputError, match=r"asks for .*, which no tensor needs"):
            load(trainer, saved)
    far = b"\x80\x04N" + b"r" + (2**31 - 1).to_bytes(4, "little") + b"."
    (saved / ".metadata").write_bytes(far)
    with pytest.raises(InputError, match=r"its \.metadata is broken"):
        load(trainer, saved)
    assert not marker.exists()


def test_saving_an_iteration_once_more_never_leaves_it_without_a_checkpoint(
    trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two renames, the older one is still found; the next to save clears it away."""
    saved = save(trainer, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", _nothing)
        rename = Path.rename
        patch.setattr(Path, "rename", lambda path, to: _killed() if path.name.startswith(".unfinished") else rename(path, to))
        with pytest.raises(KeyboardInterrupt):
            save(trainer, tmp_path)
    assert not saved.exists()
    assert latest_whole(tmp_path) == (tmp_path / "00000002-older", ())
    save(trainer, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000002"]


def _nothing(*_: object, **__: object) -> None:
    return
