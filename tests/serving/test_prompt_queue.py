"""How long prompts wait for their first tokens: closed forms against passes that are simulated one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from perfmodel.exchange.questions.serving.served_models import engine_preset
from perfmodel.light_dataclass import replace
from perfmodel.serving.prompt_queue import PromptQueue
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.engine import EngineSchedule

PROMPT_S, DECODE_S, REQUEST_S = 0.1, 0.02, 0.005


def schedule(**settings: Any) -> EngineSchedule:
    """An engine's schedule with some of its numbers."""
    return replace(engine_preset("vllm").schedule, **({"overlaps": False} | settings))


def queue(clients: Numeric, together: float, plan: EngineSchedule, **numbers: Any) -> PromptQueue:
    """Prompts of 0.1 s, decode passes of 20 ms, answers of 200 tokens of one length."""
    plain: dict[str, Any] = {"alone_s": PROMPT_S, "prompt_s": PROMPT_S, "further_s": PROMPT_S}
    full_s = PROMPT_S * np.minimum(np.maximum(together, 1.0), clients)
    plain |= {"decode_s": DECODE_S, "output_tokens": 200.0, "full_s": full_s, "beside_s": full_s + DECODE_S}
    plain |= {"length_spread": 0.0, "waves": 10.0}
    return PromptQueue(schedule=plan, running=clients, together=together, **(plain | numbers))


def simulated_s(
    clients: int,
    together: int,
    plan: EngineSchedule,
    *,
    rounds: int,
    decode_s: Callable[[int], float],
    outputs: Callable[[], int],
    prompts_s: Callable[[int], float] = lambda reads: reads * PROMPT_S,
) -> np.ndarray:
    """First tokens of `rounds` requests a client, in order, pass by pass; clients ask again REQUEST_S after their last.

    Answers of `outputs` have two tokens at least.
    """
    now = seen = 0.0
    asked = [(0.0, 0.0)] * clients  # when the engine has a request, when its client sent it
    waiting: deque[float] = deque()
    left: list[int] = []
    found: list[float] = []
    while len(found) < clients * rounds:
        until = seen if plan.overlaps else now
        waiting.extend(sent for at, sent in asked if at <= until)
        asked = [each for each in asked if each[0] > until]
        seen = now
        reads = min(together, len(waiting))
        decodes = 0 if reads and not plan.mixes else len(left)
        if not reads and not decodes:
            now = seen = min(at for at, _ in asked)
            continue
        now += prompts_s(reads) + (decode_s(decodes) if decodes else 0.0)
        if decodes:
            left = [each - 1 for each in left]
            asked += [(now + REQUEST_S, now)] * left.count(0)
            left = [each for each in left if each]
        found += [now - waiting.popleft() for _ in range(reads)]
        left += [outputs() - 1 for _ in range(reads)]
    return np.array(found)


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("clients", "together"), [(8, 2), (12, 3), (16, 1), (4, 4)])
def test_answers_of_one_length_keep_prompts_in_step(overlaps: bool, clients: int, together: int) -> None:
    """Group behind group, each waits for the pass of the one before: the mean of every later round, to the last digit."""
    plan = schedule(overlaps=overlaps)
    every = simulated_s(clients, together, plan, rounds=6, decode_s=lambda _: DECODE_S, outputs=lambda: 200)
    expected = REQUEST_S + queue(clients, together, plan).in_step_s(REQUEST_S)
    assert every[2 * clients :].mean() == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize(("clients", "together"), [(8, 2), (12, 3), (16, 1), (4, 4)])
@pytest.mark.parametrize("mixes", [False, True])
def test_a_burst_is_read_pass_by_pass(mixes: bool, clients: int, together: int) -> None:
    """The first round, whose later passes also decode for those that are read, where engines mix."""
    plan = schedule(mixes=mixes)
    every = simulated_s(clients, together, plan, rounds=1, decode_s=lambda n: DECODE_S * n / clients, outputs=lambda: 200)
    assert every.mean() == pytest.approx(float(queue(clients, together, plan).burst_s), rel=1e-9)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize(("clients", "together"), [(8, 2), (12, 3), (16, 16), (4, 8)])
