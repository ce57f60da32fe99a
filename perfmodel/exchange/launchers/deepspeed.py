"""A script for DeepSpeed: its JSON, the model's config.json, and the training program of transformers under torchrun."""

from __future__ import annotations

import json
from typing import Any, Final

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.importers.configs.deepspeed import DEEPSPEED
from perfmodel.exchange.importers.configs.deepspeed_script import CONFIG, TABLE
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.translation.launch_texts import ON_NODES, file_in_script, heading, steps_of, torchrun, world_of
from perfmodel.exchange.translation.words.table_words import as_sections, spelled
from perfmodel.exchange.translation.written_configs import written_config
from perfmodel.spec.axes import CHOSEN, DATA
from perfmodel.spec.fields import whole
from perfmodel.spec.layout import GATHERED, Layout
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "DeepSpeed, and run_clm.py of huggingface/transformers (examples/pytorch/language-modeling)"
SOFTWARE: Final = "DeepSpeed's JSON and flags of the Hugging Face Trainer"
STACK: Final = "deepspeed-zero"
FILE: Final = "ds_config.json"
FAMILIES: Final = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "nemotron", "olmo2", "starcoder2")  # dense ones
LENGTH: Final = "max_position_embeddings"
YOURS: Final = (
    "--do_train --tokenizer_name gpt2 --dataset_name Salesforce/wikitext --dataset_config_name wikitext-103-raw-v1 "
    "--output_dir output --learning_rate 1e-4"
)


def _script(run: Run, stages: tuple[RampStage, ...]) -> str:
    """The text of a script. Errors: NotSupportedError."""
    layout, steps = run.layout(stages[-1]), steps_of(run, stages, SOFTWARE)
    for axis in CHOSEN:
        if axis is not DATA and whole(layout.degree(axis)) > 1:
            problem = f"{whole(layout.degree(axis))} cannot be said in {SOFTWARE}, which have data parallelism alone"
            raise NotSupportedError(problem, key=axis.name)
    config = {LENGTH: whole(layout.sequence_length), **written_config(run.model, FAMILIES, SOFTWARE)}
    sections = as_sections(spelled(_values(run, layout), table=DEEPSPEED.table, software=SOFTWARE)) | {"gradient_clipping": 1.0}
    flags = spelled(_flags(layout, steps), table=TABLE, software=SOFTWARE)
    words = " ".join(f"{flag}{'' if value is True else f' {value}'}" for flag, value in flags.items() if value is not False)
    about = heading(run, stages, words="Keys and flags", version=VERSION, start=ON_NODES, stack=STACK)
    files = "".join(
        file_in_script(name, json.dumps(held, indent=2) + "\n") for name, held in ((FILE, sections), (CONFIG, config))
    )
    return (
        f"#!/bin/bash\n{about}{files}# Yours: data, tokenizer and learning rate.\n"
        f'YOURS=({YOURS})\n{torchrun(world_of(run, stages[-1]))} \\\n    run_clm.py {words} \\\n    "${{YOURS[@]}}" "$@"\n'
    )


def _values(run: Run, layout: Layout) -> dict[str, Any]:
    """Keys of the run and facts, as the table of the JSON calls them."""
    overlap = run.stack.overlap
    is_whole = layout.sharding not in GATHERED
    values: dict[str, Any] = {
        "batch": whole(layout.global_batch_size),
        "each": whole(layout.micro_batch_size),
        "passes": whole(layout.micro_batches),
        "sharding": layout.sharding,
        "stack.overlap.data_parallel": overlap.data_parallel,
        **({"bucket": whole(overlap.bucket_parameters)} if is_whole else {}),
    }
    if layout.precision not in ("bf16", "fp16", "fp32"):
        raise NotSupportedError(f"{layout.precision} cannot be said in {SOFTWARE}; bf16, fp16 and fp32 can", key="precision")
    return values | ({} if layout.precision == "fp32" else {layout.precision: True})


def _flags(layout: Layout, steps: int) -> dict[str, Any]:
    """Keys of the run and facts, as the table of the training program calls them."""
    values: dict[str, Any] = {
        "deepspeed_file": FILE,
        "config": CONFIG,
        "sequence_length": whole(layout.sequence_length),
        "each": whole(layout.micro_batch_size),
        "passes": whole(layout.micro_batches),
        "recompute": layout.recompute,
        "steps": steps,
    }
    return values | ({} if layout.precision == "fp32" else {layout.precision: True})


LAUNCHER: Final = Launcher(
    name="deepspeed",
    version=VERSION,
    software=SOFTWARE,
    families=("deepspeed",),
    stack=STACK,
    settings={"recompute": "none,full"},
    written=_script,
)
