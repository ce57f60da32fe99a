"""With which settings the layout of a model alone is searched: those that a plan could be asked with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from perfmodel.errors import InputError
from perfmodel.exchange.questions.plan_arguments import CHOSEN
from perfmodel.exchange.run_files import Setting, parsed_setting
from perfmodel.exchange.syntax.key_paths import is_factor, steps_of
from perfmodel.spec.axes import FILLING

WHOLE: Final = ("cluster", "stack", "sequence_length")  # keys of a run that are arguments of a plan as they are
BATCH: Final = "global_batch_size"  # of any ramp stage: a model alone has one


def searched_settings(settings: Sequence[Setting]) -> dict[str, Any]:
    """The arguments of a plan (PlanArguments) that settings of a run come to.

    Settings of other keys, factors (x2) and lists of candidates change the layout that is found. Errors: InputError for data
    parallelism, which is what the GPUs leave.

    >>> searched_settings(["tensor_parallel=8", "sequence_length=8k", "stages[*].global_batch_size=64", "micro_batch_size=x2"])
    {'choose': {'tensor_parallel': 8}, 'sequence_length': '8k', 'global_batch_size': 64}
    """
    pairs = [each for each in map(parsed_setting, settings) if not is_factor(each[1]) and not isinstance(each[1], list)]
    for key, _ in pairs:
        if key.startswith("stages") and key.endswith(f".{FILLING.name}"):
            raise InputError("of a model alone it follows from --gpus and the other degrees; give those alone", key=key)
    choose = {key: value for key, value in pairs if key in CHOSEN}
    found: dict[str, Any] = {"choose": choose} if choose else {}
    found |= {key: value for key, value in pairs if key in WHOLE}
    found |= {steps_of(key)[-1]: value for key, value in pairs if key.startswith("stages") and key.endswith(f".{BATCH}")}
    if choose.get("recompute") == "full" and "recompute_layers" not in choose:
        found["all_layers_again"] = True  # as a run that names no number of layers has it
    return found
