"""Are all parameters of a model shown, and of a mixture of experts those that a token passes?"""

from __future__ import annotations

import pytest

from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.explanation import explanation
from perfmodel.prediction import predict
from perfmodel.report.json.explanation import explanation_document
from perfmodel.report.json.prediction import prediction_document
from perfmodel.report.text.explanation import verdict
from perfmodel.report.text.prediction import verdict as headline
from perfmodel.spec.run import Run

SIZE = "46.70B parameters (12.88B active)"


def run_of(model: str) -> Run:
    """The central preset with another model."""
    return read_candidates("nemotron-4-15b", [f"model={model}", "stages=[{data_parallel: 96, global_batch_size: 384}]"])[0].run


@pytest.mark.parametrize("model", ["mixtral-8x7b", "llama-3.1-8b"])
def test_parameters_are_shown(model: str) -> None:
    """In JSON of every model, and in the verdict, which pages have; by explain those of a mixture."""
    run, is_mixture = run_of(model), model == "mixtral-8x7b"
    explained = explanation(run)
    assert (SIZE in headline(predict(run)).plain) == is_mixture
    assert any(SIZE in line.plain for line in verdict(explained)) == is_mixture
    for document in (prediction_document(predict(run), assumptions=()), explanation_document(explained)):
        sizes = [document["parameters"], document["active_parameters"]]
        assert sizes == ([46_702_792_704, 12_879_925_248] if is_mixture else [8_030_261_248] * 2)
