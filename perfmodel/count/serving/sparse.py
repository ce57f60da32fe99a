"""What latent attention with an indexer runs beside the rest: scores of all keys, the choice, and prompts over chosen ones.

Symbols: B sequences of n tokens in the cache, P prompts of S tokens, k tokens that a query sees at most, a_i and d_i heads of
the indexer and their size. A prompt of up to k tokens sees all of them, as without an indexer; its keys are kept all the same.

Sources: DeepSeek-V3.2 (arXiv:2512.02556), and the code of SGLang (layers/attention/nsa) and vLLM (sparse_attn_indexer).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from perfmodel.count.operators import MemoryBound
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.models.layer_parts import Indexer, LatentAttention
from perfmodel.spec.phases import FORWARD
from perfmodel.spec.precision import FP32_BYTES
from perfmodel.spec.serving.formats import WIDE, WIDE_BYTES, CacheFormat

KEY_BYTES: Final = 1.0  # of a number of a key of the indexer, in 8 bits whatever the cache is in; each key has a scale in fp32
INDEX_KERNELS: Final = 4  # rotation, the Hadamard transform and the cast of queries and keys, and writing keys into the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChoice:
    """Scores of `queries` with `keys` each, of `heads` of `head_size` numbers, and the choice of the best of them.

    Keys are read once for all queries of a sequence: `read_bytes`. Nothing is chosen of `few` keys, which attention reads all.
    """

    name: str
    role: Role = Role.CORE
    phase: str = FORWARD
    repeats: Numeric
    queries: Numeric
    keys: Numeric  # that a query meets in the mean
    heads: Numeric
    head_size: Numeric
    read_bytes: Numeric
    few: Numeric  # truth
    kernels: int = 2
    precision: str = "fp8"

    @property
    def scores(self) -> Numeric:
        """R * k, one for each query and key: heads are added up."""
        return self.queries * self.keys

    @property
    def flop(self) -> Numeric:
        """2 * R * k * a * d."""
        return 2.0 * self.scores * self.heads * self.head_size


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseAttention:
    """Attention of `rows` queries of prompts over `keys` chosen ones each, of one narrow vector for all `heads`."""

    name: str
    role: Role = Role.CORE
    phase: str = FORWARD
    repeats: Numeric
    rows: Numeric
    keys: Numeric
    heads: Numeric
    head_size: Numeric
    value_size: Numeric
    law: str
    key_bytes: Numeric
    precision: str = WIDE  # of its arithmetic, as of CachedAttention

    @property
    def read_bytes(self) -> Numeric:
        """R * k * bytes of a key, which queries do not share."""
        return self.rows * self.keys * self.key_bytes

    @property
    def flop(self) -> Numeric:
        """2 * R * a * k * (d + v)."""
        return 2.0 * self.rows * self.heads * self.keys * (self.head_size + self.value_size)


def index_bytes_per_token(indexer: Indexer) -> Numeric:
    """Bytes of one token in the indexer's cache of one layer, which every GPU holds: d_i + 4."""
    return KEY_BYTES * indexer.head_size + FP32_BYTES


def index_operators(
    indexer: Indexer,
    name: str,
    repeats: Numeric,
    *,
    sequences: Numeric,
    context: Numeric,
    prompts: Numeric,
    prompt_tokens: Numeric,
) -> Iterator[MemoryBound | KeyChoice]:
    """Queries and keys of the indexer as its kernels have them, then scores and choice: of sequences, and of long prompts."""
    rows, key_bytes = sequences + prompts * prompt_tokens, index_bytes_per_token(indexer)
    numbers = rows * (indexer.heads + 1) * indexer.head_size
    yield MemoryBound(
        name=f"{name}.index",
        role=Role.ELEMENTWISE,
        repeats=repeats,
        moved_bytes=(2 * WIDE_BYTES + KEY_BYTES) * numbers,
        kernels=INDEX_KERNELS,
        kernel="index",
    )
    if anywhere(np.asarray(sequences) > 0):
        yield KeyChoice(
            name=f"{name}.choice",
            repeats=repeats,
            queries=sequences,
            keys=context,
            read_bytes=sequences * context * key_bytes,
            few=np.asarray(context) <= indexer.tokens,
            heads=indexer.heads,
            head_size=indexer.head_size,
        )
    chosen = long_prompts(indexer, prompts, prompt_tokens)
    if anywhere(np.asarray(chosen) > 0):
        yield KeyChoice(
            name=f"{name}.choice",
            repeats=repeats,
            queries=chosen * prompt_tokens,
            keys=0.5 * (prompt_tokens + 1.0),
            read_bytes=chosen * prompt_tokens * key_bytes,
            few=np.asarray(chosen) <= 0,
            heads=indexer.heads,
            head_size=indexer.head_size,
        )


def long_prompts(indexer: Indexer, prompts: Numeric, prompt_tokens: Numeric) -> Numeric:
    """The prompts whose tokens see chosen ones: those of more than k tokens."""
    return np.where(np.asarray(prompt_tokens) > indexer.tokens, prompts, 0.0)


def sparse_prompts(
    latent: LatentAttention, indexer: Indexer, name: str, repeats: Numeric, *, rows: Numeric, heads: Numeric, cache: CacheFormat
) -> SparseAttention:
    """Attention of the tokens of long prompts: kernels read k keys for each, of the first tokens as well."""
    return SparseAttention(
        name=f"{name}.core",
        repeats=repeats,
        rows=rows,
        keys=indexer.tokens,
        heads=heads,
        head_size=latent.kv_rank + latent.rotary_head_size,
        value_size=latent.kv_rank,
        law=cache.law,
        key_bytes=(latent.kv_rank + latent.rotary_head_size) * cache.bytes,
    )