def test_prompts_of_a_burst_share_what_passes_cost_once(mixes: bool, clients: int, together: int) -> None:
    """A pass of one takes 60 ms, and each more prompt 10: not as long for each as where one comes alone."""
    plan = schedule(mixes=mixes)
    every = simulated_s(
        clients,
        together,
        plan,
        rounds=1,
        decode_s=lambda n: DECODE_S * n / clients,
        outputs=lambda: 200,
        prompts_s=lambda reads: 0.05 + 0.01 * reads,
    )
    full_s = 0.05 + 0.01 * min(together, clients)
    times = {"alone_s": 0.06, "prompt_s": 0.06, "further_s": 0.01, "full_s": full_s, "beside_s": full_s + DECODE_S}
    assert every.mean() == pytest.approx(float(queue(clients, together, plan, **times).burst_s), rel=1e-9)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("clients", "together"), [(4, 8), (16, 2), (48, 4), (96, 8)])
@pytest.mark.parametrize(("first_s", "each_s"), [(0.0, 0.1), (0.05, 0.01), (0.002, 0.03)])
def test_prompts_of_early_rounds_come_in_clumps(
    mixes: bool, overlaps: bool, clients: int, together: int, first_s: float, each_s: float
) -> None:
    """Answers of 160 to 200 tokens that began together, over ten rounds, the first of which waits for all of itself."""
    plan, random = schedule(mixes=mixes, overlaps=overlaps), np.random.default_rng(0)
    most = min(together, clients)
    every = [
        simulated_s(
            clients,
            together,
            plan,
            rounds=10,
            decode_s=lambda n: DECODE_S * n / clients,
            outputs=lambda: int(random.integers(160, 201)),
            prompts_s=lambda reads: (first_s if reads else 0.0) + reads * each_s,
        ).mean()
        for _ in range(4)
    ]
    full_s = first_s + most * each_s
    times = {"alone_s": first_s + each_s, "prompt_s": first_s + each_s, "further_s": first_s / most + each_s}
    times |= {"full_s": full_s, "beside_s": full_s + DECODE_S, "output_tokens": 180.0, "length_spread": 0.2}
    law = queue(clients, together, plan, **times)
    found = float(REQUEST_S + law.first_token_s(REQUEST_S))
    assert found == pytest.approx(float(np.mean(every)), rel=0.14)


def test_a_server_that_lets_in_slowly_is_waited_for() -> None:
    """In the first round, where reading takes less: 31.5 of 63 seconds for the middle one of 64, and its own pass."""
    plain, slow, quick = (queue(64, 64, schedule(), door_s=each, waves=4.0) for each in (0.0, 1.0, 1e-9))
    steady_s = queue(64, 64, schedule(), waves=np.inf).first_token_s(0.0)
    assert slow.first_token_s(0.0) == pytest.approx((31.5 + PROMPT_S + 3.0 * float(steady_s)) / 4.0)
    assert slow.idle_s == pytest.approx((31.5 - float(slow.burst_s)) / 4.0)
    assert quick.first_token_s(0.0) == pytest.approx(float(plain.first_token_s(0.0)))
    assert quick.idle_s == plain.idle_s == 0.0


@pytest.mark.parametrize("overlaps", [False, True])
def test_prompts_of_their_own_passes_wait_for_all_that_end_with_them(overlaps: bool) -> None:
    """All answers end at once, so that every round is read like the first one, one prompt alone before the others are there."""
    plan = schedule(mixes=False, overlaps=overlaps)
    every = simulated_s(16, 2, plan, rounds=5, decode_s=lambda _: DECODE_S, outputs=lambda: 200)
    expected = REQUEST_S + queue(16, 2, plan).first_token_s(REQUEST_S)
    assert every[16:].mean() == pytest.approx(float(expected), rel=0.03)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize("clients", [4, 16, 48])
def test_answers_of_any_length_bring_prompts_at_random(mixes: bool, overlaps: bool, clients: int) -> None:
    """Half a pass and the queue, on average over many rounds."""
    plan, random = schedule(mixes=mixes, overlaps=overlaps), np.random.default_rng(0)
    every = simulated_s(clients, 4, plan, rounds=40, decode_s=lambda _: DECODE_S, outputs=lambda: int(random.integers(2, 400)))
    steady = queue(clients, 4, plan, length_spread=1.0, waves=np.inf)
    assert every[20 * clients :].mean() == pytest.approx(float(REQUEST_S + steady.first_token_s(REQUEST_S)), rel=0.25)


