"""Where a run that was stopped goes on: the state of all ranks in a folder, whole or not there at all.

A checkpoint is a folder named by its iteration. PyTorch writes what it holds (torch.distributed.checkpoint): the master weights
and moments of every tensor-parallel rank of a pipeline stage, and of every expert-parallel rank, each a flat tensor that its
data-parallel ranks share or hold alike. Parameters are rounded from the master weights again. All ranks write into a folder of
another name, which is renamed when the last one is done. What lies in it is read with care (checkpoint_files.py).
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torch.distributed as dist
from torch.distributed import checkpoint as storage
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from perfmodel.errors import InputError, MachineError, PerfmodelError, write_failure
from perfmodel.model.groups import Groups
from perfmodel.model.training.checkpoint_files import DESCRIPTION, TensorReader, check_whole, description_of
from perfmodel.model.training.trainer import Trainer

FINISHED: Final = re.compile(r"\d{8}(-older)?")
OLDER: Final = "-older"  # of an iteration that is being saved once more: the new one is there before the old one goes
UNFINISHED: Final = ".unfinished-"


def latest(folder: Path) -> Path | None:
    """The checkpoint of the last iteration that was saved, if there is one."""
    return next(iter(_saved(folder)), None)


def latest_whole(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The last checkpoint of which nothing is missing, if there is one, and what is missing of those after it.

    Errors: InputError where there are checkpoints, and none is whole.
    """
    cut = []
    for checkpoint in _saved(folder):
        try:
            check_whole(checkpoint)
        except InputError as error:
            cut.append(str(error))
        else:
            return checkpoint, tuple(cut)
    if cut:
        raise InputError(f"{cut[0]}; no other checkpoint is whole: another folder would begin anew")
    return None, ()


def _saved(folder: Path) -> list[Path]:
    """All checkpoints that were finished, the last first; of one iteration the newer."""
    found = [entry for entry in folder.glob("*") if FINISHED.fullmatch(entry.name)] if folder.is_dir() else []
    return sorted(found, key=lambda entry: (entry.name[:8], not entry.name.endswith(OLDER)), reverse=True)


def save(trainer: Trainer, folder: Path) -> Path:
    """Write the state of all ranks, each its own, below `folder`; all of them call this. Errors: InputError."""
    groups, name = trainer.groups, f"{trainer.iteration:08d}"
    unfinished, finished = folder / f"{UNFINISHED}{name}", folder / name
    _first_alone(groups, lambda: _begin(folder, unfinished, trainer))
    try:
        storage.save(_state(trainer), checkpoint_id=unfinished, no_dist=groups.world.ranks == 1)
    except storage.CheckpointException as error:
        raise MachineError(f"{folder} cannot hold a checkpoint: {_reason(error)}") from None
    _first_alone(groups, lambda: _finish(unfinished, finished))
    return finished


def load(trainer: Trainer, checkpoint: Path) -> None:
    """Go on from `checkpoint`; all ranks call this. Errors: InputError for one of another model, layout or seed."""
    found = description_of(checkpoint)
    _check_same(found["settings"], _settings(trainer), checkpoint)
    check_whole(checkpoint)
    try:
        storage.load(_state(trainer), storage_reader=TensorReader(checkpoint), no_dist=trainer.groups.world.ranks == 1)
    except storage.CheckpointException as error:
        raise InputError(f"{checkpoint} cannot be read: {_reason(error)}") from None
    trainer.optimizer.hand_out()
    trainer.iteration = found["iteration"]


def _reason(error: Any) -> str:
    """What the first rank that failed said."""
    failures = [str(wrapped[0]) for wrapped in error.failures.values()]
    return failures[0].partition("\n")[0] if failures else "PyTorch does not say why"


def _state(trainer: Trainer) -> dict[str, Any]:
    """Its tensors under names that no rank with other parameters uses; reading fills the same tensors."""
    optimizer, groups = trainer.optimizer, trainer.groups
    found: dict[str, Any] = {}
    for sharing, buffer in optimizer.buffers.items():
        owners = sharing.owners(groups) if buffer.owners.ranks > 1 else None
        stage = f"pipeline_parallel_{groups.pipeline_parallel.rank}"
        prefix = f"{stage}.{sharing.cut_by}_{sharing.shards(groups).rank}"
        found |= {f"{prefix}.{key}": _entry(tensor, owners) for key, tensor in optimizer.state(sharing).items()}
    return found


def _entry(tensor: torch.Tensor, owners: DeviceMesh | None) -> torch.Tensor:
    """A share of a flat tensor as part of the whole that its owners hold together."""
    if owners is None or tensor.dim() == 0:
        return tensor
    whole: torch.Tensor = DTensor.from_local(tensor, owners, [Shard(0)], run_check=False)
    return whole


def _begin(folder: Path, unfinished: Path, trainer: Trainer) -> None:
    """An empty folder, without what runs that were killed have left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left)
        for left in folder.glob(f"*{OLDER}"):
            if left.with_name(left.name.removesuffix(OLDER)).exists():
                shutil.rmtree(left)
        unfinished.mkdir()
        description = {"iteration": trainer.iteration, "settings": _settings(trainer)}
        with (unfinished / DESCRIPTION).open("w", encoding="utf-8") as file:
            file.write(json.dumps(description, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_failure(f"{folder} cannot hold checkpoints", error, otherwise=str(error)) from None


def _finish(unfinished: Path, finished: Path) -> None:
    """Give a checkpoint its name, with all that it holds on the disk: at every moment the one before, or it, is there whole."""
    older = finished.with_name(f"{finished.name}{OLDER}")
    _sync(unfinished)
    if finished.exists():  # the same iteration, saved once more
        shutil.rmtree(older, ignore_errors=True)
        finished.rename(older)
    unfinished.rename(finished)
    _sync(finished.parent)
    shutil.rmtree(older, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _first_alone(groups: Groups, action: Any) -> None:
    """One rank acts, and all wait for it; where it fails, all do."""
    error: list[PerfmodelError | None] = [None]
    if groups.world.rank == 0:
        try:
            action()
        except PerfmodelError as problem:
            error = [problem]
    if groups.world.ranks > 1:
        dist.broadcast_object_list(error, src=0)
    if error[0] is not None:
        raise error[0]


def _settings(trainer: Trainer) -> dict[str, Any]:
    """What must be the same for losses to go on as they would have."""
    specs: dict[str, Any] = {"model": trainer.model.spec, "layout": trainer.layout, "routing": trainer.routing}
    found = {
        f"{part}.{entry.name}": _plain(getattr(spec, entry.name))
        for part, spec in specs.items()
        for entry in fields(spec)
        if entry.name != "name"
    }
    return found | {"seed": trainer.seed}


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if is_dataclass(value):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value)}
    return value.item() if hasattr(value, "item") else value


def _check_same(theirs: dict[str, Any], ours: dict[str, Any], checkpoint: Path) -> None:
    for key, value in ours.items():
        if theirs.get(key) != value:
            raise InputError(
                f"{checkpoint} is a checkpoint of {theirs.get(key)}, and this run has {value}; another folder would do", key=key
            )
