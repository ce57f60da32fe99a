"""Does a broken file of other software get one sentence, never a traceback?"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.converted_files import conversion_document, converted
from tests.exchange.importers.configs.test_megatron_arguments import ARGUMENTS, CASE
from tests.exchange.importers.configs.test_megatron_bridge import BRIDGE
from tests.exchange.importers.configs.test_nemo import NEMO
from tests.exchange.importers.configs.test_nemo_2 import NEMO_2
from tests.exchange.importers.configs.test_other_configs import ACCELERATE, DEEPSPEED, MAXTEXT, NANOTRON
from tests.exchange.importers.configs.test_torchtitan import COMMAND, TOML
from tests.exchange.importers.logs.test_megatron_log import BLOCK, line
from tests.exchange.importers.scripts import LLAMA

TEXTS = {
    "train.sh": LLAMA, "nemo.yaml": NEMO, "case.yaml": CASE, "arguments.yaml": ARGUMENTS, "titan.toml": TOML,
    "titan.sh": COMMAND, "bridge.yaml": BRIDGE, "nemo_2.yaml": NEMO_2,
    "nanotron.yaml": NANOTRON, "ds.json": json.dumps(DEEPSPEED), "accelerate.yaml": ACCELERATE, "maxtext.yaml": MAXTEXT,
    "train.log": BLOCK + "\n".join(line(number) for number in range(1, 9)),
}  # fmt: skip
BYTES = b"0123456789-.[]{}:\"'$\n axe|\xff\x00"
WRONG: tuple[Any, ...] = (None, [], {}, "x", -1, 0, 1.5, [1, 2], "${a}", "1e999", {"value": 3}, 10**30, float("inf"), "8 8")


def one_sentence(path: Path) -> None:
    """Read the file; what cannot be read is told in one line."""
    said = ""
    try:
        json.dumps(conversion_document(converted(path, cluster="dgx-h100")))
    except PerfmodelError as error:
        said = str(error).strip()
    assert "\n" not in said


@pytest.mark.parametrize("name", TEXTS)
def test_wrong_bytes_are_no_traceback(tmp_path: Path, name: str) -> None:
    """Wherever they hit."""
    chance = random.Random(name)  # noqa: S311 - no secret
    for _ in range(12):
        broken = bytearray(TEXTS[name].encode())
        for _ in range(chance.randrange(1, 8)):
            broken[chance.randrange(len(broken))] = chance.choice(BYTES)
        (tmp_path / name).write_bytes(bytes(broken))
        one_sentence(tmp_path / name)


def keys(mapping: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value of nested mappings."""
    for key, value in mapping.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from keys(value, (*path, key))


@pytest.mark.parametrize(
    "name",
    ["nemo.yaml", "nemo_2.yaml", "bridge.yaml", "case.yaml", "nanotron.yaml", "ds.json", "accelerate.yaml", "maxtext.yaml"],
)
def test_wrong_values_are_no_traceback(tmp_path: Path, name: str) -> None:
    """Texts for numbers, lists for texts, nothing, and numbers that nobody means."""
    chance = random.Random(name)  # noqa: S311 - no secret
    mapping = yaml.safe_load(TEXTS[name])
    for path in keys(mapping):
        changed = copy.deepcopy(mapping)
        place = changed
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = chance.choice(WRONG)
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(changed))
        one_sentence(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("name", "word", "instead", "sentence"),
    [
        ("nemo.yaml", "num_layers: 80", "num_layers: many", "model.num_layers: 'many' is not a number"),
        ("nemo.yaml", "tensor_model_parallel_size: 4", "tensor_model_parallel_size: 0", "must be at least 1"),
        ("nanotron.yaml", "dp: 4", "dp: four", "parallelism.dp: 'four' is not a number"),
        ("nanotron.yaml", "accumulation_per_replica: 8", "accumulation_per_replica: 2.5", "2.5 is not a whole number"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, name: str, word: str, instead: str, sentence: str) -> None:
    """With its key, as the file has it."""
    assert word in TEXTS[name]
    (tmp_path / name).write_text(TEXTS[name].replace(word, instead))
    with pytest.raises(PerfmodelError) as caught:
        converted(tmp_path / name)
    assert sentence in str(caught.value)


STEPS = {
    "nemo": "| global_step: {step} | train_step_timing in s: {time} |",
    "torchtitan": "step: {step}  loss: 7.1  memory: 47.6GiB(50%)  tps: 6,150  tflops: {time}  mfu: 36.01%",
    "maxtext": "completed step: {step}, seconds: {time}, TFLOP/s/device: 508.3, Tokens/s/device: 1055.9, ",
    "deepspeed": "global_step={step}, RunningAvgSamplesPerSec=11.0, CurrSamplesPerSec={time}, MaxMemAllocated={time}GB",
    "bridge": "Step Time : {time}s GPU utilization: 560.1MODEL_TFLOP/s/GPU",
    "trainer": "{{'train_runtime': {time}, 'train_samples_per_second': {time}, 'train_steps_per_second': 0.5}}",
    "mlperf": ':::MLLOG {{"key": "tracked_stats", "value": {{"train_step_time": {time}, "max_memory_usage": {time}}}}}',
    "nanotron": "iteration: {step} / 9 | time_per_iteration_ms: {time} | global_batch_size: {time} | eta: 1 |",
    "megatron": " iteration {step}/ 9 | elapsed time per iteration (ms): {time} | global batch size: {time} | lm loss: 1 |",
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("number", ["25.1.4", "1e999", "9" * 5000, "..", "-3", "0"])
def test_a_number_that_is_none_breaks_its_line_alone(tmp_path: Path, name: str, number: str) -> None:
    """The others are still counted, where each says something."""
    lines = [STEPS[name].format(step=step, time=number if step == 5 else "2.5") for step in range(1, 13)]
    (tmp_path / "train.log").write_text("\n".join(lines) + "\n")
    found = converted(tmp_path / "train.log")
    json.dumps(conversion_document(found), allow_nan=False)
    assert found.record is not None
