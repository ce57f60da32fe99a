"""What measured servers say of the errors of predictions, as perfmodel/data/serving_evidence.yaml has it."""

from __future__ import annotations

from functools import cache

from perfmodel.exchange.building import build
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.spec.serving.evidence import ServingEvidence


@cache
def serving_evidence() -> ServingEvidence:
    """The shipped evidence."""
    return build(ServingEvidence, separated(read_mapping(DATA / "serving_evidence.yaml"))[0])
