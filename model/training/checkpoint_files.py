"""What lies in the folder of a checkpoint, read so that nothing in it runs, and whether all of it is there.

PyTorch keeps the table of contents (`.metadata`) as a pickle, and reads it as one: whoever may write into the folder could have
any program run by whoever goes on from it. Here only the few types are made that such a table is made of, none of which does
anything; tensors are read by PyTorch as weights alone.
"""

from __future__ import annotations

import json
import pickle
import pickletools
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path, PurePath
from typing import Any, Final

import torch
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from perfmodel.errors import InputError

DESCRIPTION: Final = "checkpoint.json"
CONTENTS: Final = ".metadata"
LARGEST_BYTES: Final = 200_000_000
PATHS: Final = ("PosixPath", "WindowsPath")
MODULES: Final = {metadata.__name__: metadata, filesystem.__name__: filesystem}
TYPES: Final = {  # what a table of contents of tensors is made of; other objects than tensors could run what they like
    *((metadata.__name__, name) for name in ("Metadata", "MetadataIndex", "ChunkStorageMetadata", "StorageMeta")),
    *((metadata.__name__, name) for name in ("TensorStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING")),
    (filesystem.__name__, "_StorageInfo"),
}


class TensorReader(FileSystemReader):
    """Reads a checkpoint of tensors as PyTorch does, with a table of contents that cannot run anything."""

    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        """The table of contents. Errors: InputError for one that is missing, cut or holds anything but tensors."""
        found = contents_of(Path(self.path))
        found.storage_meta = found.storage_meta or metadata.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """A type of a table of contents. Errors: InputError for anything else."""
        found = None
        if (module, name) in TYPES:
            found = getattr(MODULES[module], name)
        elif module == "torch":
            value = getattr(torch, name, None)
            found = value if isinstance(value, torch.dtype) or value is torch.Size else None
        elif module.partition(".")[0] == "pathlib" and name in PATHS:
            found = PurePath  # where it was saved: its name alone, which nobody goes to
        elif (module, name) == ("torch.serialization", "_get_layout"):
            found = torch.serialization._get_layout  # noqa: SLF001 - how torch writes that a tensor is dense
        if found is None:
            raise InputError(f"its {CONTENTS} asks for {module[:60]}.{name[:60]}, which no tensor needs; it may be an attack")
        return found


def contents_of(checkpoint: Path) -> Metadata:
    """The table of contents of a checkpoint. Errors: InputError for one that is missing, cut or holds anything but tensors."""
    try:
        with (checkpoint / CONTENTS).open("rb") as file:
            raw = file.read(LARGEST_BYTES)
    except OSError as error:
        missing = "missing" if isinstance(error, FileNotFoundError) else f"unreadable: {(error.strerror or '').lower()}"
        raise InputError(f"its {CONTENTS} is {missing}") from None
    try:
        _check_places(raw)
        found = _Unpickler(BytesIO(raw)).load()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - a broken pickle can end in any of them
        raise InputError(f"its {CONTENTS} is cut or broken ({type(error).__name__})") from None
    tensors = getattr(found, "state_dict_metadata", None)
    if not isinstance(found, Metadata) or not isinstance(tensors, Mapping) or not isinstance(found.storage_data, Mapping):
        raise InputError(f"its {CONTENTS} is no table of contents")
    if not all(isinstance(each, TensorStorageMetadata) for each in tensors.values()):
        raise InputError(f"its {CONTENTS} lists what is no tensor")
    return found


def _check_places(raw: bytes) -> None:
    """Refuse a pickle that would put something at a far place of a list that is then made that long."""
    for code, place, _ in pickletools.genops(raw):
        if code.name in {"PUT", "BINPUT", "LONG_BINPUT"} and isinstance(place, int) and place > len(raw):
            raise InputError(f"its {CONTENTS} is broken")


def description_of(checkpoint: Path) -> dict[str, Any]:
    """The iteration and the settings that a checkpoint says. Errors: InputError where it does not."""
    try:
        with (checkpoint / DESCRIPTION).open("rb") as file:
            found = json.loads(file.read(LARGEST_BYTES))
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{checkpoint} is not a checkpoint: its {DESCRIPTION} cannot be read") from None
    iteration = found.get("iteration") if isinstance(found, dict) else None
    if not isinstance(iteration, int) or isinstance(iteration, bool) or not isinstance(found.get("settings"), dict):
        raise InputError(f"{checkpoint} is not a checkpoint: its {DESCRIPTION} does not say iteration and settings")
    return {"iteration": iteration, "settings": found["settings"]}


def check_whole(checkpoint: Path) -> None:
    """Raise InputError where something of a checkpoint is missing, with what that is."""
    description_of(checkpoint)
    try:
        found = contents_of(checkpoint)
    except InputError as error:
        raise InputError(f"{checkpoint} cannot be read: {error}") from None
    ends: dict[str, int] = {}
    for piece in found.storage_data.values():
        name, end = str(getattr(piece, "relative_path", "")), getattr(piece, "offset", None)
        if not isinstance(end, int) or not isinstance(piece.length, int) or Path(name).name != name:
            raise InputError(f"{checkpoint} cannot be read: its {CONTENTS} is no table of contents")
        ends[name] = max(ends.get(name, 0), end + piece.length)
    for name, end in sorted(ends.items()):
        size = (checkpoint / name).stat().st_size if (checkpoint / name).is_file() else None
        if size is None or size < end:
            missing = "is missing" if size is None else f"is cut: {size:,} of {end:,} bytes are there"
            raise InputError(f"{checkpoint} cannot be read: its {name} {missing}")