@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("clients", "together", "tokens"), [(48, 1, 5), (200, 4, 20), (200, 1, 100), (200, 4, 2)])
def test_more_prompts_than_passes_hold_wait_as_littles_law_says(
    spread: float, overlaps: bool, clients: int, together: int, tokens: int
) -> None:
    """Of a life of B/g passes all but those of its other tokens, however its answers end; forecasts once gave two passes."""
    plan, random = schedule(overlaps=overlaps), np.random.default_rng(0)
    outputs = {0.0: lambda: tokens, 1.0: lambda: int(random.integers(2, max(2 * tokens - 1, 3)))}[spread]
    every = simulated_s(
        clients, together, plan, rounds=40, decode_s=lambda running: DECODE_S * running / clients, outputs=outputs
    )
    law = queue(clients, together, plan, output_tokens=float(tokens), length_spread=spread, waves=np.inf)
    found = float(REQUEST_S + law.first_token_s(REQUEST_S))
    assert found == pytest.approx(every[15 * clients :].mean(), rel=0.01 if not spread else 0.05)


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("clients", "together"), [(48, 1), (200, 1), (200, 4)])
@pytest.mark.parametrize("share", [0.5, 0.8, 0.9, 1.0, 1.1])
def test_prompts_about_as_many_as_places_queue_for_them(overlaps: bool, clients: int, together: int, share: float) -> None:
    """Answers so short that B prompts take a share of the places of a life; a law of work alone was up to nine times off."""
    plan, random, tokens = schedule(overlaps=overlaps), np.random.default_rng(0), round(clients / together / share)
    every = simulated_s(
        clients,
        together,
        plan,
        rounds=60,
        decode_s=lambda running: DECODE_S * running / clients,
        outputs=lambda: int(random.integers(2, 2 * tokens - 1)),
    )
    law = queue(clients, together, plan, output_tokens=float(tokens), length_spread=1.0, waves=np.inf)
    found = float(REQUEST_S + law.first_token_s(REQUEST_S))
    assert found == pytest.approx(every[30 * clients :].mean(), rel=0.25)


@pytest.mark.parametrize("overlaps", [False, True])
@pytest.mark.parametrize(("first_s", "each_s"), [(0.0, 0.02), (0.05, 0.01), (0.05, 0.002), (0.01, 0.01)])
@pytest.mark.parametrize(("clients", "together"), [(4, 8), (16, 8), (96, 8), (200, 8), (200, 64)])
def test_prompts_that_come_meanwhile_share_a_pass(
    overlaps: bool, first_s: float, each_s: float, clients: int, together: int
) -> None:
    """Passes that read cost something once, and something a prompt: each waits for the running one and for all in its own."""
    plan, random, tokens = schedule(overlaps=overlaps), np.random.default_rng(0), 50
    every = simulated_s(
        clients,
        together,
        plan,
        rounds=60,
        decode_s=lambda _: DECODE_S,
        outputs=lambda: int(random.integers(2, 2 * tokens - 1)),
        prompts_s=lambda reads: (first_s if reads else 0.0) + reads * each_s,
    )
    mean, most = max(clients / tokens, 1.0), min(together, clients)
    prompt_s, further_s, alone_s = first_s / mean + each_s, first_s / most + each_s, first_s + each_s
    times = {"prompt_s": prompt_s, "further_s": further_s, "alone_s": alone_s, "output_tokens": float(tokens)}
    law = queue(clients, most, plan, length_spread=1.0, waves=np.inf, **times)
    found = float(REQUEST_S + law.first_token_s(REQUEST_S))
    assert found == pytest.approx(every[20 * clients :].mean(), rel=0.25)


def test_those_that_come_meanwhile_cost_what_one_more_prompt_adds() -> None:
    """Of 8 in a life of 7.5 + 0.5 passes of a second one comes in each: half a pass, a prompt, one more, and decoding."""
    law = queue(8, 100, schedule(), length_spread=1.0, waves=np.inf, output_tokens=7.5, decode_s=1.0, further_s=0.04)
    pass_s = (7.5 * 1.0 + 8 * PROMPT_S) / 8.0
    assert law.first_token_s(0.0) == pytest.approx(pass_s / 2 + PROMPT_S + 0.04 + 1.0, abs=1e-3)


