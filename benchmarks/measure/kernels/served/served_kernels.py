"""What a pass of generation runs, piece by piece, on random tensors: products with few rows, attention over a cache, all else.

Each is timed right behind a product with as many weights as a layer has, and all other operators of one: they have driven its
code and its data out of the caches, as in a pass. Products, and attention over a cache, follow those other operators, whatever
stands between products follows the product. A core times them by the marks that a pass leaves around its operators.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil
from typing import Any, Final

import torch

from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.served.served_traffic import CHOSEN, HEAD_SIZE, LARGEST_DECODE, LATENT, served_model
from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes, random
from perfmodel.benchmarks.measure.kernels.timing import FEWEST, MOST, Timing, Work, on_gpu, summary
from perfmodel.model.generation.attended import attended_over
from perfmodel.model.generation.attention import PassTokens, joined_heads, turned_and_kept, turned_latent
from perfmodel.model.generation.caches import HeadCache, KeptRows, LatentCache
from perfmodel.model.generation.feed_forward import by_expert, expert_products, weighed_sums
from perfmodel.model.generation.generator import Generator
from perfmodel.model.generation.norms import added_and_normed, of_heads
from perfmodel.model.groups import Group, one_rank
from perfmodel.model.operators import BETWEEN, Recorder, operator, recording
from perfmodel.model.parts.experts import GroupedLinear
from perfmodel.model.parts.layers import Norm, activated, rotation
from perfmodel.model.parts.linears import Split
from perfmodel.model.parts.router import Router, Routing
from perfmodel.model.parts.vocabulary import looked_up
from perfmodel.model.supported import DTYPES
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_parts import Mixture
from perfmodel.spec.phases import FORWARD

STREAMED: Final = {"cpu": (4096, 1344), "cuda": (8192, 8192)}  # weights of the product before: as many as a layer has
FEW_STREAMED: Final = (128, 128)  # to see that it works
ROOM: Final = 32  # tokens that a cache has room for beyond those that are in it
CACHES: Final = 2.0  # what takes turns holds so many times the largest cache of the machine
FEWEST_BUFFERS: Final = 4
BETWEEN_WIDTH: Final = {"cpu": 1024, "cuda": HEAD_SIZE}  # of the model that shows what is spent in no operator
WARM_UP: Final = 2
MARKED: Final = "marked"  # what an operator that is timed alone is called
LONGEST_LAUNCH_S: Final = 1e-3
SMALL_LAYOUT: Final[Mapping[str, Any]] = {
    "sequence_parallel": False,
    "sharding": "none",
    "recompute": "none",
    "micro_batch_size": 1,
    "global_batch_size": 1,
    "sequence_length": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTensor:
    """What an operator works on: sizes and labels of its point."""

    rows: int
    columns: int
    precision: str
    device: str

    def random(self, *shape: int) -> torch.Tensor:
        """A tensor of its precision."""
        return random(*shape, precision=self.precision, device=self.device)

    @property
    def sequences(self) -> int:
        """Few rows are single tokens of so many sequences, many are one prompt."""
        return self.rows if self.rows <= LARGEST_DECODE else 1

    @property
    def tokens(self) -> int:
        """Of each sequence."""
        return self.rows // self.sequences

    def place(self, size: int) -> PassTokens:
        """A prompt from its beginning, or one more token."""
        past = 0 if self.tokens > 1 else 1
        rotate = rotation(self.tokens + past, size, DTYPES[self.precision], torch.device(self.device))
        cos, sin = (each[past:] for each in rotate)
        return PassTokens(sequences=self.sequences, past=past, rotation=(cos, sin))

    def kept(self, heads: int, size: int) -> KeptRows:
        """Room in a cache."""
        return KeptRows(self.random(self.sequences, heads, self.tokens + 1, size))


Make = Callable[[ServedTensor], Work | tuple[Work, ...]]  # several run at different places of a pass


def take(point: Point, device: str, *, seconds: float, smallest: bool) -> Timing:
    """The time of one point of serving."""
    with torch.inference_mode():
        return _taken(point, device, seconds=seconds, smallest=smallest)


def _taken(point: Point, device: str, *, seconds: float, smallest: bool) -> Timing:
    sizes = {name: int(size) for name, size in point.sizes.items() if name != "moved_bytes"}
    precision = point.labels["precision"]
    others, product = _streaming(precision, device, FEW_STREAMED if smallest else STREAMED[device])
    if point.kind == "host":
        width = HEAD_SIZE if smallest else BETWEEN_WIDTH[device]
        return _between_operators((others, product), _small_generator(sizes["layers"], width, precision, device), seconds)
    if point.kind == "served":
        made = WORKS[point.labels["operator"]](ServedTensor(**sizes, precision=precision, device=device))
        pieces = made if isinstance(made, tuple) else (made,)
        times = [_behind((others, product), [work], device, seconds / len(pieces)) for work in pieces]
        return summary([sum(each) for each in zip(*times, strict=False)])
    prepare = partial(_product if point.kind == "few_rows" else _attention, **sizes, precision=precision, device=device)
    cached = cache_bytes(device, smallest=smallest)
    number = buffers_beyond(cached, point.kind, sizes, element_bytes=DTYPES[precision].itemsize)
    return summary(_behind((product, others), [prepare() for _ in range(number)], device, seconds))


def buffers_beyond(cached_bytes: int, kind: str, sizes: Mapping[str, int], *, element_bytes: int) -> int:
    """How many matrices, or caches of keys, take turns so that none of them is still in the largest cache of the machine."""
    if kind == "few_rows":
        elements = sizes["columns"] * sizes["inner"] * sizes["matrices"]
    else:
        elements = sizes["sequences"] * sizes["kv_heads"] * sizes["context"] * sizes["head_size"]
    return max(FEWEST_BUFFERS, ceil(CACHES * cached_bytes / (element_bytes * elements)))


def _streaming(precision: str, device: str, shape: tuple[int, int]) -> tuple[Work, Work]:
    """What runs between two executions of an operator: all others, and a product of one row with as many weights as a layer."""
    columns, inner = shape
    x, weight = (random(number, inner, precision=precision, device=device) for number in (1, columns))
    generator = _small_generator(1, HEAD_SIZE, precision, device)

    def others() -> None:
        generator.forget(1)
        generator.likeliest(generator.decode(generator.first))

    return others, lambda: torch.nn.functional.linear(x, weight)


class _SmallGenerator(Generator):
    """A model with little to compute that has read a token: its stream and its MLP are `width` wide."""

    def __init__(self, layers: int, width: int, precision: str, device: str) -> None:
        model = replace(served_model("rotary", width), layers=layers)
        super().__init__(
            model, Layout(precision=precision, tensor_parallel=1, data_parallel=1, **SMALL_LAYOUT), one_rank(device)
        )
        self.make_room(1, MOST + WARM_UP + 1)
        self.first = self.likeliest(self.prefill(torch.zeros(1, 1, dtype=torch.int64, device=device)))


@cache
def _small_generator(layers: int, width: int, precision: str, device: str) -> _SmallGenerator:
    return _SmallGenerator(layers, width, precision, device)


def _behind(before: Sequence[Work], works: Sequence[Work], device: str, seconds: float) -> list[float]:
    """Times of works in turn, each right behind all that comes `before`, until they have taken so many seconds."""
    times: list[float] = []
    while len(times) < MOST + WARM_UP and (len(times) < FEWEST + WARM_UP or sum(times) < seconds):
        work = works[len(times) % len(works)]
        for each in before:
            each()
        times.append(on_gpu(work, ahead_s=LONGEST_LAUNCH_S)[0] if device == "cuda" else _between_marks(work))
    return times[WARM_UP:]


def _between_marks(work: Work) -> float:
    """The time of an operator on a core by the marks around it."""
    with recording(Recorder(torch.device("cpu"))) as recorder, operator(MARKED):
        work()
    return sum(recorder.executions_s()[MARKED, FORWARD])


def _between_operators(before: Sequence[Work], generator: _SmallGenerator, seconds: float) -> Timing:
    """What a decode pass spends in no operator, for each that it runs.

    On a core its products are wide enough to drive the interpreter out of the caches, as in any pass; on a GPU they are narrow.
    """
    generator.forget(1)
    times: list[float] = []
    while len(times) < MOST + WARM_UP - 1 and (len(times) < FEWEST + WARM_UP or sum(times) < seconds):
        for each in before:
            each()
        with recording(Recorder(generator.device)) as recorder:
            generator.likeliest(generator.decode(generator.first))
        times.append(sum(recorder.executions_s()[BETWEEN]) / (len(recorder.labels) - 1))
    return summary(times[WARM_UP:])


def _product(*, rows: int, columns: int, inner: int, matrices: int, precision: str, device: str) -> Work:
    """One linear, or those of several experts with so many rows each."""
    x = random(rows * matrices, inner, precision=precision, device=device)
    weight = random(matrices * columns, inner, precision=precision, device=device)
    if matrices == 1:
        return lambda: torch.nn.functional.linear(x, weight)
    linear = GroupedLinear("experts", matrices, columns, inner, Group(1, 0))
    linear.weight = torch.nn.Parameter(weight.view(matrices, columns, inner), requires_grad=False)
    return lambda: expert_products(linear, x, [rows] * matrices)


def _attention(
    *,
    sequences: int,
    context: int,
    heads: int,
    kv_heads: int,
    head_size: int,
    value_size: int,
    precision: str,
    device: str,
) -> Work:
    """One query of each sequence over a cache of `context` tokens; narrower values are a part of the keys."""

    def made(*shape: int) -> torch.Tensor:
        return random(*shape, precision=precision, device=device)

    q, rows = made(sequences, heads, head_size), KeptRows(made(sequences, kv_heads, context + ROOM, head_size))
    keys = rows.of(context)
    values = keys[..., :value_size]
    if value_size == head_size:
        values = KeptRows(made(sequences, kv_heads, context + ROOM, value_size)).of(context)
    return lambda: attended_over(q, keys, values, scale=1.0)


def _lookup(tensor: ServedTensor) -> Work:
    table = tensor.random(4 * max(tensor.rows, LARGEST_DECODE), tensor.columns)
    tokens = (torch.arange(tensor.rows, device=tensor.device) * 7919) % len(table)
    return lambda: looked_up(table, tokens, None)


def _norm(kind: str) -> Make:
    def make(tensor: ServedTensor) -> Work:
        norm = Norm("norm", kind, tensor.columns).to(device=tensor.device, dtype=DTYPES[tensor.precision])
        for weight in norm.parameters():
            weight.copy_(tensor.random(tensor.columns))
        stream, branch = (tensor.random(tensor.rows, tensor.columns) for _ in range(2))
        return lambda: added_and_normed(norm, stream, branch.zero_())

    return make


def _qk_norm(tensor: ServedTensor) -> Work:
    heads = max(tensor.columns // HEAD_SIZE, 1)
    sizes = [heads, max(heads // 2, 1), max(heads // 2, 1)]
    q, k, _ = tensor.random(tensor.rows, 1, sum(sizes), HEAD_SIZE).split(sizes, dim=2)
    weight = tensor.random(HEAD_SIZE)
    return lambda: (of_heads(q, weight), of_heads(k, weight))


def _rotary(tensor: ServedTensor) -> Work:
    heads = max(tensor.columns // HEAD_SIZE, 1)
    sizes = [heads, max(heads // 2, 1), max(heads // 2, 1)]
    qkv = tensor.random(tensor.tokens, tensor.sequences, sum(sizes), HEAD_SIZE)
    q, k, v = qkv.split(sizes, dim=2)
    cache = HeadCache(*(tensor.kept(sizes[1], HEAD_SIZE) for _ in range(2)))
    tokens = tensor.place(HEAD_SIZE)
    return lambda: turned_and_kept(q, k, v, tokens, cache)


def _latent_rotary(tensor: ServedTensor) -> Work:
    heads, rank = max(tensor.columns // HEAD_SIZE, 1), int(LATENT.kv_rank)
    nope, rotary = int(LATENT.nope_head_size), int(LATENT.rotary_head_size)
    tokens, cache = tensor.place(rotary), LatentCache(tensor.kept(1, rank + rotary))
    kept = tuple(tensor.random(tensor.tokens, tensor.sequences, 1, size) for size in (rank, rotary))
    if tokens.past:
        narrow, turned = (tensor.random(tensor.sequences, heads, size) for size in (rank, rotary))
        return lambda: turned_latent(narrow, turned, (kept[0], kept[1]), tokens, cache)
    queries, keys = (tensor.random(tensor.tokens, tensor.sequences, heads, size) for size in (nope + rotary, nope))
    return lambda: joined_heads(queries, keys, (kept[0], kept[1]), tokens.rotation, cache)


def _activation(kind: str) -> Make:
    def make(tensor: ServedTensor) -> Work:
        x = tensor.random(tensor.rows, tensor.columns * (2 if kind in {"swiglu", "geglu"} else 1))
        return lambda: activated(kind, x)

    return make


def _route(tensor: ServedTensor) -> Work:
    mixture = Mixture(experts=tensor.columns, experts_per_token=CHOSEN, ffn_hidden_size=HEAD_SIZE)
    router = Router("mlp", mixture, HEAD_SIZE, _alone(), routing=Routing(drawn=True))
    scores = tensor.random(tensor.rows, tensor.columns)
    return lambda: by_expert(router.chosen_of(scores)[1], tensor.columns)


def _permute(tensor: ServedTensor) -> tuple[Work, ...]:
    x, rows = tensor.random(tensor.rows, tensor.columns), tensor.random(CHOSEN * tensor.rows, tensor.columns)
    order = torch.randperm(CHOSEN * tensor.rows, generator=torch.Generator().manual_seed(1)).to(tensor.device)
    weights = torch.full((tensor.rows, CHOSEN), 0.5, device=tensor.device)
    return lambda: x.index_select(0, order // CHOSEN), lambda: weighed_sums(rows, weights, order)


def _sample(tensor: ServedTensor) -> Work:
    logits = tensor.random(tensor.rows, tensor.columns)
    return lambda: logits.argmax(dim=-1)


@cache
def _alone() -> Split:
    return Split(Group(1, 0), sequence_parallel=False)


WORKS: Final[Mapping[str, Make]] = {
    "lookup": _lookup,
    "layernorm": _norm("layernorm"),
    "rmsnorm": _norm("rmsnorm"),
    "qk_norm": _qk_norm,
    "rotary": _rotary,
    "latent_rotary": _latent_rotary,
    **{kind: _activation(kind) for kind in ("gelu", "relu", "squared_relu", "swiglu", "geglu")},
    "route": _route,
    "permute": _permute,
    "sample": _sample,
}
