"""Is what follows from a frozen value worked out once, and anew where it would be another?"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.spec.remembering import Remembers
from tests.layouts import RAMP_STAGE


def test_it_is_worked_out_once_for_the_same_objects() -> None:
    """And once more for others, even for equal ones: who they are counts."""
    value, one, other = Remembers(), [1], [1]
    asked: list[int] = []

    def work_out() -> int:
        asked.append(len(asked))
        return len(asked)

    assert [value.remembered("what", work_out, of=(each,)) for each in (one, one, other, other)] == [1, 1, 2, 2]
    assert value.remembered("something else", work_out) == 3


def test_a_changed_copy_does_not_remember_what_its_original_knew() -> None:
    """Four micro-batches of one sequence are two of two."""
    assert RAMP_STAGE.micro_batches == 4
    assert replace(RAMP_STAGE, micro_batch_size=2).micro_batches == 2


def test_what_is_remembered_is_no_part_of_the_value() -> None:
    """Equal layouts stay equal, whoever was asked."""
    asked = replace(RAMP_STAGE)
    assert asked.micro_batches == 4
    assert asked == replace(RAMP_STAGE)
