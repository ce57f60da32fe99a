"""Is a plan the best that there is, does it say why, and does it know when there is none?"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict, predict_stage
from perfmodel.report.json.plan import run_documents
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.plan import Plan
from perfmodel.spec.layout import Layout
from perfmodel.timing.breakdown import PARTS
from tests.search.layouts.single_layouts import Alone
from tests.search.small_plans import every_layout, plain_plan, small_plan, small_question
from tests.setups import setup_of

SOME = {"recompute": "none,full"}
SLOW_RESTART = {"start_up_s": "1e7"}
FEW: dict[str, Any] = {"choose": {"recompute": "none", "context_parallel": 1, "sharding": "zero1"}}
PRICE = {"dollars_per_gpu_hour": 2}
GIBIBYTE = 2.0**30
HOPELESS = 1e-3


@cache
def one_by_one() -> tuple[tuple[Layout, Alone], ...]:
    """Every layout of the small model on four GPUs."""
    return tuple(every_layout(small_question(choose=SOME).question, 4))


# The best


@pytest.mark.slow
@pytest.mark.parametrize("left_free", [0.0, 0.85, 0.9, 0.92])
def test_it_is_the_best_of_all_one_by_one(left_free: float) -> None:
    """The fastest that fits, however much memory there is, with the same time to the last bit."""
    found = small_plan(choose=SOME, leave_free=left_free)
    limit = found.question.cluster.gpu.memory_bytes
    fitting = [each for each in one_by_one() if each[1].memory.total_bytes <= limit]
    assert found.best is not None
    assert found.best.iteration_time_s == min(each.iteration_time_s for _, each in fitting)
    assert found.best.memory_bytes <= limit
    pairs = {(each.iteration_time_s, float(each.memory.total_bytes)) for _, each in fitting}
    assert {(each.iteration_time_s, each.memory_bytes) for each in found.stages[0].front} <= pairs


@pytest.mark.slow
def test_a_layout_alone_is_what_is_predicted() -> None:
    """To the last bit: what the tests of plans and searches hold these against has the numbers of `predict_stage`."""
    work = small_question(choose=SOME).question.workloads(4)[0]
    for layout, each in one_by_one()[::25]:
        predicted = predict_stage(setup_of(work.model, layout, work.stack, cluster=work.cluster))
        assert (each.iteration_time_s, each.memory) == (predicted.iteration_time_s, predicted.memory)


@pytest.mark.slow
def test_every_layout_was_looked_at_once() -> None:
    """Sequence parallelism of one rank is nothing: with it and without are one layout."""
    different = [layout for layout, _ in one_by_one() if layout.tensor_parallel > 1 or not layout.sequence_parallel]
    assert small_plan(choose=SOME).layouts == len(different)


def test_memory_that_is_left_free_stays_free() -> None:
    """No layout of any table takes it."""
    most = plain_plan().question.cluster.gpu.memory_bytes
    found = small_plan(leave_free="90%")
    stage = found.stages[0]
    for each in (stage.best, *stage.rivals, *stage.front, *(one.candidate for one in stage.alternatives if one.candidate)):
        assert each.memory_bytes <= 0.1 * most
    assert found.fitting < plain_plan().fitting


@pytest.mark.slow
def test_the_front_goes_down_in_memory_and_up_in_time() -> None:
    """From the fastest on; nothing on it is beaten."""
    front = small_plan(choose=SOME).stages[0].front
    times, sizes = [each.iteration_time_s for each in front], [each.memory_bytes for each in front]
    assert times == sorted(times)
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    beaten = [
        each.iteration_time_s < slow and float(each.memory.total_bytes) < large
        for _, each in one_by_one()
        for slow, large in zip(times, sizes, strict=True)
    ]
    assert not any(beaten)


@pytest.mark.slow
def test_several_numbers_of_gpus() -> None:
    """The best by time, by cost and by GPUs; the front has no option that another beats in time and cost."""
    found = small_plan(gpus="8..64", tokens="10B", economics=PRICE)
    options = found.options
    assert [option.gpus for option in options] == [8, 16, 32, 64]
    assert found.by_time is min(options, key=lambda option: option.calendar_days)
    assert found.by_cost is min(options, key=lambda option: option.dollars or 0)
    assert found.by_gpus is options[0]
    assert found.best is found.by_time
    assert found.front[0] is found.by_time
    assert found.front[-1] is found.by_cost
    for option in options:
        assert option.gpu_hours == pytest.approx(24 * option.gpus * option.calendar_days, rel=1e-12)
        assert option.dollars == pytest.approx(2 * option.gpu_hours, rel=1e-12)
        steps = 10e9 / (option.workloads[0].global_batch_size * 2048)
        assert option.days == pytest.approx(steps * option.iteration_time_s / 86400, rel=1e-12)
        assert option.calendar_days > option.days
    frame = found.to_pandas()
    assert frame["gpus"].unique().tolist() == [8, 16, 32, 64]
    assert frame.loc[frame["best"], "gpus"].tolist() == [64]
    assert frame.loc[frame["dollars"].notna(), "slower_by"].tolist() == [0.0] * len(options)


def test_a_table_ranks_the_layouts_of_each_number_of_gpus() -> None:
    """The fastest first, each layout once, how much slower the others are beside the one that the plan takes."""
    found = small_plan(gpus="8,16")
    for _, ranked in found.to_pandas().groupby("gpus"):
        times = ranked["iteration_time_s"].tolist()
        assert times == sorted(times)
        assert ranked["rank"].tolist() == list(range(1, len(times) + 1))
        assert len(times) == len(ranked.drop_duplicates(["iteration_time_s", "memory_bytes"]))
        assert (ranked["slower_by"] + 1).tolist() == pytest.approx([each / times[0] for each in times])


def test_without_tokens_there_are_no_days() -> None:
    """Nor anything that follows from them."""
    frame = plain_plan().to_pandas()
    assert frame[["days", "calendar_days", "gpu_hours", "dollars"]].isna().all().all()
    assert frame[["calendar_p50_days", "calendar_p90_days", "dollars_p90", "deadline_probability"]].isna().all().all()
    assert frame["tensor_parallel"].tolist()[0] == plain_plan().stages[0].best.settings["tensor_parallel"]


# The odds


def test_even_odds_are_judged_by_the_median() -> None:
    """Half of a percent after the median ends, a plan of 50 % is met, and one of 90 % is not."""
    late_d = 1.005 * small_plan(**FEW, tokens="100B").options[0].calendar_days
    even, sure = (small_plan(**FEW, tokens="100B", deadline=f"{late_d!r}d", confidence=each) for each in ("50%", None))
    assert even.best is not None
    assert (sure.best, sure.question.confidence) == (None, 0.9)
    assert even.best.deadline_probability == sure.options[0].deadline_probability
    assert 0.5 < (even.best.deadline_probability or 0) < 0.9


def test_each_limit_is_met_with_the_odds_that_are_asked_for() -> None:
    """At what the calendar and the bill do not exceed with them, and not a thousandth below."""
    free = small_plan(**FEW, tokens="100B", economics=PRICE).options[0]
    days, dollars = free.calendar_days_at(0.8), free.dollars_at(0.8)
    assert dollars is not None
    for share, is_met in ((1.0, True), (0.999, False)):
        late = small_plan(**FEW, tokens="100B", economics=PRICE, confidence=0.8, deadline=f"{share * days!r}d")
        dear = small_plan(**FEW, tokens="100B", economics=PRICE, confidence=0.8, budget=share * dollars)
        assert [found.best is not None for found in (late, dear)] == [is_met, is_met]
        assert late.options[0].deadline_probability == pytest.approx(0.8, abs=0.02)
        assert dear.options[0].budget_probability == pytest.approx(0.8, abs=0.02)
        assert late.options[0].limits_probability == late.options[0].deadline_probability


def test_odds_are_those_of_the_prediction() -> None:
    """Without failures, days at 95 % are those of as many iterations at the high end of their interval."""
    found = small_plan(**FEW, tokens="100B", economics={"failures_per_gpu_hour": 0})
    assert found.best is not None
    low, high = (float(end) for end in found.stages[0].prediction.iteration_time_interval_s)
    for probability, seconds in ((0.05, low), (0.95, high)):
        days = found.best.calendar_days * seconds / found.best.iteration_time_s
        assert found.best.calendar_days_at(probability) == pytest.approx(days, rel=1e-9)
    ramp = ramp_plan(economics={"start_up_s": 0}).best
    assert ramp is not None
    assert [each.calendar_days_at(0.5) for each in (found.best, ramp)] == [found.best.calendar_days, ramp.calendar_days]


def test_the_likeliest_is_named_where_nothing_meets_the_limits() -> None:
    """Of three numbers of GPUs the one with the best odds; of odds alike the one that ends first."""
    days = [option.calendar_days for option in small_plan(**FEW, gpus="2,4,8", tokens="100B").options]
    near = small_plan(**FEW, gpus="2,4,8", tokens="100B", deadline=f"{0.99 * min(days)!r}d")
    assert near.best is None
    assert near.likeliest is not None
    assert near.likeliest.calendar_days == min(days)
    hopeless = small_plan(**FEW, gpus="2,4,8", tokens="100B", deadline=f"{0.01 * min(days)!r}d")
    assert hopeless.likeliest is not None
    assert hopeless.likeliest.calendar_days == min(days)
    assert 0 <= hopeless.likeliest.limits_probability < HOPELESS


# Why


@pytest.mark.slow
def test_an_alternative_is_a_search_of_its_own() -> None:
    """With that value fixed: the same time, or the same least memory where nothing fits."""
    found = small_plan(leave_free="92%")
    assert any(each.candidate is None for each in found.stages[0].alternatives)
    for each in found.stages[0].alternatives:
        alone = small_plan(leave_free="92%", choose={each.setting: each.value})
        if each.candidate is None:
            assert alone.obstacle is not None
            assert alone.obstacle.nearest.memory_bytes == each.needed_bytes
        else:
            assert alone.best is not None
            assert alone.best.iteration_time_s == each.candidate.iteration_time_s
            assert each.candidate.settings[each.setting] == each.value
            assert each.slower_by == each.candidate.iteration_time_s / found.stages[0].best.iteration_time_s - 1


def test_an_alternative_names_the_part_that_loses_most() -> None:
    """No other part of the iteration loses more, and it loses what it says."""
    stage = plain_plan().stages[0]
    best = stage.prediction.breakdown
    for each in stage.alternatives:
        assert each.candidate is not None
        parts = predict(read_candidates(_run(each.candidate))[0].run).stages[0][1].breakdown
        lost = {name: float(getattr(parts, name)) - float(getattr(best, name)) for name in PARTS}
        assert each.part_s == pytest.approx(max(lost.values()), abs=1e-12)
        assert lost[each.part] == pytest.approx(each.part_s, abs=1e-12)


def _run(candidate: LayoutCandidate) -> dict[str, Any]:
    settings = dict(candidate.settings)
    stage = {name: settings.pop(name) for name in ("data_parallel", "global_batch_size")}
    return {**plain_plan().question.names, **settings, "stages": [stage]}


def test_rivals_are_others() -> None:
    """Slower, each a choice of its own, each with other figures."""
    stage = plain_plan().stages[0]
    times = [each.iteration_time_s for each in (stage.best, *stage.rivals)]
    assert times == sorted(times)
    figures = {(each.iteration_time_s, each.memory_bytes) for each in (stage.best, *stage.rivals)}
    assert len(figures) == len(times) > 3


def test_one_of_them_is_the_fastest_in_every_draw() -> None:
    """Shares sum to 1; who is first in all draws loses nothing."""
    robust = plain_plan().stages[0].robustness
    assert sum(robust.first_share) == pytest.approx(1.0, abs=1e-12)
    assert len(robust.first_share) == 1 + len(plain_plan().stages[0].rivals)
    assert 0 <= robust.mean_regret <= robust.regret_p95 or robust.first_share[0] > 0.95


# The ramp


def ramp_plan(**wanted: Any) -> Plan:
    """Two stages on the same GPUs."""
    return small_plan(global_batch_size=None, ramp="8:1B, 64:10B", gpus=8, **wanted)


def test_each_stage_takes_its_best() -> None:
    """Where changing from one to the other costs next to nothing."""
    found = ramp_plan(economics={"start_up_s": 0})
    assert found.best is not None
    alone = [small_plan(global_batch_size=batch, gpus=8).stages[0].best for batch in (8, 64)]
    assert [stage.best.iteration_time_s for stage in found.stages] == [each.iteration_time_s for each in alone]
    assert found.best.chain.switches == 1


def test_changing_takes_time() -> None:
    """A restart between two layouts is in the days; a very long one is not worth it, and the layouts stay the same."""
    quick, slow = ramp_plan(economics={"start_up_s": 0}), ramp_plan(economics=SLOW_RESTART)
    assert quick.best is not None
    assert slow.best is not None
    pause_days = quick.best.days - quick.best.chain.training_s / 86400
    assert 0 < pause_days < 0.01
    assert slow.best.chain.switches == 0
    assert slow.best.days == slow.best.chain.training_s / 86400
    one, other = (dict(each.settings) for each in slow.best.chain.layouts)
    assert one | {"global_batch_size": 64} == other
    assert slow.best.chain.training_s >= quick.best.chain.training_s


def test_stages_that_ask_the_same_are_searched_once() -> None:
    """A ramp of the same batch is one stage in pieces."""
    pieces = small_plan(global_batch_size=None, ramp="64:1B, 64:2B, 64:3B", gpus=8)
    whole = small_plan(global_batch_size=64, tokens="6B", gpus=8)
    assert pieces.best is not None
    assert whole.best is not None
    assert pieces.best.results[0] is pieces.best.results[2]
    assert pieces.best.days == pytest.approx(whole.best.days, rel=1e-12)
    assert pieces.best.chain.switches == 0


# The run file


@pytest.mark.parametrize("wanted", [{"gpus": 8, "tokens": "1B", "economics": PRICE}, {"gpus": "4,8"}, {"leave_free": "92%"}])
def test_the_run_file_predicts_what_was_planned(wanted: dict[str, Any]) -> None:
    """One file: the same time and memory to the last bit, and the same terms."""
    found = small_plan(**wanted)
    (document,) = run_documents(found)
    ((stage, predicted),) = api.predict(document).stages
    best = found.stages[0].best
    assert (float(predicted.iteration_time_s), float(predicted.memory.total_bytes)) == (
        best.iteration_time_s,
        best.memory_bytes,
    )
    assert stage.tokens == found.question.stages[0].tokens
    assert document.get("economics") == wanted.get("economics")


def test_a_run_file_for_each_layout() -> None:
    """Stages with layouts of their own are runs of their own; with one layout they are one run."""
    found = ramp_plan(economics={"start_up_s": 0})
    documents = run_documents(found)
    assert len(documents) == 2
    for document, stage in zip(documents, found.stages, strict=True):
        ((_, predicted),) = api.predict(document).stages
        assert float(predicted.iteration_time_s) == stage.best.iteration_time_s
        assert float(predicted.memory.total_bytes) == stage.best.memory_bytes
    same = ramp_plan(economics=SLOW_RESTART)
    (document,) = run_documents(same)
    times = [float(predicted.iteration_time_s) for _, predicted in api.predict(document).stages]
    assert times == [stage.best.iteration_time_s for stage in same.stages]


def test_no_plan_no_run_file() -> None:
    """Nothing is written where nothing fits."""
    assert run_documents(small_plan(leave_free="99%", most_gpus=8)) == []


# Nothing


@pytest.mark.slow
def test_what_is_in_the_way() -> None:
    """The layout that needs least, how much too much that is, and its largest part."""
    found = small_plan(choose=SOME, leave_free="95%")
    least = min((each.memory for _, each in one_by_one()), key=lambda memory: float(memory.total_bytes))
    assert found.best is None
    assert (found.options, found.rows()) == ((), [])
    assert found.obstacle is not None
    assert found.obstacle.nearest.memory_bytes == float(least.total_bytes)
    assert found.obstacle.missing_bytes == float(least.total_bytes) - found.question.cluster.gpu.memory_bytes > 0
    parts = {name: float(getattr(least, name)) for name in least.__dataclass_fields__}
    assert parts[found.obstacle.part] == max(parts.values())


def test_what_would_help() -> None:
    """Each remedy fits; a node fewer, or the choice as it is, does not."""
    found = small_plan(choose={"sharding": "none", "tensor_parallel": 1, "pipeline_parallel": 1}, leave_free="84%", gpus=8)
    assert found.obstacle is not None
    limit = found.question.cluster.gpu.memory_bytes
    kinds = {remedy.kind: remedy for remedy in found.obstacle.remedies}
    assert {"choice", "sharding"} <= set(kinds)
    assert all(remedy.candidate.memory_bytes <= limit for remedy in kinds.values())
    assert kinds["choice"].candidate.settings["sharding"] in found.question.stack.offers.shardings
    assert kinds["sharding"].candidate.settings["tensor_parallel"] == 1


@pytest.mark.slow
@pytest.mark.parametrize(("model", "gpus"), [("nemotron-4-340b", 64), ("gpt-3-175b", 8)])
def test_how_many_more_gpus_would_help(model: str, gpus: int) -> None:
    """So many fit, and one node fewer does not."""
    wanted: dict[str, Any] = {"cluster": "dgx-h100", "choose": {"tensor_parallel": 8}, "global_batch_size": 64}
    found = api.plan(model, gpus=gpus, **wanted)
    assert found.obstacle is not None
    (more,) = (remedy for remedy in found.obstacle.remedies if remedy.kind == "gpus")
    enough = api.plan(model, gpus=more.gpus, **wanted)
    assert enough.best is not None
    assert enough.best.iteration_time_s == more.candidate.iteration_time_s
    try:
        fewer = api.plan(model, gpus=more.gpus - 8, **wanted).best
    except InputError:  # no layout at all
        fewer = None
    assert fewer is None


def test_no_layout_can_exist() -> None:
    """Because of what divides, or because of what may be chosen: one sentence with what would work."""
    with pytest.raises(InputError, match="no layout of 7 GPUs trains small with a global batch of 8: data_parallel must"):
        small_plan(gpus=7)
    with pytest.raises(InputError, match="under the settings that are given; allow other values"):
        small_plan(choose={"tensor_parallel": 3})
    with pytest.raises(InputError, match="no layout of 7 GPUs trains small with a global batch of 3"):
        small_plan(gpus=7, global_batch_size=None, ramp="7:1B, 3:1B")
