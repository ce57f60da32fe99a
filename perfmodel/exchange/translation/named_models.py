"""Which of the models that software has by name is that of a run?"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.translation.read_again import model_differences, refusal
from perfmodel.spec.fields import whole
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import Run


def named_model(run: Run, names: Iterable[str], model_of: Callable[[str], TransformerModel], software: str) -> str:
    """The name of the model that a run has; of several one that is spelled like the run's.

    Errors: NotSupportedError, with the key in which a model that comes near differs.
    """
    known = sorted(names, key=lambda name: letters(name) not in letters(run.model.name))
    differing = {name: list(model_differences(run.model, model_of(name), whole(run.tensor_parallel))) for name in known}
    nearest = min(known, key=lambda name: len(differing[name]))
    if not differing[nearest]:
        return nearest
    if len(differing[nearest]) == 1:
        raise refusal(differing[nearest][0], f"{software} ({nearest})")
    raise NotSupportedError(f"{run.model.name} cannot be said in {software}; it has {', '.join(sorted(known))}", key="model")


def letters(name: str) -> str:
    """The letters and digits of a name."""
    return "".join(each for each in name.lower() if each.isalnum())
