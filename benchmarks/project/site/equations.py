"""References of what is computed: terms with their equations, the functions behind them, and where coefficients come from."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from perfmodel import api
from perfmodel.benchmarks.project.site.fences import Fence, code, escaped, table
from perfmodel.benchmarks.project.site.program import prose
from perfmodel.exchange.presets import preset_names, preset_settings
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import TERMS
from perfmodel.report.text.explanation import TERM_LABELS

NO_QUOTIENTS: Final = re.compile(r"\[[^]]*\]|\w+/\w+[.]py|\bGPU-hours|\w+=")  # units, paths and settings
MOST_NUMBERS: Final = 8
EQUATION: Final = re.compile(r"\w ?[*/^] ?[\w(]| = | [+] ")  # an operator between two operands


def terms(fence: Fence) -> str:
    """Every term that `explain --term` takes, then each with its equations and the numbers behind it in a run."""
    explained = api.explain(fence.words[0])
    rows = [
        (code(name), TERM_LABELS[name], code(kind.part.removesuffix("_s")), ", ".join(map(code, kind.settings)))
        for name, kind in TERMS.items()
    ]
    overview = table(("term", "what it is", "part of `breakdown_s`", "settings behind it"), rows)
    return "\n".join([overview, *(_term(explained, name) for name in TERMS)])


def _term(explained: Explanation, name: str) -> str:
    """The equations of one term, and the numbers that move it most with their sources."""
    found = explained.term(name)
    equations = ", ".join(code(each.name.removeprefix("perfmodel.")) for each in found.equations)
    numbers = [
        (code(each.path), f"{each.value:.4g}", escaped(explained.source(each.path))) for each in found.numbers[:MOST_NUMBERS]
    ]
    behind = (
        table(("number", "value", "source"), numbers)
        if numbers
        else "No number moves it in this run, which has nothing of it.\n"
    )
    return f"## {code(name)}\n\n{TERM_LABELS[name]}; equations: {equations}.\n\n{behind}"


def equations(fence: Fence) -> str:
    """What the functions of some packages or modules say that they compute, each equation first."""
    return "\n".join(part for line in fence.body.split() for module in _modules(line) for part in _module(module))


def _modules(name: str) -> Iterator[ModuleType]:
    """A module, or every module of a package in alphabetical order."""
    found = importlib.import_module(name)
    if not hasattr(found, "__path__"):
        yield found
        return
    for each in sorted(pkgutil.iter_modules(found.__path__), key=lambda info: info.name):
        yield from _modules(f"{name}.{each.name}")


def _module(module: ModuleType) -> Iterator[str]:
    """A module with its public functions of its own; nothing of one without any."""
    own = [each for _, each in inspect.getmembers(module, inspect.isfunction) if each.__module__ == module.__name__]
    shown = sorted((each for each in own if states_equation(each)), key=lambda each: inspect.getsourcelines(each)[1])
    if shown:
        yield f"## {code(module.__name__)}\n\n{prose(inspect.getdoc(module) or '')}\n"
    for each in shown:
        first, _, rest = _words(each).partition("\n\n")
        yield f"### {code(each.__name__)}\n\n```none\n{first}\n```\n\n{prose(rest)}\n"


def states_equation(function: Any) -> bool:
    """Whether a function says first of all what it computes, in symbols.

    >>> from perfmodel.timing.collectives import crossed_link, tree_share
    >>> states_equation(crossed_link), states_equation(tree_share)
    (False, True)
    """
    first = NO_QUOTIENTS.sub("", _words(function).partition("\n\n")[0])
    return bool(EQUATION.search(first))


def _words(function: Any) -> str:
    """A docstring without its examples."""
    return (inspect.getdoc(function) or "").partition(">>>")[0].rstrip()


def sources(fence: Fence) -> str:
    """Where the numbers of presets of some kinds come from: each source once a preset, with how many numbers have it."""
    return "\n".join(f"## {kind}\n\n{_sources_of(kind)}" for kind in fence.words)


def _sources_of(kind: str) -> str:
    rows = []
    for name in preset_names(kind):
        ((_, settings),) = [each for each in preset_settings(f"{kind}/{name}") if each[0] == f"{kind}/{name}"]
        counted: dict[str, int] = {}
        for _, _, source in settings:
            counted[source] = counted.get(source, 0) + 1
        rows += [(code(name), str(number), escaped(source)) for source, number in counted.items() if source]
    return table(("preset", "numbers", "source"), rows)
