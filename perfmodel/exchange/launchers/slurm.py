"""A batch job for SLURM that starts Megatron-LM's torchrun once a node."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.launchers.megatron_core import VERSION, megatron_script
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.spec.fields import whole
from perfmodel.spec.run import RampStage, Run

HEAD: Final = 'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'


def _job(run: Run, stages: tuple[RampStage, ...]) -> str:
    gpus, each = whole(run.layout(stages[-1]).gpus), run.cluster.gpus_per_node
    options = {
        "--job-name": re.sub(r"[^\w.-]+", "-", run.name),
        "--nodes": -(-gpus // each),
        "--ntasks-per-node": 1,
        "--gpus-per-node": min(gpus, each),
    }
    heading = "".join(f"#SBATCH {name}={value}\n" for name, value in options.items()) + "#SBATCH --exclusive\n"
    return megatron_script(run, stages, heading=heading, launcher=f"{HEAD}srun ")


LAUNCHER: Final = Launcher(name="slurm", version=f"sbatch, and {VERSION}", written=_job)
