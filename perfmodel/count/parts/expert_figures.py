"""What a person asks of a mixture of experts in a layout: how many of them a GPU holds, and how many tokens each has."""

from __future__ import annotations

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertFigures:
    """A mixture of experts in one layout.

    Of the routed experts of a layer, of which a token meets `experts_per_token`, one GPU holds `experts_of_a_gpu`; each of them
    takes `rows_of_an_expert` tokens of every micro-batch on average, and `busiest_rows` on the busiest expert-parallel rank:
    no more than all ranks have together, nor than a capacity leaves.
    """

    experts: Numeric
    experts_per_token: Numeric
    experts_of_a_gpu: Numeric
    rows_of_an_expert: Numeric
    busiest_rows: Numeric


def expert_figures(setup: Setup) -> ExpertFigures | None:
    """The figures of a setup whose model has experts; None of a dense model.

    rows = T * k * e * t / E, T the tokens of a micro-batch on one GPU, k experts_per_token, E experts, e expert_parallel, t
    expert_tensor_parallel (count/parts/experts.py).

    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> expert_figures(run.setup(run.stages[0])) is None
    True
    """
    layout, mixture = setup.layout, setup.model.mixture
    if mixture is None:
        return None
    copies = layout.tokens_per_micro_batch / layout.sequence_shards * mixture.experts_per_token
    load = layout.busiest_load
    if mixture.capacity_factor is not None:
        load = np.minimum(load, mixture.capacity_factor)
    rows = copies * layout.expert_parallel * layout.expert_tensor_parallel / mixture.experts
    return ExpertFigures(
        experts=mixture.experts,
        experts_per_token=mixture.experts_per_token,
        experts_of_a_gpu=np.asarray(mixture.experts) / layout.expert_parallel,
        rows_of_an_expert=rows,
        busiest_rows=rows * load,
    )
