"""Runs of many kinds, with all that their figures need, worked out once for all tests."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

from matplotlib.transforms import Bbox

from perfmodel import api
from perfmodel.economics.outlook import Outlook, outlook
from perfmodel.exchange.presets import economics_preset
from perfmodel.explanation.explanation import Explanation, explanation
from perfmodel.prediction import Prediction, predict
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.figure_set import run_figures
from perfmodel.spec.run import Run
from tests.report.reading import drawn_texts

NAME: Final = "<b>R&D</b> $x_1^2$ \\frac{a}{b} %s {0} \u4e2d\u6587 \u0627\u0644 \u00e9\u00df \U0001f680 " + "very long " * 16
STRANGE: Final = f"_{NAME}"[:200]
SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "ramp": {},
    "pipeline": {"pipeline_parallel": 4, "virtual_pipeline": 2, "precision": "fp8", "recompute": "full"},
    "context": {"tensor_parallel": 2, "context_parallel": 2, "pipeline_parallel": 2},
    "sharded": {"tensor_parallel": 1, "sharding": "zero3", "cluster": "dgx-b200"},
    "too large": {"tensor_parallel": 1, "micro_batch_size": 4, "cluster": "dgx-a100"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run, predicted, its last stage explained, with its outlook under terms with a price."""

    prediction: Prediction
    explained: Explanation
    outlook: Outlook

    @property
    def run(self) -> Run:
        """The run."""
        return self.prediction.run


@cache
def case(name: str) -> Case:
    """One of SETTINGS; `laptop` has one GPU and no tokens, `strange` names that nobody would choose, `many` eight stages."""
    terms = replace(economics_preset("typical"), dollars_per_gpu_hour=2.5)
    if name == "laptop":
        run, terms = api.load("laptop"), economics_preset("typical")
    elif name == "strange":
        run, terms = _strange(api.load("nemotron-4-15b")), replace(terms, name=STRANGE)
    elif name == "many":
        run = api.load("nemotron-4-15b")
        run = replace(run, stages=tuple(replace(run.stages[0], tokens=1e9 * (1 + place)) for place in range(8)))
    else:
        run = api.load("nemotron-4-15b", SETTINGS[name])
    prediction = predict(run)
    return Case(prediction=prediction, explained=explanation(run), outlook=outlook(prediction, terms))


CASES: Final = (*SETTINGS, "laptop", "strange", "many")


def _strange(run: Run) -> Run:
    cluster, links = run.cluster, run.cluster.links
    links = replace(links, node=replace(links.node, name=STRANGE), network=replace(links.network, name=STRANGE[::-1].strip()))
    cluster = replace(cluster, name=STRANGE, links=links, gpu=replace(cluster.gpu, name=STRANGE))
    model, stack = replace(run.model, name=STRANGE), replace(run.stack, name=STRANGE)
    return replace(run, name=STRANGE, cluster=cluster, model=model, stack=stack)


@cache
def texts(name: str) -> dict[str, list[tuple[str, Bbox]]]:
    """Every text that is drawn in each of them, and where."""
    return {which: drawn_texts(drawing) for which, drawing in figures(name).items()}


@cache
def figures(name: str) -> dict[str, Drawing]:
    """All figures of a case."""
    found = case(name)
    return run_figures(found.prediction, [found.explained], found.outlook)
