"""How a plan of a service looks as JSON and as rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmodel.report.json.prediction import SCHEMA_VERSION
from perfmodel.serving.service_plan import RejectedServer, ServerChoice, ServerOption, ServerPlan
from perfmodel.spec.axes import EXPERT, TENSOR
from perfmodel.spec.serving.loads import E2E, TPOT, TTFT


def service_document(plan: ServerPlan) -> dict[str, Any]:
    """What is promised, the cheapest servers that keep it, all others that do, and what the rest lacks."""
    target, request = plan.target, plan.request
    return {
        "schema_version": SCHEMA_VERSION,
        "input_tokens": int(np.asarray(request.input_tokens)),
        "output_tokens": int(np.asarray(request.output_tokens)),
        "requests_per_s": target.requests_per_s,
        "ttft_limit_s": target.ttft_s,
        "tpot_limit_s": target.tpot_s,
        "confidence": target.confidence,
        "best": None if plan.best is None else _option(plan.best, target.confidence),
        "options": [_option(each, target.confidence) for each in plan.options],
        "rejected": [_rejected(each) for each in plan.rejected],
    }


def service_rows(plan: ServerPlan) -> list[dict[str, Any]]:
    """A row for each kind of replica that keeps the promise, without nested values."""
    rows = []
    for each in plan.options:
        row = _option(each, plan.target.confidence)
        plain = {key: value for key, value in row.items() if not isinstance(value, list)}
        for key, value in row.items():
            if isinstance(value, list):
                plain |= {f"{key}_low": value[0], f"{key}_high": value[1]}
        rows.append(plain)
    return rows


def _choice(choice: ServerChoice) -> dict[str, Any]:
    return {
        "gpu": choice.gpu,
        "precision": choice.precision,
        "kv_precision": choice.kv_precision,
        TENSOR.name: choice.tensor_parallel,
        EXPERT.name: choice.expert_parallel,
    }


def _option(option: ServerOption, confidence: float) -> dict[str, Any]:
    row = _choice(option.choice) | {
        "replicas": option.replicas,
        "gpus": option.gpus,
        "concurrency_per_replica": option.concurrency,
        "odds": option.odds,
        "gpu_hours_per_million_tokens": option.gpu_hours_per_million_tokens,
        "dollars_per_gpu_hour": option.choice.dollars_per_gpu_hour,
        "dollars_per_million_tokens": option.dollars_per_million_tokens,
        "bound_by": option.bound_by.removesuffix("_s"),
    }
    for name, latency in ((TTFT, option.ttft), (TPOT, option.tpot), (E2E, option.e2e)):
        row[name] = float(latency.median)
        row[f"{name}_interval"] = [float(latency.low), float(latency.high)]
        row[f"{name}_at_confidence"] = float(np.asarray(latency.quantile(confidence)))
    return row


def _rejected(rejected: RejectedServer) -> dict[str, Any]:
    """What it lacks; the limits that it would keep, the GPUs that it would take, or the memory that it needs."""
    row = _choice(rejected.choice) | {"lacks": rejected.lack}
    match rejected.lack:
        case "support":
            return row | {"reason": rejected.choice.refusal}
        case "memory":
            return row | {"cache_bytes_per_gpu": rejected.cache_bytes, "request_bytes_per_gpu": rejected.request_bytes}
        case "gpus":
            return row | {"gpus": rejected.gpus}
        case _:
            return row | {"odds": rejected.odds, "kept_ttft_s": rejected.ttft_s, "kept_tpot_s": rejected.tpot_s}
