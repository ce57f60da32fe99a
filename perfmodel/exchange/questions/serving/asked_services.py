"""What is asked of a service, as people type it: limits, a rate, and the servers to choose from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, PerfmodelError, UnitError, did_you_mean, shown
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.exchange.presets import DATA, preset_path
from perfmodel.exchange.questions.plan_quantities import confidence as read_confidence
from perfmodel.exchange.questions.plan_quantities import positive_number, whole_number, whole_numbers
from perfmodel.exchange.questions.serving.asked_servers import (
    USUAL_FORMAT,
    USUAL_INPUT,
    USUAL_OUTPUT,
    asked_engine,
    asked_model,
)
from perfmodel.exchange.questions.serving.served_models import USUAL_ENGINE, serving_setup, usual_cluster
from perfmodel.exchange.questions.serving.stored_weights import stored_weights
from perfmodel.serving.service_plan import ServerChoice, ServerPlan, ServiceTarget, server_plan
from perfmodel.spec.axes import EXPERT, TENSOR
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.setup import Request
from perfmodel.units import parse_quantity

USUAL_DEGREES: Final = "1,2,4,8"
USUAL_CONFIDENCE: Final = 0.9


def serving_gpus() -> tuple[str, ...]:
    """GPUs whose kernels of serving are known."""
    return tuple(sorted(path.stem for path in (DATA / "serving").glob("*.yaml")))


def asked_service(
    model: Any,
    *,
    requests_per_s: Any,
    ttft: Any = None,
    tpot: Any = None,
    gpu: Any = None,
    precision: Any = None,
    kv_precision: Any = USUAL_FORMAT,
    tensor_parallel: Any = USUAL_DEGREES,
    expert_parallel: Any = 1,
    engine: str = USUAL_ENGINE,
    input_tokens: Any = USUAL_INPUT,
    output_tokens: Any = USUAL_OUTPUT,
    confidence: Any = USUAL_CONFIDENCE,
    price: Any = None,
    most_gpus: int = 32768,
    settings: Iterable[str] = (),
) -> ServerPlan:
    """The servers that keep a promise, cheapest first; without a precision, weights are in that of the checkpoint.

    Errors: InputError, with the option that it is about.
    """
    target = ServiceTarget(
        requests_per_s=positive_number("requests_per_s", requests_per_s),
        ttft_s=None if ttft is None else latency_s("ttft", ttft),
        tpot_s=None if tpot is None else latency_s("tpot", tpot),
        confidence=read_confidence(confidence),
        most_gpus=most_gpus,
    )
    request = Request(input_tokens=whole_number("input", input_tokens), output_tokens=whole_number("output", output_tokens))
    known = serving_gpus()
    gpus = known if gpu is None else _names("gpu", gpu)
    for name in gpus:
        preset_path("gpus", name)
        if name not in known:
            raise InputError(f"{shown(name)} is no GPU whose serving is known; {did_you_mean(name, known)}", key="gpu")
    choices = _choices(
        asked_model(model),
        gpus,
        _names("precision", stored_weights(model).precision if precision is None else precision),
        _names("kv_precision", kv_precision),
        degrees=whole_numbers("tensor_parallel", tensor_parallel),
        expert_degrees=whole_numbers("expert_parallel", expert_parallel),
        engine=asked_engine(engine, settings),
        prices=prices_of(price, gpus),
    )
    return server_plan(list(choices), request, target, serving_evidence())


def _choices(
    model: TransformerModel,
    gpus: Sequence[str],
    precisions: Sequence[str],
    kv_precisions: Sequence[str],
    *,
    degrees: Sequence[int],
    expert_degrees: Sequence[int],
    engine: Engine,
    prices: Mapping[str, float],
) -> Iterator[ServerChoice]:
    """Every combination; one that cannot be has the reason. Errors: InputError for names that are wrong everywhere."""
    for gpu, weights, cache, degree, experts in product(gpus, precisions, kv_precisions, degrees, expert_degrees):
        names: dict[str, Any] = {
            "precision": weights,
            "kv_precision": cache,
            TENSOR.name: degree,
            EXPERT.name: experts,
        }
        price = prices.get(gpu)
        try:
            chosen = engine.on(usual_cluster(gpu).gpu)
            setup = serving_setup(model, gpu=gpu, engine=chosen, **names)
        except PerfmodelError as error:
            if isinstance(error, InputError) and error.key in ("precision", "kv_precision"):
                raise
            if isinstance(error, NotSupportedError) and error.key == "model":
                raise
            yield ServerChoice(gpu=gpu, **names, refusal=error.problem, dollars_per_gpu_hour=price)
            continue
        yield ServerChoice(gpu=gpu, **names, setup=setup, dollars_per_gpu_hour=price)


def latency_s(key: str, value: Any) -> float:
    """A limit of a latency, as in 1s or 30ms. Errors: InputError with the key.

    >>> latency_s("tpot", "30ms")
    0.03
    """
    try:
        seconds = parse_quantity(value, "s")
    except UnitError as error:
        raise error.under(key) from None
    if isinstance(value, str) and value.strip()[-1] in "0123456789.":
        raise InputError(f"{shown(value)} has no unit; write it like 1s or 30ms", key=key)
    if not seconds > 0:
        raise InputError(f"{shown(value)} must be greater than 0", key=key)
    return seconds


def prices_of(value: Any, gpus: Sequence[str]) -> dict[str, float]:
    """Dollars of a GPU-hour by GPU: one price for all, a mapping, or a text such as h100-sxm-80gb=2.5,b200=5.

    Errors: InputError for a GPU without a price beside others that have one.

    >>> prices_of("a=2,b=$4", ["a", "b"]), prices_of(2.5, ["a"]), prices_of(None, ["a"])
    ({'a': 2.0, 'b': 4.0}, {'a': 2.5}, {})
    """
    if value is None:
        return {}
    if isinstance(value, str) and "=" in value:
        value = dict(_pair(each) for each in value.split(","))
    if not isinstance(value, Mapping):
        return dict.fromkeys(gpus, positive_number("price", value, "dollars"))
    for name in value:
        if name not in gpus:
            raise InputError(f"{shown(name)} is none of the GPUs to choose from; {did_you_mean(name, gpus)}", key="price")
    if missing := [name for name in gpus if name not in value]:
        raise InputError(
            f"{missing[0]} has no price; give one for each GPU, or name with --gpu those that have one", key="price"
        )
    return {name: positive_number("price", amount, "dollars") for name, amount in value.items()}


def _pair(text: str) -> tuple[str, str]:
    name, mark, amount = text.partition("=")
    if not mark or not name.strip():
        raise InputError(f"{shown(text)} is not GPU=DOLLARS, as in h100-sxm-80gb=2.5", key="price")
    return name.strip(), amount.strip()


def _names(key: str, value: Any) -> tuple[str, ...]:
    """Names in a text with commas or in a sequence, each once."""
    texts = value.split(",") if isinstance(value, str) else list(value)
    names = tuple(dict.fromkeys(str(each).strip() for each in texts if str(each).strip()))
    if not names:
        raise InputError("names nothing", key=key)
    return names
