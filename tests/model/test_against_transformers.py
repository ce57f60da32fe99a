"""The reference model is the one that transformers implements: the same logits and the same gradients from the same weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from perfmodel.model.groups import one_rank
from perfmodel.model.training.data import batch
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.models.model import TransformerModel
from tests.model.networks import network_of
from tests.model.small_mixtures import MIXTURES, routing_of
from tests.model.small_models import FAMILIES, ONE_RANK, QWEN
from tests.model.weights import gradients, gradients_of, load, weights_of

RELATIVE = 1e-5  # of the largest number of a tensor
SEQUENCES, LENGTH = 2, 24


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, name: str) -> None:
    """Every number within RELATIVE of the largest one."""
    assert ours.shape == theirs.shape, name
    difference = float((ours - theirs).abs().max())
    assert difference <= RELATIVE * float(theirs.abs().max()), f"{name}: {difference}"


@pytest.fixture(params=(*FAMILIES, QWEN, *MIXTURES), ids=lambda model: model.name)
def model(request: pytest.FixtureRequest) -> TransformerModel:
    """One of each family."""
    spec: TransformerModel = request.param
    return spec


def test_logits_and_gradients_are_those_of_transformers(model: TransformerModel) -> None:
    """In fp32 to within 1e-5 of the largest number of each tensor; attention there is written out, here it is fused."""
    network, trainer = network_of(model), Trainer(model, ONE_RANK, one_rank(), routing=routing_of(model))
    load(trainer.model, weights_of(network, model))
    tokens, targets = batch(seed=3, iteration=0, sequences=SEQUENCES, length=LENGTH, vocabulary=int(model.vocab_size))

    theirs = network(input_ids=tokens, use_cache=False).logits
    ours = trainer.model.logits(tokens).view(LENGTH, SEQUENCES, -1).transpose(0, 1)
    assert_close(ours[..., : model.vocab_size].detach(), theirs.detach(), "logits")

    expected = cross_entropy(theirs.reshape(-1, model.vocab_size), targets.reshape(-1))
    expected.backward()
    loss = trainer.model(tokens, targets)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=RELATIVE)
    found = gradients(trainer.model)
    wanted = gradients_of(network, model)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        assert_close(gradient, wanted[name], name)