def test_first_tokens_of_more_clients_come_no_sooner() -> None:
    """Where prompts come at random, from few places taken to many more than there are."""
    clients = np.arange(2.0, 3000.0)
    for overlaps in (False, True):
        for together in (0.5, 1.0, 4.0):
            law = queue(clients, together, schedule(overlaps=overlaps), output_tokens=100.0, length_spread=1.0, waves=np.inf)
            assert np.all(np.diff(law.first_token_s(0.0)) >= 0)


def test_one_client_waits_for_nobody() -> None:
    """Only for its own prompt, whatever the engine."""
    for plan in (schedule(), schedule(mixes=False), schedule(overlaps=True)):
        assert queue(1, 1, plan).first_token_s(REQUEST_S) == PROMPT_S


def test_a_prompt_of_several_passes_decodes_beside_each() -> None:
    """Half a prompt a pass: two passes of half a prompt and a decode pass are its own, one of the kind runs before."""
    full_s = PROMPT_S / 2.0 + DECODE_S
    waits_s = queue(1e6, 0.5, schedule()).in_step_s(0.0)
    assert waits_s == pytest.approx(2.0 * full_s + full_s, rel=1e-5)


def test_what_ends_farther_apart_than_a_look_is_not_waited_for() -> None:
    """W = O*s*sqrt(w/2), at most O: of 65 clients, 1 + 64 n/W come between two looks, all of them where W is within n."""
    plan = schedule(mixes=False, receive_passes=10)
    found = [
        float(queue(65, 1, plan, length_spread=spread, waves=waves).looked_at)
        for spread, waves in ((0.0, 10.0), (0.2, 8.0), (0.2, 50.0), (1.0, np.inf))
    ]
    assert found == pytest.approx([65.0, 1.0 + 64.0 * 10 / (200 * 0.2 * 2), 1.0 + 64.0 * 10 / 200, 1.0 + 64.0 * 10 / 200])


def test_prompts_of_a_round_come_within_answers_ends_and_the_first_passes() -> None:
    """W + B/g of a life of 200 passes: 80 + 32, all of it at most, and what they wait for with it."""
    clumped = queue(64, 2, schedule(), length_spread=0.2, waves=8.0)
    assert clumped.comes_within == pytest.approx(200 * 0.2 * 2 + 32)
    assert clumped.round_s == pytest.approx(112 * DECODE_S + 64 * PROMPT_S)
    assert queue(64, 2, schedule(), length_spread=1.0, waves=np.inf).comes_within == 200.0
    apart = queue(64, 2, schedule(), length_spread=1.0, waves=np.inf)
    assert clumped.at_random_s > apart.at_random_s


def test_prompts_wait_for_those_that_are_read_apart() -> None:
    """Of 17 that come within 200 passes and 5.7 s 1.6 s read: half a prompt in 28 % of cases, and who comes meanwhile."""
    found = queue(17, 1, schedule(mixes=False), length_spread=1.0, waves=np.inf)
    busy = 16 * PROMPT_S / (200 * DECODE_S + 17 * PROMPT_S)
    read_together = 1.0 + 16 / 200 + busy * 16 * PROMPT_S / 5.7
    expected = DECODE_S / 2 + busy * PROMPT_S / 2 + PROMPT_S * (read_together + 1.0) / 2.0
    assert expected > DECODE_S / 2 + PROMPT_S * busy / (2.0 * (1.0 - busy)) + PROMPT_S
    assert found.first_token_s(0.0) == pytest.approx(expected)


def test_prompts_that_take_most_of_the_time_are_read_one_behind_the_other() -> None:
    """32 prompts take 3.2 of 4.2 s, and wait as in a queue of fixed service; no longer than if all came at once."""
    plan, random = schedule(mixes=False), np.random.default_rng(0)
    every = simulated_s(32, 1, plan, rounds=60, decode_s=lambda _: DECODE_S, outputs=lambda: int(random.integers(2, 99)))
    busiest = queue(32, 1, plan, length_spread=1.0, waves=np.inf, output_tokens=50.0)
    assert busiest.first_token_s(0.0) == pytest.approx(every.mean() - REQUEST_S, rel=0.3)
    busy = 31 * PROMPT_S / 4.2
    assert busiest.first_token_s(0.0) == pytest.approx(DECODE_S / 2 + PROMPT_S * (1.0 + busy / (2.0 * (1.0 - busy))))
    assert queue(32, 1, plan, length_spread=1.0, waves=np.inf, output_tokens=2.0).first_token_s(0.0) < 32 * PROMPT_S


