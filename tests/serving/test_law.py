"""TTFT, TPOT and throughput of a server, in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.light_dataclass import replace
from perfmodel.serving.law import ServedLoad, _most_together, most_running, served_load, static_batch
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import pass_time

REQUEST = Request(input_tokens=1000, output_tokens=500)


def llama(engine: Any = "vllm", **settings: Any) -> ServingSetup:
    """Llama-3.1-8B on one H100."""
    return serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", engine=engine, **settings)


def test_one_client_sees_its_own_prompt_and_passes() -> None:
    """E2E = r + P + (O - 1) * D without any queue."""
    setup = llama()
    prompt = pass_time(setup, ForwardPass(prompts=1, prompt_tokens=1000)).total_s
    decode = pass_time(setup, ForwardPass(sequences=1, context=1250)).total_s
    load = served_load(setup, REQUEST, 1)
    before_s = at_the_door_s(setup)
    assert load.ttft_s == pytest.approx(before_s + prompt)
    assert load.tpot_s == pytest.approx(decode)
    assert load.e2e_s == pytest.approx(before_s + prompt + 499 * decode)


def at_the_door_s(setup: ServingSetup) -> float:
    """r + 1,000 tokens of a prompt."""
    return float(setup.engine.host.request_s + 1000 * setup.engine.host.token_s)


def test_a_longer_prompt_is_longer_on_its_way_into_the_engine() -> None:
    """By its tokens times token_s through a server, and by nothing without one."""
    setup = llama()
    slow = replace(setup, engine=with_numbers(setup.engine, {"host": with_numbers(setup.engine.host, {"token_s": 1e-3})}))
    for online, seconds in ((True, 1000 * (1e-3 - float(setup.engine.host.token_s))), (False, 0.0)):
        later, plain = (served_load(each, REQUEST, 1, online=online) for each in (slow, setup))
        assert later.ttft_s - plain.ttft_s == pytest.approx(seconds)


@pytest.mark.parametrize(("online", "names"), [(True, ("request_s", "token_s")), (False, ("admission_s",))])
def test_a_slower_cpu_takes_a_request_longer_to_let_in(online: bool, names: tuple[str, ...]) -> None:
    """A prompt in CUDA graphs, whose launches hide, waits for nothing else of it."""
    setup = llama()
    slow = replace(setup, cluster=with_numbers(setup.cluster, {"host_scale": 1.5}))
    plain, later = (served_load(each, Request(input_tokens=200, output_tokens=500), 1, online=online) for each in (setup, slow))
    assert tuple(plain.at_the_door_s) == names
    assert later.ttft_s - plain.ttft_s == pytest.approx(0.5 * sum(map(float, plain.at_the_door_s.values())))


def test_answers_are_written_by_the_cpu_too() -> None:
    """A step of one token of 8 sequences is 8 * answer_s longer, and that much more on a slower one."""
    setup = llama()
    host = with_numbers(setup.engine.host, {"answer_s": 1e-3})
    setup = replace(setup, engine=with_numbers(setup.engine, {"host": host}))
    slow = replace(setup, cluster=with_numbers(setup.cluster, {"host_scale": 1.5}))
    plain, later = (served_load(each, REQUEST, 8).cycle.host_s for each in (setup, slow))
    assert later - plain == pytest.approx(0.5 * 8 * 500 * 1e-3, rel=0.02)


def test_requests_that_come_at_once_pass_one_door() -> None:
    """The middle one of 65 waits for 32, in one of ten rounds; with many doors for none, however long each of them takes."""
    setup = llama()
    slow = with_numbers(setup.engine.host, {"request_s": 1.0})
    many = replace(slow, one_door=False)
    one, other = (
        served_load(replace(setup, engine=with_numbers(setup.engine, {"host": host})), REQUEST, 65, waves=10.0)
        for host in (slow, many)
    )
    plain = served_load(replace(setup, engine=with_numbers(setup.engine, {"host": many})), REQUEST, 65)
    door_s = at_the_door_s(replace(setup, engine=with_numbers(setup.engine, {"host": slow})))
    waited_s = 32 * door_s / 10
    assert one.ttft_s - plain.ttft_s == pytest.approx(waited_s + (plain.first.total_s + door_s - plain.ttft_s) / 10)
    assert one.e2e_s - other.e2e_s == pytest.approx(waited_s - (other.ttft_s - plain.ttft_s), rel=0.1)


def test_tokens_of_decoding_sequences_leave_prompts_less_room() -> None:
    """Prompts of 1,000 tokens in passes of 4,096: 3.1 beside 1,000 sequences, all 4.1 beside none of more than a token.

    Where 4.1 prompts a pass of two tokens are all that passes hold, as many sequences decode; an eighth is left at least.
    """
    vllm, sglang = (
        with_numbers(each, {"schedule": with_numbers(each.schedule, {"chunk_tokens": 4096, "max_sequences": 4000})})
        for each in (engine_preset("vllm"), engine_preset("sglang"))
    )
    of_one, of_two = (Request(input_tokens=1000, output_tokens=each) for each in (1, 2))
    assert _most_together(llama(vllm), REQUEST, 1000) == pytest.approx((4096 - 1000 * 499 / 500) / 1000)
    assert _most_together(llama(sglang), REQUEST, 1000) == _most_together(llama(vllm), of_one, 4000) == pytest.approx(4.096)
    assert _most_together(llama(vllm), of_two, 4000) == pytest.approx((4096 - 4.096) / 1000)
    assert _most_together(llama(vllm), Request(input_tokens=200, output_tokens=900), 4090) == pytest.approx(4096 / 8 / 200)


def test_prompts_that_are_held_back_hold_up_all_of_a_request() -> None:
    """By as long as their first token comes later; waited for are as many prompts as the share of a pass holds."""
    trtllm = engine_preset("trtllm")
    settings: dict[str, Any] = {"gpu": "h200-sxm-141gb", "precision": "fp8", "tensor_parallel": 8, "expert_parallel": 8}

    def load(replicas: int = 8, **schedule: Any) -> ServedLoad:
        engine = with_numbers(trtllm, {"schedule": replace(with_numbers(trtllm.schedule, schedule), balances=True)})
        return served_load(serving_setup("deepseek-v3", engine=engine, attention_replicas=replicas, **settings), REQUEST, 64)

    plain, held = load(balance_passes=0), load()
    assert held.ttft_s - plain.ttft_s == pytest.approx(held.e2e_s - plain.e2e_s) != 0.0
    assert load(wait_passes=40, wait_share=0.5).e2e_s == held.e2e_s
    plain, more = load(1), load(1, wait_passes=40, wait_share=0.5)
    assert load(1, wait_passes=40, wait_share=1064 / 8192).e2e_s == pytest.approx(float(plain.e2e_s))
    assert more.ttft_s - plain.ttft_s == pytest.approx(more.e2e_s - plain.e2e_s) != 0.0


def test_replicas_that_wait_for_each_other_read_prompts_side_by_side() -> None:
    """Of 8 replicas each reads a prompt where one of them would; without that seven wait for one, and prompts cost more.

    A balanced pass of 8 prompts costs a sequence no more than 8 passes of one, in each of which one replica reads.
    """
    settings: dict[str, Any] = {
        "gpu": "h200-sxm-141gb",
        "precision": "fp8",
        "tensor_parallel": 8,
        "attention_replicas": 8,
        "expert_parallel": 8,
    }
    trtllm = engine_preset("trtllm")
    balanced = with_numbers(trtllm, {"schedule": with_numbers(trtllm.schedule, {"balances": True})})
    request = Request(input_tokens=4000, output_tokens=1000)
    alone, together = (
        served_load(serving_setup("qwen3-235b-a22b", engine=engine, **settings), request, 64) for engine in (trtllm, balanced)
    )
    assert 1.1 * together.cycle.compute_s < alone.cycle.compute_s
    one = [served_load(llama(engine), request, 64).e2e_s for engine in (trtllm, balanced)]
    assert one[0] == pytest.approx(one[1])


def test_tokens_that_leave_late_wait_for_another_pass() -> None:
    """vLLM 0.6 hands the first token on with the outputs of the second pass; E2E stays, and so does an answer of one token."""
    late = engine_preset("vllm-2024-09")
    at_once = with_numbers(late, {"host": with_numbers(late.host, {"late": False})})
    setup = llama(late)
    decode = pass_time(setup, ForwardPass(sequences=1, context=1250)).total_s
    waiting, plain = (served_load(llama(engine), REQUEST, 1) for engine in (late, at_once))
    assert waiting.ttft_s - plain.ttft_s == pytest.approx(decode)
    assert waiting.e2e_s == pytest.approx(plain.e2e_s)
    one = Request(input_tokens=1000, output_tokens=1)
    assert served_load(setup, one, 1).ttft_s == pytest.approx(served_load(llama(at_once), one, 1).ttft_s)


def test_requests_wait_for_the_next_look() -> None:
    """Behind 11 passes between two looks a request waits for 5 on average, but at once where nobody decodes.

    First tokens wait for the prompts that come in the same 11 passes as well, 7 * 10 / 500 more on average, which share theirs.
    """
    sglang = engine_preset("sglang")
    rarely = with_numbers(sglang, {"schedule": with_numbers(sglang.schedule, {"receive_passes": 11})})
    decode = pass_time(llama(sglang), ForwardPass(sequences=8, context=1250)).total_s
    one, eight = (pass_time(llama(sglang), ForwardPass(prompts=each, prompt_tokens=1000)).total_s for each in (1, 8))
    for clients, passes in ((1, 0), (8, 5)):
        waiting, plain = (served_load(llama(engine), REQUEST, clients) for engine in (rarely, sglang))
        shared_s = 7 * 10 / 500 * (eight - one) / 7 if clients > 1 else 0.0
        assert waiting.ttft_s - plain.ttft_s == pytest.approx(passes * decode + shared_s, abs=1e-12)
        assert waiting.e2e_s - plain.e2e_s == pytest.approx(passes * decode, abs=1e-12)


def test_end_to_end_is_ttft_and_the_other_tokens() -> None:
    """TTFT + (O - 1) * TPOT, at every concurrency."""
    load = served_load(llama(), REQUEST, np.array([1.0, 8.0, 64.0, 4096.0]), waves=10)
    assert load.e2e_s == pytest.approx(load.ttft_s + 499 * load.tpot_s)
    assert load.tokens_per_s == pytest.approx(load.concurrency * 500 / load.e2e_s)


def test_throughput_and_latency_both_grow_with_clients() -> None:
    """The curve rises: more clients, more tokens a second, fewer for each of them."""
    load = served_load(llama(), REQUEST, 2.0 ** np.arange(9))
    assert np.all(np.diff(load.tokens_per_s) > 0)
    assert np.all(np.diff(load.tpot_s) > 0)
    assert np.all(np.diff(load.ttft_s) > 0)


def test_past_the_cache_clients_wait_and_throughput_stays() -> None:
    """Twice as many clients as fit: the same tokens a second, E2E twice as long, all of it in TTFT."""
    setup = llama()
    most = float(most_running(setup, REQUEST))
    load = served_load(setup, REQUEST, np.array([most, 2 * most]))
    request_s = at_the_door_s(setup)
    queued, e2e_s, tpot_s = (np.asarray(each) for each in (load.is_queued, load.e2e_s, load.tpot_s))
    assert queued.tolist() == [False, True]
    assert (e2e_s[1] - request_s) / (e2e_s[0] - request_s) == pytest.approx(2)
    assert tpot_s[1] == pytest.approx(tpot_s[0])


def test_a_server_has_a_place_for_one_at_least() -> None:
    """What does not fit at all is still timed as one sequence."""
    assert served_load(serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb"), REQUEST, 8).running == 1


def test_equal_answers_keep_prompts_in_step_where_they_have_passes_of_their_own() -> None:
    """SGLang with answers of one length: TTFT is half of all prompts' time, 8.192 share a pass; far less with others."""
    setup = llama("sglang")
    together, apart = (served_load(setup, REQUEST, 64, length_spread=spread) for spread in (0.0, 1.0))
    full_s = pass_time(setup, ForwardPass(prompts=8.192, prompt_tokens=1000)).total_s
    assert together.ttft_s == pytest.approx(setup.engine.host.request_s + (64 / 8.192 + 1) / 2 * full_s)
    assert apart.ttft_s < 0.3 * together.ttft_s
    assert apart.e2e_s == pytest.approx(together.e2e_s)


