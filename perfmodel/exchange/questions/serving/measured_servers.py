"""The server that the model, the precision and the tensor parallelism of a run make, as the reference model serves it."""

from __future__ import annotations

from typing import Final

from perfmodel.exchange.questions.serving.served_models import engine_preset, own_profile, served, serving_setup
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run
from perfmodel.spec.serving.formats import cache_format, weight_format
from perfmodel.spec.serving.setup import ServingSetup

ENGINE: Final = "reference"
ANY_GPU: Final = "h100-sxm-80gb"


def served_setup(run: Run, layout: Layout) -> ServingSetup:
    """On the machine of the run. Errors: NotSupportedError where no kernels of serving are known of it."""
    return ServingSetup(
        model=served(run.model),
        cluster=run.cluster,
        profile=own_profile(run.cluster),
        engine=engine_preset(ENGINE),
        weights=weight_format(layout.precision),
        cache=cache_format(layout.precision),
        tensor_parallel=int(layout.tensor_parallel),
    )


def counted_setup(run: Run, layout: Layout) -> ServingSetup:
    """The same for counts alone, which depend on no machine."""
    return serving_setup(
        served(run.model),
        gpu=ANY_GPU,
        engine=ENGINE,
        precision=layout.precision,
        kv_precision=layout.precision,
        tensor_parallel=int(layout.tensor_parallel),
    )
