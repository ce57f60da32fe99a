"""What torch itself sees of a step's communication: every call that reaches torch.distributed, with the bytes it carries."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import torch
from torch.utils._python_dispatch import TorchDispatchMode

KINDS: Final = {
    "allreduce_": "all_reduce",
    "_allgather_base_": "all_gather",
    "_reduce_scatter_base_": "reduce_scatter",
    "alltoall_base_": "all_to_all",
    "send": "point_to_point",  # counted where it is sent
}


class CollectiveCounter(TorchDispatchMode):
    """Calls and payload bytes by (kind, ranks of the group): the full tensor, before it is split or after it is joined."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, int]] = Counter()
        self.payload_bytes: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            self._count(func.overloadpacket.__name__, args)
        return func(*args, **(kwargs or {}))

    def _count(self, name: str, args: Any) -> None:
        kind = KINDS.get(name)
        if kind is None:
            return
        tensors = [tensor for arg in args for tensor in (arg if isinstance(arg, list | tuple) else [arg])]
        largest = max(tensor.nbytes for tensor in tensors if isinstance(tensor, torch.Tensor))
        group = next(arg for arg in args if isinstance(arg, torch.ScriptObject))
        ranks = torch.distributed.ProcessGroup.unbox(group).size()
        self.calls[kind, ranks] += 1
        self.payload_bytes[kind, ranks] += largest