def test_a_burst_of_clients_weighs_on_its_own_round_alone() -> None:
    """With more rounds, the first one's queue counts less."""
    first, tenth = (served_load(llama(), REQUEST, 128, waves=waves).ttft_s for waves in (1, 10))
    steady = served_load(llama(), REQUEST, 128).ttft_s
    assert steady < tenth < first
    assert tenth - steady == pytest.approx((first - steady) / 10)


def test_a_static_batch_reads_its_prompts_then_decodes() -> None:
    """E2E = all prompts + (O - 1) * D."""
    setup = llama()
    load = static_batch(setup, REQUEST, 16)
    decode = pass_time(setup, ForwardPass(sequences=16, context=1250)).total_s
    assert load.e2e_s - load.ttft_s == pytest.approx(499 * decode)


def test_a_process_that_streams_bounds_fast_servers() -> None:
    """TensorRT-LLM's server hands on one token of each sequence in 108 us."""
    engine = engine_preset("trtllm")
    slow = with_numbers(engine, {"host": with_numbers(engine.host, {"stream_s": 1e-3})})
    load = served_load(llama(slow), REQUEST, 128)
    assert load.cycle.total_s == pytest.approx(500 * 128 * 1e-3)


def test_answers_that_are_written_between_passes_are_added_to_them() -> None:
    """A token of each sequence in each of O passes, of a server alone; then what they wait for a process beside is less."""
    engine = engine_preset("trtllm")
    quiet, loud = (
        with_numbers(engine, {"host": with_numbers(engine.host, {"stream_s": 0.0, "answer_s": each})}) for each in (0.0, 1e-4)
    )
    for online, times in ((True, 1), (False, 0)):
        loads = [served_load(llama(each), REQUEST, 16, online=online) for each in (quiet, loud)]
        assert loads[1].cycle.total_s - loads[0].cycle.total_s == pytest.approx(times * 500 * 16 * 1e-4)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm", "transformers"])
