"""What people call the load of experts, in run files and in settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.measured.expert_loads import load_text, load_words
from perfmodel.exchange.questions.plan_arguments import read_plan_request
from perfmodel.exchange.questions.swept_axes import read_axis
from perfmodel.exchange.run_files import read_candidates
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.question import PlanQuestion
from tests.mixtures import DEEPSEEK, candidate


@pytest.mark.parametrize("word", ["balanced", "natural"])
def test_a_word_is_its_number(word: str) -> None:
    """The one that the shipped file has."""
    assert candidate(f"expert_load={word}").run.expert_load == load_words()[word]


def test_natural_routing_is_uneven() -> None:
    """Its busiest rank has more tokens than the mean, and balanced routing's has not."""
    assert load_words()["natural"] > load_words()["balanced"] == 1.0


def test_a_factor_is_a_factor() -> None:
    """Numbers are read as they are."""
    assert candidate("expert_load=1.37").run.expert_load == 1.37


def test_several_loads_are_several_candidates() -> None:
    """Each by its word or its number."""
    found = read_candidates(DEEPSEEK, ["expert_load=[balanced, natural, 2]"])
    assert [each.run.expert_load for each in found] == [1.0, load_words()["natural"], 2.0]


def test_words_are_swept_as_their_numbers() -> None:
    """Beside numbers, under the words that were given."""
    axis = read_axis("expert_load", "balanced,natural,1.5", candidate().run, 0)
    assert axis.values == (1.0, load_words()["natural"], 1.5)
    assert axis.labels == ("balanced", "natural", "1.5")


def test_an_unknown_word_gets_a_hint() -> None:
    """With the key it stands at."""
    with pytest.raises(InputError, match="did you mean natural") as caught:
        candidate("expert_load=naturel")
    assert caught.value.key == "expert_load"


def test_a_load_that_is_not_given_is_said() -> None:
    """Of mixtures alone, and not where it is given."""
    said = [sentence for sentence in candidate().assumptions if sentence.startswith("expert_load")]
    assert said == ["expert_load is not given: balanced (1) is assumed, as in benchmarks; natural routing takes longer"]
    assert not any("expert_load" in sentence for sentence in candidate("expert_load=1.2").assumptions)
    assert not any("expert_load" in each for each in read_candidates("nemotron-4-15b")[0].assumptions)


def test_a_load_is_written_with_its_word() -> None:
    """Where it has one."""
    assert (load_text(1.0), load_text(1.31)) == ("balanced (1)", "1.31")


def plan_question(model: Any, **choose: Any) -> PlanQuestion:
    """What a plan on 256 GPUs is asked."""
    return read_plan_request(model, cluster="gb200-nvl72", gpus=256, choose=choose).question


def test_a_plan_takes_the_load_that_is_chosen_or_that_of_its_run() -> None:
    """In every layout that it looks at; even where neither says so."""
    assert plan_question("deepseek-v3").expert_load == 1.0
    assert plan_question("deepseek-v3", expert_load="natural").expert_load == load_words()["natural"]
    assert plan_question(candidate("expert_load=1.3").run).expert_load == 1.3
    question = plan_question("deepseek-v3", expert_load=1.2)
    space = replace(question.space, fixed={"tensor_parallel": (1,), "micro_batch_size": (1,), "context_parallel": (1,)})
    grid = next(layout_grids(question.workloads(256)[0], space))
    assert {float(layout.expert_load) for layout in grid.layouts} == {1.2}


def test_a_plan_says_which_load_it_takes() -> None:
    """Of mixtures alone."""
    assert any("expert_load is balanced (1) in every layout" in each for each in plan_question("deepseek-v3").assumptions)
    assert not any("expert_load" in each for each in plan_question("llama-3.1-8b").assumptions)


def test_a_load_that_no_run_may_have_is_no_choice() -> None:
    """The busiest rank has at least the mean."""
    with pytest.raises(InputError, match="must be at least 1") as caught:
        plan_question("deepseek-v3", expert_load="0.5")
    assert caught.value.key == "expert_load"
