"""What a run costs beside its seconds: price, power, failures, checkpoints and restarts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, choice, number, plain, spreads, text

BILLINGS = ("on_demand", "reserved")
NO_OFFER = "none"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Economics(Spec):
    """The terms of a run. Without a price there are no dollars: nobody is charged a price that the user did not give.

    `billing`: on_demand pays the GPUs of each stage while they are used, restarts and lost work included; reserved pays those
    of the largest stage for the whole calendar, and for `reserved_days` where that is longer.
    Power shares are of the maximum that a node's datasheet states (Cluster.node_power_w).
    Checkpoints go to a storage that grows with the cluster (so much for each GPU), up to a rate of the whole storage where
    it has one. Training stalls for `checkpoint_stall_share` of the time that a checkpoint takes (1 where it waits for all
    of it); a checkpoint that is not wholly written is of no use after a failure. `checkpoint_interval_s` is the training
    between two checkpoints; where it is not fixed, the best one, but not below `least_checkpoint_interval_s`: what a
    storage and its users bear.
    """

    name: str = text()
    dollars_per_gpu_hour: Numeric | None = number("dollars", above=0, optional=True, default=None)
    offer: str = text(default=NO_OFFER)  # whose price it is, and of which day: what clouds list is soon stale
    billing: str = choice(*BILLINGS, default="on_demand", other_names={"on-demand": "on_demand"})
    reserved_days: Numeric | None = number("days", above=0, optional=True, default=None)
    busy_power_share: Numeric = number("ratio", above=0, maximum=1)  # of a node whose GPUs compute
    idle_power_share: Numeric = number("ratio", maximum=1)  # of a node whose GPUs wait
    power_usage_effectiveness: Numeric = number("ratio", minimum=1, maximum=10)  # power of the site over that of its computers
    carbon_kg_per_kwh: Numeric = number("kg_per_kwh", maximum=10)  # of the grid
    failures_per_gpu_hour: Numeric = number("per_hour", maximum=1e6)  # interruptions that nobody planned
    checkpoint_bytes_per_parameter: Numeric = number("bytes", above=0)
    checkpoint_write_bytes_per_s_per_gpu: Numeric = number("bytes_per_s", minimum=1)
    checkpoint_read_bytes_per_s_per_gpu: Numeric = number("bytes_per_s", minimum=1)
    storage_write_bytes_per_s: Numeric | None = number("bytes_per_s", minimum=1, optional=True, default=None)  # all of it
    storage_read_bytes_per_s: Numeric | None = number("bytes_per_s", minimum=1, optional=True, default=None)
    checkpoint_stall_share: Numeric = number("ratio", maximum=1)
    checkpoint_interval_s: Numeric | None = number("s", above=0, optional=True, default=None)
    least_checkpoint_interval_s: Numeric = number("s", default=0.0)
    detect_s: Numeric = number("s")  # from a failure until it is seen and the broken node is known
    requeue_s: Numeric = number("s")  # until the job has healthy nodes again
    start_up_s: Numeric = number("s")  # processes, communicators, data; the checkpoint is read after that
    spread: Mapping[str, Numeric] = spreads()

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
        if self.reserved_days is not None and self.billing != "reserved":
            wrong = f"{plain(self.reserved_days)} days are reserved, but billing is {self.billing}; set billing to reserved"
            raise InputError(wrong, key="reserved_days")
        if np.any(np.asarray(self.idle_power_share) > self.busy_power_share):
            wrong = f"{plain(self.idle_power_share)} is more than the {plain(self.busy_power_share)} of busy_power_share"
            raise InputError(wrong, key="idle_power_share")
        if none := next((name for name in self.spread if getattr(self, name) is None), ""):
            raise InputError(f"{none} itself is not given", key=f"spread.{none}")
