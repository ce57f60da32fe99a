"""What optimizers of a fine-tuning keep and form of the matrices that are trained, and of no others.

Llama 3.1 8B: 32 layers, h = 4096, keys and values of v = 1024, MLPs of f = 14336, V = 128256 tokens.
"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.tuned import TunedStates, tuned_states
from perfmodel.count.operators import Matmul
from tests.tunings import tuned_setup

H, V, F, VOCABULARY = 4096, 1024, 14336, 128256
ATTENTION = (H + H) + 2 * (H + V) + (H + H)  # rows and columns of queries, keys, values and projection
MLP = 3 * (H + F)


def states(optimizer: str, **settings: Any) -> TunedStates:
    """What a fine-tuning in bf16 holds."""
    setup = tuned_setup(**({"training": "full", "weights": "bf16", "optimizer": optimizer} | settings))
    assert setup.tuning is not None
    return tuned_states(setup, iteration(setup).stages.first, setup.tuning)


@pytest.mark.parametrize(
    ("frozen", "numbers"),
    [
        ("mlp", 32 * ATTENTION + 2 * (VOCABULARY + H) + 65 * H),
        ("attention norms", 32 * MLP + 2 * (VOCABULARY + H)),
        ("embedding", 32 * (ATTENTION + MLP) + (VOCABULARY + H) + 65 * H),
        ("embedding head attention mlp", 65 * H),
    ],
)
def test_adafactor_keeps_nothing_of_frozen_parts(frozen: str, numbers: int) -> None:
    """Rows and columns of trained matrices, and norms where they are trained."""
    assert states("adafactor", frozen_parts=frozen).optimizer == 4 * numbers


def test_adafactor_keeps_rows_and_columns_of_matrices_that_are_trained_beside_adapters() -> None:
    """Both matrices of an adapter of rank 16 beside the projection, and all of the MLP and the head themselves."""
    found = states("adafactor", training="lora", adapter_targets="projection", trained_parts="mlp head")
    assert found.optimizer == 4 * (32 * (H + H + 2 * 16) + 32 * MLP + VOCABULARY + H)


def test_tied_embeddings_are_one_matrix() -> None:
    """Whose rows and columns are kept once."""
    apart, tied = (states("adafactor", model__tied_embeddings=each).optimizer for each in (False, True))
    assert apart - tied == 4 * (VOCABULARY + H)


@pytest.mark.parametrize(
    ("optimizer", "settings", "numbers"),
    [
        ("adafactor", {}, 3 * VOCABULARY * H),
        ("adafactor", {"frozen_parts": "embedding"}, 3 * VOCABULARY * H),
        ("adafactor", {"frozen_parts": "embedding head"}, 3 * H * F),
        ("adafactor", {"frozen_parts": "embedding head mlp"}, 3 * H * H),
        ("adafactor", {"training": "lora", "adapter_targets": "fc1"}, 3 * 16 * F),
        ("adafactor", {"training": "lora", "adapter_targets": "fc1", "trained_parts": "attention"}, 3 * H * H),
        ("muon", {}, 1.5 * H * F),
        ("muon", {"frozen_parts": "mlp"}, 1.5 * H * H),
    ],
)
def test_a_step_forms_copies_of_the_largest_matrix_that_is_trained(
    optimizer: str, settings: dict[str, str], numbers: float
) -> None:
    """Adafactor's gradient, its square and its update in fp32; Muon's of a matrix of a layer, three in 16 bits."""
    assert states(optimizer, **settings).step == 4 * numbers


def test_muon_orthogonalises_no_frozen_matrix() -> None:
    """Four products of attention in 32 layers, of sides h x h twice and h x v twice; five rounds each."""
    work = iteration(tuned_setup(training="full", weights="bf16", optimizer="muon", frozen_parts="mlp"))
    products = [op for op in work.synchronisation if isinstance(op, Matmul)]
    sides = [(H, H), (V, H), (V, H), (H, H)]
    expected = sum(2 * short * short * (2 * long + short) for short, long in sides)
    assert sum(float(op.repeats * op.flop) for op in products) == 5 * 32 * expected


FROZEN = "attention embedding head norms"  # all but the feed-forward parts


def test_each_expert_has_rows_and_columns_of_its_own() -> None:
    """Of Mixtral's eight, both halves joined, and of the router."""
    found = states("adafactor", model="mixtral-8x7b", frozen_parts=FROZEN).optimizer
    assert found == 4 * 32 * ((H + 8) + 8 * ((H + 2 * F) + (F + H)))


def test_muon_orthogonalises_each_expert() -> None:
    """Eight of h x 2f and f x h in 32 layers, and h x 8 of the router."""
    work = iteration(tuned_setup(training="full", weights="bf16", optimizer="muon", model="mixtral-8x7b", frozen_parts=FROZEN))
    products = [op for op in work.synchronisation if isinstance(op, Matmul)]
    sides = [(8, H, 1), (H, 2 * F, 8), (H, F, 8)]
    expected = sum(number * 2 * short * short * (2 * long + short) for short, long, number in sides)
    assert sum(float(op.repeats * op.flop) for op in products) == 5 * 32 * expected
