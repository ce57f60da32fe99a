"""From the time of a forward pass to TTFT, TPOT and throughput: continuous batching in closed form.

Symbols: C clients, each with one request at a time; B sequences that the server runs at once, min(C, what fits); S tokens of a
prompt, O tokens that come back; D a decode pass of B sequences over S + O/2 tokens each; p what one prompt adds.

    E2E = r + (O*D + B*p) * max(1, C/B)

r is what a request takes through the server, and (n - 1)/2 decode passes where an engine looks for new ones behind n of them.
In the life of one request every sequence of the batch is replaced once, so that it sees B prompts pass, its own among them.
TTFT is r, the wait for running passes and for the prompts before it, and its own (prompt_queue.py); past the limit of the
cache, also for a free place; D more where tokens leave when the pass after theirs has run. TPOT is what is left of E2E, over
the other tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.count.serving.memory import concurrency_that_fits
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.serving.prompt_queue import PromptQueue
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import PassTime, mixed, pass_times, streamed

STEADY: Final = np.inf  # rounds: so many that the first one counts for nothing
LEAST_READ: Final = 1 / 8  # of a pass's tokens, of prompts: a guard where sequences that decode would take them all
LEAST_GAP: Final = 0.5  # of a decode pass, from token to token: a guard for answers of a few, whose waits E2E leaves out


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedLoad:
    """What clients see of a replica at each of some concurrencies; all numbers broadcast.

    `cycle` holds the parts of one life of a request on the GPUs, O*D + B*p, and `first` those of its TTFT without queueing.
    `at_the_door_s` is r by the numbers of the engine's host that it follows from.
    `fits` are the sequences that the cache holds at once, however many the engine admits.
    """

    concurrency: Numeric
    running: Numeric
    fits: Numeric
    output_tokens: Numeric
    ttft_s: Numeric
    tpot_s: Numeric
    decode: PassTime
    cycle: PassTime
    first: PassTime
    at_the_door_s: Mapping[str, Numeric]

    @property
    def e2e_s(self) -> Numeric:
        """TTFT + (O - 1)*TPOT."""
        return self.ttft_s + (self.output_tokens - 1.0) * self.tpot_s

    @property
    def tokens_per_s(self) -> Numeric:
        """Tokens that come back, of all clients: C * O / E2E."""
        return self.concurrency * self.output_tokens / self.e2e_s

    @property
    def is_queued(self) -> Numeric:
        """Whether requests wait for a free place."""
        return np.asarray(self.concurrency) > self.running


def most_running(setup: ServingSetup, request: Request) -> Numeric:
    """Sequences that a replica runs at once at most: what fits into the cache, and what the engine admits."""
    return np.minimum(concurrency_that_fits(setup, request), admitted_sequences(setup))


def admitted_sequences(setup: ServingSetup) -> Numeric:
    """Sequences that the engine admits at once, whatever fits."""
    return setup.engine.schedule.max_sequences * setup.attention_replicas


def served_load(
    setup: ServingSetup,
    request: Request,
    concurrency: Numeric,
    *,
    waves: float = STEADY,
    online: bool = True,
    length_spread: float = 1.0,
) -> ServedLoad:
    """A closed loop of so many clients; of none, a server at rest. `online` requests pass HTTP and a tokeniser.

    `length_spread` is by what share of O answers differ in length.
    """
    clients = np.asarray(concurrency, dtype=float)
    running = np.maximum(np.minimum(clients, most_running(setup, request)), 1.0)
    outputs = np.asarray(request.output_tokens, dtype=float)
    numbers = _prompts_together(setup, request, running)
    decode, alone, full, beside, *shared = pass_times(setup, list(_passes(setup, request, running, numbers)))
    added = _added_by_a_prompt(setup, request, running, numbers, decode=decode, shared=shared)
    cycle = mixed(((_decode_passes(setup, running, outputs, numbers), decode), (running, added)))
    host, schedule = setup.engine.host, setup.engine.schedule
    if online:
        answers = setup.cluster.host_scale * running * outputs  # tokens of all sequences in one life of a request
        cycle = streamed(cycle, host.stream_s * answers, added_s=host.answer_s * answers)
    at_the_door_s = _at_the_door_s(setup, request, online=online)
    request_s = sum(at_the_door_s.values(), start=np.float64(0.0))
    decode_s, life_s = decode.total_s, cycle.total_s
    queue = PromptQueue(
        schedule=schedule,
        running=running,
        output_tokens=outputs,
        together=np.minimum(_tokens_of_prompts(setup, request, running) / request.input_tokens, running),
        alone_s=alone.total_s,
        full_s=full.total_s,
        beside_s=beside.total_s,
        prompt_s=added.total_s,
        further_s=np.minimum(_further_s(setup, request, running, decode, beside), added.total_s),
        decode_s=decode_s,
        length_spread=length_spread,
        waves=waves,
        door_s=request_s if host.one_door else 0.0,
        replicas=setup.attention_replicas,
        waited_for=np.maximum(schedule.wait_share * schedule.chunk_tokens - running, 0.0) / request.input_tokens,
    )
    first_s = queue.first_token_s(request_s)
    request_s = request_s + np.where(running > 1.0, (schedule.receive_passes - 1.0) / 2.0 * decode_s, 0.0)
    e2e_s = request_s + queue.idle_s + queue.held_s + life_s * np.maximum(clients / running, 1.0)
    late = 1.0 if host.late else 0.0
    ttft_s = request_s + first_s + late * decode_s + life_s * np.maximum(clients / running - 1.0, 0.0)
    behind_s = np.maximum(outputs - 1.0 - late, 0.0) * LEAST_GAP * decode_s
    ttft_s = _before_the_end(ttft_s, e2e_s, outputs, behind_s=behind_s, soonest_s=request_s + alone.total_s)
    return ServedLoad(
        concurrency=clients,
        running=running,
        fits=concurrency_that_fits(setup, request),
        output_tokens=outputs,
        ttft_s=ttft_s,
        tpot_s=_tpot_s(e2e_s, ttft_s, outputs),
        decode=decode,
        cycle=cycle,
        first=alone,
        at_the_door_s=at_the_door_s,
    )


def _before_the_end(
    ttft_s: Numeric, e2e_s: Numeric, output_tokens: Numeric, *, behind_s: Numeric, soonest_s: Numeric
) -> Numeric:
    """TTFT, so long before E2E as other tokens take at least, but no sooner than of a client alone; of one token E2E."""
    latest_s = np.maximum(e2e_s - behind_s, np.minimum(soonest_s, e2e_s))
    return np.where(np.asarray(output_tokens) > 1.0, np.minimum(ttft_s, latest_s), e2e_s)


def _at_the_door_s(setup: ServingSetup, request: Request, *, online: bool) -> Mapping[str, Numeric]:
    """What a request takes through the server, or within the engine alone, by numbers of the host."""
    host, scale = setup.engine.host, setup.cluster.host_scale
    if online:
        return {"request_s": scale * host.request_s, "token_s": scale * host.token_s * request.input_tokens}
    return {"admission_s": scale * host.admission_s}


def _tpot_s(e2e_s: Numeric, ttft_s: Numeric, output_tokens: Numeric) -> Numeric:
    """What is left of E2E after the first token, over the others; nothing where there are none."""
    others = np.asarray(output_tokens) - 1.0
    return np.where(others > 0, (e2e_s - ttft_s) / np.maximum(others, 1.0), 0.0)


def _prompts_together(setup: ServingSetup, request: Request, running: Numeric) -> Sequence[tuple[Numeric, Numeric]]:
    """Prompts that share a pass, each number with the share of such passes that have it.

    B/O come in one decode pass on average, 1 at least where one comes, and no more than its tokens hold. A pass has a whole
    number of them, the one below that mean or the one above it; but where tokens are the limit, the last of them may be cut.
    """
    most = _most_together(setup, request, running)
    outputs = np.asarray(request.output_tokens, dtype=float)
    least = np.minimum(setup.attention_replicas, running) if setup.engine.schedule.balances else 1.0
    mean = np.clip(running / np.maximum(outputs, 1.0), least, most)
    below = np.where(mean < most, np.floor(mean), mean)
    if np.all(below == mean):
        return ((1.0, mean),)
    above = np.minimum(below + 1.0, most)
    more = (mean - below) / np.where(above > below, above - below, 1.0)
    return ((1.0 - more, below), (more, above))


def _tokens_of_prompts(setup: ServingSetup, request: Request, running: Numeric) -> Numeric:
    """Tokens of prompts that a pass holds: of all replicas, without those of the sequences that decode in it.

    Those are B * (O - 1)/O, or where prompts outnumber passes O - 1 for each prompt that a pass holds.
    """
    most = np.asarray(setup.attention_replicas * setup.engine.schedule.chunk_tokens, dtype=float)
    if not setup.engine.schedule.mixes:
        return most
    outputs = np.asarray(request.output_tokens, dtype=float)
    decoding = np.maximum(outputs - 1.0, 0.0) * np.minimum(running / np.maximum(outputs, 1.0), most / request.input_tokens)
    left: Numeric = np.maximum(most - decoding, LEAST_READ * most)
    return left


def _most_together(setup: ServingSetup, request: Request, running: Numeric) -> Numeric:
    """Prompts that a pass holds; one that is longer than a pass counts as one."""
    most: Numeric = np.maximum(_tokens_of_prompts(setup, request, running) / request.input_tokens, setup.attention_replicas)
    return most


def _further_s(setup: ServingSetup, request: Request, running: Numeric, decode: PassTime, full: PassTime) -> Numeric:
    """What each prompt of a pass `full` of them adds to it."""
    rest_s = decode.total_s if setup.engine.schedule.mixes else 0.0
    return np.maximum(full.total_s - rest_s, 0.0) / np.minimum(_most_together(setup, request, running), running)


def _passes(
    setup: ServingSetup, request: Request, running: Numeric, numbers: Sequence[tuple[Numeric, Numeric]]
) -> Iterator[ForwardPass]:
    """A decode pass, one of a prompt alone, one full of prompts, alone and beside; for each number of prompts one with so many.

    Engines that mix decode beside all but the prompt alone; for each number they have a pass of prompts alone, too.
    """
    decode, mixes = ForwardPass(sequences=running, context=request.mean_context), setup.engine.schedule.mixes
    most = np.minimum(_most_together(setup, request, running), running)
    full = {"prompts": most, "prompt_tokens": request.input_tokens}
    yield decode
    yield ForwardPass(prompts=1.0, prompt_tokens=request.input_tokens)
    yield ForwardPass(**full)
    yield replace(decode, **full) if mixes else ForwardPass(**full)
    for _, together in numbers:
        yield ForwardPass(prompts=together, prompt_tokens=request.input_tokens)
        if mixes:
            yield replace(decode, prompts=together, prompt_tokens=request.input_tokens)


def _decode_passes(
    setup: ServingSetup, running: Numeric, output_tokens: Numeric, numbers: Sequence[tuple[Numeric, Numeric]]
) -> Numeric:
    """Passes in the life of a request that would run without prompts: O - 1, in which its own sequence decodes.

    Where prompts ride, its own does so in one more, unless more passes read prompts than O, of which the last are alone.
    """
    decoding = np.maximum(output_tokens - 1.0, 0.0)
    if not setup.engine.schedule.mixes:
        return decoding
    reading = running / sum(share * together for share, together in numbers)
    return decoding + np.where(np.asarray(running) > 1.0, np.clip(output_tokens - reading, 0.0, 1.0), 0.0)


def _added_by_a_prompt(
    setup: ServingSetup,
    request: Request,
    running: Numeric,
    numbers: Sequence[tuple[Numeric, Numeric]],
    *,
    decode: PassTime,
    shared: Sequence[PassTime],
) -> PassTime:
    """p: what the passes that read prompts take beyond those that would run anyway, for each prompt.

    `shared` are the passes with each number of prompts: prompts alone and, with engines that mix, beside decoding sequences.

    Where prompts ride in decode passes, weights are read once for both; a sequence has O - 1 of these for the B prompts of its
    life, and prompts that find none left have passes of their own.
    """
    outputs = np.asarray(request.output_tokens, dtype=float)
    shares = [share for share, _ in numbers]
    passes = 1.0 / sum(share * together for share, together in numbers)
    if not setup.engine.schedule.mixes:
        return mixed((passes * share, each) for share, each in zip(shares, shared, strict=True))
    rides = np.where(
        running > 1.0, np.minimum(passes, (outputs - 1.0) / running), 0.0
    )  # a prompt alone has nobody to ride with
    alone = [((passes - rides) * share, each) for share, each in zip(shares, shared[::2], strict=True)]
    both = [(rides * share, each) for share, each in zip(shares, shared[1::2], strict=True)]
    return mixed((*alone, *both, (-rides, decode)))


def static_batch(setup: ServingSetup, request: Request, batch: Numeric) -> ServedLoad:
    """A batch that starts and ends together: prompts in as few passes as their tokens allow, then O decode passes.

    What does not fit waits for what runs.
    """
    every = np.asarray(batch, dtype=float)
    running = np.maximum(np.minimum(every, most_running(setup, request)), 1.0)
    outputs = np.asarray(request.output_tokens, dtype=float)
    together = np.minimum(running, np.maximum(np.floor(setup.engine.schedule.chunk_tokens / request.input_tokens), 1.0))
    reads = ForwardPass(prompts=together, prompt_tokens=request.input_tokens)
    prompts, decode = pass_times(setup, [reads, ForwardPass(sequences=running, context=request.mean_context)])
    reading = mixed(((running / together, prompts),))
    cycle = mixed(((1.0, reading), (np.maximum(outputs - 1.0, 0.0), decode)))
    rounds = np.maximum(every / running, 1.0)
    ttft_s = reading.total_s * rounds
    e2e_s = cycle.total_s * rounds
    return ServedLoad(
        concurrency=every,
        running=running,
        fits=concurrency_that_fits(setup, request),
        output_tokens=outputs,
        ttft_s=ttft_s,
        tpot_s=_tpot_s(e2e_s, ttft_s, outputs),
        decode=decode,
        cycle=cycle,
        first=reading,
        at_the_door_s={},
    )
