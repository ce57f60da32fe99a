"""How forecasts and scores of servers look as JSON and as rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from perfmodel.evidence.serving.scores import ServingComparison, ServingScoreboard
from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.serving.forecast import ServingForecast
from perfmodel.serving.remedies import serving_remedies
from perfmodel.spec.axes import EXPERT, TENSOR
from perfmodel.spec.fields import Numeric
from perfmodel.timing.serving.forward_pass import PARTS


def _at(value: Numeric, place: int, shape: tuple[int, ...]) -> float:
    return float(np.broadcast_to(np.asarray(value, dtype=float), shape)[place])


def _inverse(seconds: float) -> float | None:
    """A rate; None of answers of one token, which have no time between tokens."""
    return 1.0 / seconds if seconds > 0 else None


def load_rows(forecast: ServingForecast) -> list[dict[str, Any]]:
    """A row for each concurrency: times [s], rates, their 90 % intervals, and where a request's time on the GPUs goes."""
    load, shape = forecast.load, np.shape(forecast.load.concurrency)
    bound, cost = forecast.bound_by, forecast.dollars_per_million_tokens
    rows = []
    for place in range(shape[0]):
        row: dict[str, Any] = {
            TENSOR.name: forecast.setup.tensor_parallel,
            "concurrency": int(_at(load.concurrency, place, shape)),
            "running": int(_at(load.running, place, shape)),
            "queued": bool(_at(load.is_queued, place, shape)),
            "ttft_s": _at(load.ttft_s, place, shape),
            "tpot_s": _at(load.tpot_s, place, shape),
            "e2e_s": _at(load.e2e_s, place, shape),
            "tokens_per_s": _at(load.tokens_per_s, place, shape),
            "tokens_per_s_per_user": _inverse(_at(load.tpot_s, place, shape)),
            "tokens_per_s_per_gpu": _at(forecast.tokens_per_s_per_gpu, place, shape),
            "bound_by": bound[place].removesuffix("_s"),
        }
        row |= {f"{metric}_interval": [_at(each, place, shape) for each in ends] for metric, ends in forecast.intervals.items()}
        row["parts_s"] = {part: _at(getattr(load.cycle, part), place, shape) for part in PARTS}
        if cost is not None:
            row["dollars_per_million_tokens"] = _at(cost, place, shape)
        rows.append(row)
    return rows


def plain_rows(forecasts: Sequence[ServingForecast]) -> list[dict[str, Any]]:
    """The rows of all forecasts without nested values, for CSV."""
    rows = []
    for forecast in forecasts:
        for row in load_rows(forecast):
            plain = {key: value for key, value in row.items() if not isinstance(value, list | dict)}
            for key, value in row.items():
                if isinstance(value, list):
                    plain |= {f"{key}_low": value[0], f"{key}_high": value[1]}
            rows.append({"verdict": forecast.verdict} | plain)
    return rows


def serving_document(forecasts: Sequence[ServingForecast]) -> dict[str, Any]:
    """Every replica that was asked about, with what it was resolved to, its memory and its loads."""
    return {"schema_version": SCHEMA_VERSION, "replicas": [_replica(each) for each in forecasts]}


def _replica(forecast: ServingForecast) -> dict[str, Any]:
    setup, memory = forecast.setup, forecast.memory
    return {
        "model": setup.model.name,
        "gpu": setup.cluster.gpu.name,
        "engine": setup.engine.name,
        "precision": setup.weights.name,
        "kv_precision": setup.cache.name,
        TENSOR.name: setup.tensor_parallel,
        EXPERT.name: setup.expert_parallel,
        "input_tokens": int(np.asarray(forecast.request.input_tokens)),
        "output_tokens": int(np.asarray(forecast.request.output_tokens)),
        "verdict": forecast.verdict,
        "cache_tokens": forecast.cache_tokens,
        "longest_context_tokens": forecast.longest_context if forecast.limits_context else None,
        "most_concurrency": forecast.most_running,
        "memory_bytes_per_gpu": {
            "total": float(memory.total_bytes),
            "weights": float(memory.weights_bytes),
            "engine": float(memory.fixed_bytes),
            "activations": float(memory.activation_bytes),
            "cuda_graphs": float(memory.graph_bytes),
            "kv_cache": max(float(memory.cache_bytes), 0.0),
        },
        "dollars_per_gpu_hour": forecast.dollars_per_gpu_hour,
        "assumptions": list(forecast.assumptions),
        "remedies": [] if forecast.may_run else [asdict(each) for each in serving_remedies(setup, forecast.request)],
        "loads": load_rows(forecast),
    }


def serving_validation_rows(scores: ServingScoreboard) -> list[dict[str, Any]]:
    """A row for each measured metric, and for each end-to-end latency that follows from two of them."""
    return [_comparison(each) for each in scores.comparisons]


def _comparison(each: ServingComparison) -> dict[str, Any]:
    measured = each.measured
    row: dict[str, Any] = {
        "run_id": measured.run_id,
        "metric": each.metric,
        "measured": each.value,
        "predicted": each.predicted,
        "interval": None if each.interval is None else list(each.interval),
        "relative_error": each.relative_error,
        "source": measured.source,
        "groups": dict(measured.labels),
        "scored": each.is_scored,
    }
    reason = measured.reason or measured.context
    return row | ({"reason": reason} if reason else {})


def serving_validation_document(scores: ServingScoreboard, *, leave_source_out: bool) -> dict[str, Any]:
    """The errors of each question, of groups, and every row."""
    return {
        "schema_version": SCHEMA_VERSION,
        "leave_source_out": leave_source_out,
        "overall": {question: asdict(each) for question, each in scores.questions.items()},
        "groups": {
            group: {name: {question: asdict(each) for question, each in found.items()} for name, found in names.items()}
            for group, names in scores.groups.items()
        },
        "unsupported": dict(scores.unsupported),
        "context": dict(scores.context),
        "rows": serving_validation_rows(scores),
    }