@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (5000, 20), (1000, 1000)])
def test_prompts_ride_in_no_more_passes_than_there_are(engine: str, prompt: int, output: int) -> None:
    """No part of a request's life is less than nothing, however many prompts come in it; prompts left over go alone."""
    load = served_load(llama(engine), Request(input_tokens=prompt, output_tokens=output), np.array([1.0, 20.0, 400.0]))
    assert all(np.all(np.asarray(part) >= 0) for part in load.cycle.parts().values())
    assert np.all(np.diff(load.cycle.total_s) >= -1e-12)  # passes that launches bound take as long


def test_the_first_of_one_token_is_the_last() -> None:
    """TTFT is E2E, there is no time between tokens, and throughput is that of the prompts alone."""
    load = served_load(llama(), Request(input_tokens=1000, output_tokens=1), np.array([1.0, 8.0, 4096.0]))
    assert np.asarray(load.tpot_s).tolist() == [0, 0, 0]
    assert np.asarray(load.ttft_s) == pytest.approx(load.e2e_s)
    assert load.tokens_per_s == pytest.approx(load.concurrency / load.e2e_s)


@pytest.mark.parametrize("engine", ["vllm", "trtllm", "vllm-2025"])
def test_no_token_takes_longer_than_a_pass_full_of_prompts(engine: str) -> None:
    """Long prompts of many clients and short answers: they wait for their first token, and then as long as any pass takes."""
    setup, request = llama(engine), Request(input_tokens=8000, output_tokens=10)
    load = served_load(setup, request, np.array([16.0, 64.0, 256.0]))
    tokens = float(setup.engine.schedule.chunk_tokens / 8000)
    full = pass_time(setup, ForwardPass(sequences=load.running, context=8005.0, prompts=tokens, prompt_tokens=8000.0))
    assert np.all(load.tpot_s <= full.total_s)
    assert np.all(np.diff(load.ttft_s) > 0)


