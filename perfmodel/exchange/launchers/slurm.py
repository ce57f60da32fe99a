"""A batch job for SLURM that starts Megatron-LM's torchrun once a node."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.launchers.megatron_core import LAUNCHER as MEGATRON
from perfmodel.exchange.launchers.megatron_core import megatron_script
from perfmodel.exchange.translation.launch_texts import world_of
from perfmodel.light_dataclass import replace
from perfmodel.spec.run import RampStage, Run

HEAD: Final = 'HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n'
RENDEZVOUS: Final = '--rdzv-backend c10d --rdzv-endpoint "$HEAD:29500"'


def _job(run: Run, stages: tuple[RampStage, ...]) -> str:
    world = world_of(run, stages[-1])
    options = {
        "--job-name": re.sub(r"[^\w.-]+", "-", run.name),
        "--nodes": world.nodes,
        "--ntasks-per-node": 1,
        "--gpus-per-node": world.gpus_per_node,
    }
    before = "".join(f"#SBATCH {name}={value}\n" for name, value in options.items()) + "#SBATCH --exclusive\n"
    launcher = f"{HEAD}srun torchrun --nnodes {world.nodes} --nproc-per-node {world.gpus_per_node} {RENDEZVOUS}"
    return megatron_script(run, stages, before=before, start="sbatch FILE", launcher=launcher)


LAUNCHER: Final = replace(
    MEGATRON,
    name="slurm",
    version=f"sbatch, and {MEGATRON.version}",
    file="launch.sbatch",
    written=_job,
)
