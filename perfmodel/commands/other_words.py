"""What people call an option that has another name here: it is taken for that one, or named behind typer's own sentence."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from typer.core import TyperCommand

VALUE: Final = "{}"  # in what a word means: where its value goes
SERVED: Final = dict.fromkeys(("batch", "batch-size", "clients", "users"), "--concurrency {}")
SPOKEN: Final[Mapping[str, Mapping[str, str]]] = {  # command -> what people write -> what it is
    "plan": {
        "days": "--deadline {}d",
        "dollars": "--budget {}",
        "qps": "--requests-per-s {}",
        "rate": "--requests-per-s {}",
        "rps": "--requests-per-s {}",
    },
    "infer": {
        **SERVED,
        "dtype": "--precision {}",
        "isl": "--input {}",
        "osl": "--output {}",
        "quantization": "--precision {}",
        "tp": "--tensor-parallel {}",
    },
    "predict": {"lora": "--training lora", "qlora": "--training qlora"},
}
HINTS: Final[Mapping[str, Mapping[str, str]]] = {  # the same where it has another value, so that it is named alone
    "validate": dict.fromkeys(("gpu", "stack", "precision"), "--full (which scores every GPU, stack and precision)"),
}
OF_RUNS: Final = {  # of another number, or of another command
    "nodes": "--gpus N",
    **dict.fromkeys(("days", "deadline"), "perfmodel plan MODEL --cluster C --tokens N --deadline 14d"),
    "budget": "perfmodel plan MODEL --cluster C --tokens N --price 2.5 --budget 5M",
}
NEEDED: Final = {"gpu": "name a GPU, as in --gpu h100-sxm-80gb (perfmodel list gpus)"}  # an option that is missing
OF_PLANS: Final = {"sequence_length": "--sequence-length {}", "stages[*].global_batch_size": "--global-batch-size {}"}


OF_COMMANDS: Final = {  # what people call a command -> the one that says it
    **dict.fromkeys(("estimate", "memory", "params", "simulate", "train"), "predict RUN"),
    **dict.fromkeys(("finetune", "fine-tune", "lora", "qlora", "tune"), "predict MODEL --gpu GPU --training qlora"),
    **dict.fromkeys(("inference", "serve", "serving"), "infer MODEL --gpu GPU"),
    **dict.fromkeys(("budget", "cost", "size"), "plan MODEL --cluster C --deadline 14d --tokens 2T --price 2.5"),
    **dict.fromkeys(("mfu", "why"), "explain RUN"),
    **dict.fromkeys(("clusters", "gpus", "models", "stacks"), "list"),
}


def other_command(word: str) -> str:
    """A sentence on what to type where the name of a command was expected; "" where nobody knows what was meant.

    >>> other_command("memory"), other_command("llama-3.1-8b"), other_command("bogus")
    ('perfmodel predict RUN says that', 'perfmodel predict llama-3.1-8b predicts it', '')
    """
    if word in OF_COMMANDS:
        return f"perfmodel {OF_COMMANDS[word]} says that"
    from perfmodel.exchange.presets import preset_names
    from perfmodel.exchange.questions.asked_runs import known_model

    is_run = word in preset_names("runs") or Path(word).is_file() or known_model(word) is not None
    return f"perfmodel predict {word} predicts it" if is_run else ""


class SpokenCommand(TyperCommand):
    """A command that takes options by other words: those of SPOKEN, and the keys of a run where it has settings of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The arguments that are left, after options have been read; `ctx` is click's, or typer's copy of it."""
        options = {option for each in self.params for option in (*each.opts, *each.secondary_opts)}
        told = said_here(self.name or "", args, options, [each.name or "" for each in self.params])
        return super().parse_args(ctx, [*told])


def said_here(command: str, arguments: Sequence[str], options: Collection[str], parameters: Collection[str]) -> Iterator[str]:
    """The arguments of a command, with its own options in place of those that people call otherwise.

    >>> [*said_here("predict", ["llama-3.1-8b", "--tp", "8", "--gbs=64", "--fp8"], ["--set"], ["overrides"])]
    ['llama-3.1-8b', '--set', 'tensor_parallel=8', '--set', 'stages[*].global_batch_size=64', '--set', 'precision=fp8']
    """
    rest = [*arguments]
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            yield from (argument, *rest)
            return
        option, equals, value = argument.partition("=")
        meant = _meant(command, option, parameters) if option.startswith("--") and option not in options else ""
        has_value = bool(equals) or (bool(rest) and not rest[0].startswith("--"))
        is_hint = meant in HINTS.get(command, {}).values() or meant in OF_RUNS.values()
        if not meant or is_hint or (not has_value if VALUE in meant else equals):
            yield argument
        elif VALUE in meant:
            yield from meant.replace(VALUE, value if equals else rest.pop(0)).split(" ", 1)
        else:
            yield from meant.split(" ")


def other_words(command: str, option: str, parameters: Collection[str] = ()) -> str:
    """A sentence on what an unknown option of a command is called here; "" where nobody knows what was meant.

    `parameters` are those of the command: keys of a run are said where it has `overrides` of them.

    >>> other_words("plan", "--days"), other_words("predict", "--tp", ["overrides"]), other_words("plan", "--bogus")
    ('--days is --deadline Nd here', '--tp is --set tensor_parallel=N here', '')
    """
    meant = _meant(command, option, parameters)
    return f"{option} is {meant.replace(VALUE, 'N')} here" if meant else ""


def _meant(command: str, option: str, parameters: Collection[str]) -> str:
    """The option of a command that people mean, with the place of its value; "" where nobody knows."""
    word = option.lstrip("-").lower()
    meant = SPOKEN.get(command, {}).get(word) or HINTS.get(command, {}).get(word, "")
    has_run, has_choices = not {"overrides", "changes"}.isdisjoint(parameters), "choose" in parameters
    if meant or not (has_run or has_choices):
        return meant
    from perfmodel.exchange.syntax.key_paths import key_called
    from perfmodel.spec.precision import RECIPES

    if word in RECIPES:
        return f"--{'set' if has_run else 'choose'} precision={word}"
    key = key_called(word.replace("-", "_"))
    if has_run:
        return OF_RUNS.get(word) or (f"--set {key}={VALUE}" if key else "")
    return OF_PLANS.get(key) or (f"--choose {key}={VALUE}" if key and "." not in key else "")