def test_the_second_of_two_tokens_comes_behind_the_first() -> None:
    """By half a decode pass at least, whatever was waited for; the first no sooner than to a client alone."""
    load, alone = (served_load(llama(), Request(input_tokens=2048, output_tokens=2), n) for n in (np.arange(2.0, 40.0), 1.0))
    assert np.all(load.tpot_s >= 0.5 * load.decode.total_s * (1 - 1e-9))
    assert np.all(load.ttft_s >= alone.ttft_s)


@pytest.mark.parametrize(("engine", "more"), [("vllm", 1), ("sglang", 0)])
@pytest.mark.parametrize("clients", [2, 8])
def test_a_prompt_that_rides_has_a_pass_of_its_own_sequence(engine: str, more: int, clients: int) -> None:
    """O*D + B*p, for in the pass that reads it others decode; where prompts have passes of their own (O - 1)*D + B*p."""
    setup, request = llama(engine), Request(input_tokens=100, output_tokens=10)
    decoding = ForwardPass(sequences=clients, context=request.mean_context)
    decode = pass_time(setup, decoding).total_s
    reading = replace(decoding, prompts=1, prompt_tokens=100) if more else ForwardPass(prompts=1, prompt_tokens=100)
    read = pass_time(setup, reading).total_s - more * decode
    assert served_load(setup, request, clients).cycle.total_s == pytest.approx((9 + more) * decode + clients * read)


