"""What an option is called here that people call otherwise: the line after typer's own sentence on an option that is none."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

SERVED: Final = {
    "batch": "--concurrency N",
    "batch-size": "--concurrency N",
    "clients": "--concurrency N",
    "users": "--concurrency N",
}
SPOKEN: Final[Mapping[str, Mapping[str, str]]] = {  # command -> what people write -> what it is
    "plan": {
        "days": "--deadline 30d",
        "dollars": "--budget N",
        "qps": "--requests-per-s N",
        "rate": "--requests-per-s N",
        "rps": "--requests-per-s N",
    },
    "infer": {
        **SERVED,
        "dtype": "--precision FORMAT",
        "isl": "--input N",
        "osl": "--output N",
        "price": "--dollars-per-gpu-hour N",
        "quantization": "--precision FORMAT",
        "tp": "--tensor-parallel N",
    },
    "predict": {"price": "--set economics.dollars_per_gpu_hour=N", "lora": "--training lora", "qlora": "--training qlora"},
}
OF_RUNS: Final = {
    "nodes": "--gpus N",
    "batch": "--set stages[*].global_batch_size=N",
    "batch-size": "--set stages[*].global_batch_size=N",
}


def other_words(command: str, option: str, parameters: Collection[str] = ()) -> str:
    """A sentence on what an unknown option of a command is called here; "" where nobody knows what was meant.

    `parameters` are those of the command: keys of a run are said where it has `overrides` of them.

    >>> other_words("plan", "--days"), other_words("predict", "--tp", ["overrides"]), other_words("plan", "--bogus")
    ('--days is --deadline 30d here', '--tp is --set tensor_parallel=.. here', '')
    """
    word = option.lstrip("-").lower()
    meant = SPOKEN.get(command, {}).get(word)
    if meant is None and "overrides" in parameters:
        from perfmodel.exchange.syntax.key_paths import key_called

        key = key_called(word.replace("-", "_"))
        meant = OF_RUNS.get(word) or (f"--set {key}=.." if key else None)
    return f"{option} is {meant} here" if meant else ""
