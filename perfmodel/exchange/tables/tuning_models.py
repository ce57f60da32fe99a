"""Models that tables of fine-tuning runs name by their repository: those of servers, with their vocabulary as it is."""

from __future__ import annotations

from functools import cache

from perfmodel.exchange.tables.serving_models import named_served_model
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.models.model import TransformerModel


@cache
def named_tuned_model(name: str) -> TransformerModel:
    """The model of a repository; no vocabulary is padded. Errors: NotSupportedError for one that is not known here."""
    return with_numbers(named_served_model(name), {"vocab_padding_multiple": 1})