def test_no_second_client_makes_answers_faster() -> None:
    """However short they are: two prompts take their passes, and ten tokens of each."""
    load = served_load(llama(), Request(input_tokens=100, output_tokens=10), np.array([1.0, 2.0]))
    assert np.all(np.diff(load.e2e_s) > 0)


def test_a_first_token_that_leaves_late_may_come_with_the_second() -> None:
    """The least gap between tokens is of those behind it: none of two, where a first token waits for the second."""
    engine = engine_preset("vllm")
    late = with_numbers(engine, {"host": with_numbers(engine.host, {"late": True})})
    load = served_load(llama(late), Request(input_tokens=500, output_tokens=2), 2)
    assert load.tpot_s == pytest.approx(0, abs=1e-12)
    assert served_load(llama(late), Request(input_tokens=500, output_tokens=3), 2).tpot_s > 0


def test_passes_have_whole_numbers_of_prompts() -> None:
    """B/O = 2.5: half of the passes read 2 prompts and half 3, beside a decode pass each; 3 of whole passes where B/O is 3."""
    setup = llama()
    for clients, outputs, counts in ((250, 100, (2, 3)), (300, 100, (3,))):
        request = Request(input_tokens=100, output_tokens=outputs)
        decoding = ForwardPass(sequences=clients, context=request.mean_context)
        decode = pass_time(setup, decoding).total_s
        both = [pass_time(setup, replace(decoding, prompts=each, prompt_tokens=100)).total_s for each in counts]
        only = [pass_time(setup, ForwardPass(prompts=each, prompt_tokens=100)).total_s for each in counts]
        rides = (outputs - 1) / outputs  # of each pass that reads prompts; one in O finds no decode pass left
        read = sum(rides * (with_s - decode) + (1 - rides) * alone_s for with_s, alone_s in zip(both, only, strict=True))
        load = served_load(setup, request, clients)
        assert load.cycle.total_s == pytest.approx((outputs - 1) * decode + outputs * read / len(counts))
