"""What is asked about a server, as people type it: a model, a GPU, degrees, formats, lengths, concurrencies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.exchange.presets import expand_part, merged
from perfmodel.exchange.questions.plan_quantities import positive_number, whole_number, whole_numbers
from perfmodel.exchange.questions.serving.served_models import USUAL_ENGINE, served, serving_setup, usual_cluster
from perfmodel.exchange.questions.serving.stored_weights import stored_weights
from perfmodel.exchange.tables.serving_models import is_repository, named_served_model
from perfmodel.serving.forecast import ServingForecast, serving_forecast
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.setup import Request

MOST: Final = "max"
USUAL_CLIENTS: Final = "1,8,64,max"
USUAL_FORMAT: Final = "bf16"  # of weights and of the KV cache
USUAL_INPUT: Final = 1000
USUAL_OUTPUT: Final = 500


def asked_servers(
    model: Any,
    *,
    gpu: str,
    tensor_parallel: Any = 1,
    engine: str = USUAL_ENGINE,
    precision: str | None = None,
    kv_precision: str = USUAL_FORMAT,
    input_tokens: Any = USUAL_INPUT,
    output_tokens: Any = USUAL_OUTPUT,
    concurrency: Any = USUAL_CLIENTS,
    expert_parallel: Any = 1,
    dollars_per_gpu_hour: Any = None,
    settings: Iterable[str] = (),
) -> tuple[ServingForecast, ...]:
    """The forecast of one replica for each number of GPUs; without a precision, weights are in that of the checkpoint.

    Errors: InputError, with the option that it is about.
    """
    request = Request(input_tokens=whole_number("input", input_tokens), output_tokens=whole_number("output", output_tokens))
    clients, with_most = _clients(concurrency)
    chosen = asked_engine(engine, settings).on(usual_cluster(gpu).gpu)
    price = None if dollars_per_gpu_hour is None else positive_number("price", dollars_per_gpu_hour, "dollars")
    described, stored = asked_model(model), stored_weights(model, precision)
    return tuple(
        serving_forecast(
            serving_setup(
                described,
                gpu=gpu,
                engine=chosen,
                precision=stored.precision,
                kv_precision=kv_precision,
                tensor_parallel=degree,
                expert_parallel=whole_number("expert_parallel", expert_parallel),
            ),
            request,
            clients,
            with_most=with_most,
            evidence=serving_evidence(),
            dollars_per_gpu_hour=price,
            taken=stored.sentences,
        )
        for degree in whole_numbers("tensor_parallel", tensor_parallel)
    )


def asked_model(model: Any) -> TransformerModel:
    """A model as engines hold it: a preset, a config.json, a repository that is known, or a mapping. Errors: InputError."""
    if isinstance(model, TransformerModel):
        return served(model)
    if isinstance(model, str) and is_repository(model):
        return named_served_model(model)
    return served(build(TransformerModel, expand_part(TransformerModel, "models", model)))


def asked_engine(name: str, settings: Iterable[str] = ()) -> Engine:
    """An engine with some settings changed, as in memory.fraction=0.95. Errors: InputError with the key."""
    mapping = expand_part(Engine, "engines", name)
    for text in settings:
        key, mark, value = text.partition("=")
        if not mark or not key.strip():
            raise InputError(f"{shown(text)} is not KEY=VALUE, as in memory.fraction=0.95", key="set")
        mapping = merged(mapping, _nested(key.strip().removeprefix("engine.").split("."), value.strip()))
    try:
        return build(Engine, mapping)
    except PerfmodelError as error:
        raise error.under("engine") from None


def _nested(steps: Sequence[str], value: str) -> dict[str, Any]:
    """{a: {b: value}} of the steps a, b; true and false are truths."""
    first, *rest = steps
    truths: dict[str, Any] = {"true": True, "false": False}
    return {first: _nested(rest, value) if rest else truths.get(value.lower(), value)}


def _clients(value: Any) -> tuple[tuple[int, ...], bool]:
    """Numbers of clients, and whether as many as fit are asked for: 1,8,64,max."""
    texts = value.split(",") if isinstance(value, str) else list(value) if isinstance(value, Sequence) else [value]
    plain = [each for each in texts if str(each).strip().lower() != MOST]
    found = whole_numbers("concurrency", ",".join(str(each).strip() for each in plain)) if plain else ()
    return found, len(plain) < len(texts)
