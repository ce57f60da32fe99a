"""How an explanation, and one term of it, look as JSON: SI units in the names of keys, nothing left out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import Term
from perfmodel.explanation.token_volumes import token_volume
from perfmodel.report.json.prediction import SCHEMA_VERSION, model_size
from perfmodel.spec.axes import DATA
from perfmodel.timing.ledger import Entry

SHAPES = {
    Matmul: ("rows", "columns", "inner", "batch"),
    FusedAttention: ("sequences", "heads", "kv_heads", "head_size", "query_length", "key_length"),
    MemoryBound: ("moved_bytes", "kernels"),
    Collective: ("payload_bytes", "wire_bytes"),
}


def explanation_document(explained: Explanation) -> dict[str, Any]:
    """The waterfall, every lever and every move; what a step or a lever changes is a share, of the MFU or of the time.

    The `numbers` of a lever are those that move together.
    """
    fall = explained.waterfall
    together = [{each.path: each.value for each in effect.lever.coefficients} for effect in explained.sensitivity.effects()]
    return _head(explained) | {
        "waterfall": {"ideal_s": fall.ideal_s, "steps": [asdict(step) for step in fall.steps]},
        "levers": [row | {"numbers": numbers} for row, numbers in zip(explained.sensitivity.rows(), together, strict=True)],
        "moves": explained.moves.rows(),
    }


def term_document(explained: Explanation, term: Term) -> dict[str, Any]:
    """One term: its equations, its operators and the numbers behind it."""
    return _head(explained) | {
        "term": {
            "name": term.name,
            "seconds": term.seconds,
            "share": term.share,
            "settings": dict(term.settings),
            "equations": [asdict(each) for each in term.equations],
            "operators": [_operator(entry) for entry in term.entries],
            **_volume(explained, term),
            "numbers": [row | {"source": explained.source(row["path"])} for row in term.rows()],
        }
    }


def _volume(explained: Explanation, term: Term) -> dict[str, Any]:
    """Where the tokens of one rank go in a dispatch, of a term that has some."""
    volume = token_volume(term.entries, explained.run.cluster)
    return {} if volume is None else {"token_volume": asdict(volume)}


def _head(explained: Explanation) -> dict[str, Any]:
    """Which stage of which run is explained."""
    predicted = explained.predicted
    return {
        "schema_version": SCHEMA_VERSION,
        "name": explained.run.name,
        "stage": explained.place + 1,
        "stages": len(explained.run.stages),
        "candidate": dict(explained.chosen),
        DATA.name: int(predicted.layout.data_parallel),
        "gpus": int(predicted.layout.gpus),
        "iteration_time_s": explained.waterfall.iteration_time_s,
        "mfu": explained.waterfall.mfu,
        "fits": bool(predicted.fits),
        "verdict": predicted.verdict,
        "fit_probability": float(predicted.fit_probability),
    } | model_size(explained.run.model)


def _operator(entry: Entry) -> dict[str, Any]:
    operator = entry.operator
    return {
        "name": operator.name,
        "phase": operator.phase,
        "shape": _shape(operator),
        "repeats": float(entry.repeats),
        "seconds": float(entry.seconds),
        "confidence": entry.confidence,
    }


def _shape(operator: Operator) -> dict[str, Any]:
    sizes: dict[str, Any] = {name: float(getattr(operator, name)) for name in SHAPES[type(operator)]}
    if isinstance(operator, Matmul | FusedAttention):
        return sizes | {"precision": operator.precision}
    return sizes | {"kind": operator.kind, "ranks": int(operator.group.ranks)} if isinstance(operator, Collective) else sizes
