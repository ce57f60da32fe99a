"""What a training program adds to a configuration: the config.json beside it, and what only the program knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from perfmodel.exchange.importers.huggingface import IMPORTER as HUGGING_FACE
from perfmodel.exchange.importers.registry import Document, document_at
from perfmodel.exchange.translation.run_drafts import RunDraft

CONFIG: Final = "config.json"
USUAL_LENGTH: Final = 4096


def add_what_the_program_knows(draft: RunDraft, path: Path | None, *, each: int | None = None) -> None:
    """The model in the config.json beside the file, the length of sequences, and the sequences that a GPU runs at once.

    What a draft has already stays as it is.
    """
    settings = draft.settings
    model = settings.get("model") or _model_beside(path)
    if model is not None and "model" not in settings:
        settings["model"] = model
        draft.assume("model", f"the model is that of {CONFIG} beside it")
    if "sequence_length" not in settings:
        longest = (model or {}).get("max_positions") or USUAL_LENGTH
        settings["sequence_length"] = min(USUAL_LENGTH, longest)
        draft.assume(
            "sequence_length",
            f"the training program knows the length of sequences: {settings['sequence_length']:,} tokens are assumed; "
            "--sequence-length gives another",
        )
    if each is None:
        draft.assume(
            "micro_batch_size", "the training program knows the micro-batch: 1 is assumed; --micro-batch-size gives another"
        )
    settings["micro_batch_size"] = each or 1
    if "recompute" not in settings:
        settings["recompute"] = "none"
        draft.assume("recompute", "the training program switches gradient checkpointing on: none is assumed")


def _model_beside(path: Path | None) -> dict[str, Any] | None:
    file = None if path is None else path.parent / CONFIG
    if file is None or not file.is_file() or file == path:
        return None
    document: Document = document_at(file)
    return HUGGING_FACE.read(document) if HUGGING_FACE.recognises(document) else None