@pytest.mark.parametrize(("clients", "share"), [(4.0, 0.0), (8.0, 0.0), (12.0, 0.5), (16.0, 1.0)])
def test_replicas_hold_prompts_only_while_all_decode(clients: float, share: float) -> None:
    """A replica that has nothing to decode reads at once; of one token nobody decodes."""
    plan = schedule(balances=True, balance_passes=10)
    each = {"length_spread": 1.0, "waves": np.inf, "replicas": 8.0}
    found = queue(clients, 8, plan, **each)
    assert found.held_s == pytest.approx(5.0 * share * float(found.round_s) / 200.5)
    assert queue(clients, 0.01, plan, output_tokens=1.0, **each).held_s == 0.0


@pytest.mark.parametrize(
    ("clients", "passes"),
    [
        (16.0, 30.0),  # 8 * (1 + 1/2 + .. + 1/8) prompts come in 270 passes, the first 60 of which end without
        (400.0, 8 * 761 / 280 / (400 / 200.5) / 2 + 3.0),
    ],
)
def test_replicas_hold_prompts_until_each_has_one(clients: float, passes: float) -> None:
    """Half of the passes in which prompts at random reach all of eight, and three more; or half of sixty."""
    plan = schedule(balances=True, balance_passes=60, gather_passes=3)
    found, alone = (queue(clients, 8, plan, length_spread=1.0, waves=np.inf, replicas=each) for each in (8.0, 1.0))
    pass_s = found.round_s / 200.5
    assert found.held_s == pytest.approx(passes * pass_s, rel=1e-3)
    assert found.first_token_s(0.0) - alone.first_token_s(0.0) == pytest.approx(float(found.held_s))
    assert alone.held_s == 0.0
    in_step = queue(clients, 8, plan, length_spread=0.0, waves=np.inf, replicas=8.0)
    assert in_step.held_s == 0.0


@pytest.mark.parametrize(("waited_for", "passes"), [(1.0, 0.0), (5.0, 20.0), (100.0, 40.0)])
def test_prompts_wait_for_others_of_their_pass(waited_for: float, passes: float) -> None:
    """The first one for 4 more, which come in 20 passes, or for 40 at most; those that come meanwhile half as long."""
    plan = schedule(wait_passes=40)
    found = queue(40.1, 8, plan, length_spread=1.0, waves=np.inf, waited_for=waited_for)
    come = 40.1 / 200.5
    held = passes * (1.0 + come * passes / 2.0) / (1.0 + come * passes)
    assert found.held_s == pytest.approx(held * found.round_s / 200.5)
    assert queue(40.1, 8, schedule(mixes=False, wait_passes=40), length_spread=1.0, waves=np.inf, waited_for=5.0).held_s == 0.0


def test_the_first_round_counts_as_one_of_all() -> None:
    """Its queue beyond that of the others, over the number of rounds."""
    first, tenth, steady = (float(queue(64, 2, schedule(), waves=waves).first_token_s(0.0)) for waves in (1.0, 10.0, np.inf))
    assert first > tenth > steady
    assert tenth - steady == pytest.approx((first - steady) / 10.0)


def test_a_round_is_a_whole_number_of_passes() -> None:
    """Passes that hold 2.46 prompts each read 8 of them in four passes, as those do that hold 2."""
    assert queue(8, 2.46, schedule()).in_step_s(0.0) == pytest.approx(float(queue(8, 2, schedule()).in_step_s(0.0)))


def test_clients_that_ask_late_find_half_a_pass_left() -> None:
    """Behind an r of many passes they come at any time of one: three of four groups in full ones, one in a decode pass."""
    full_s = 2 * PROMPT_S + DECODE_S
    assert queue(8, 2, schedule()).in_step_s(9.0) == pytest.approx(full_s + 0.75 * full_s / 2 + 0.25 * DECODE_S / 2)
