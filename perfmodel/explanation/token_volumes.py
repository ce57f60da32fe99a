"""Where the tokens of one rank go: how many ranks and nodes each of them meets, and the bytes that leave a rank for either."""

from __future__ import annotations

from collections.abc import Iterable

from perfmodel.count.operators import Collective, places_met, ranks_met
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import EXPERT
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import placement
from perfmodel.timing.ledger import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVolume:
    """One dispatch of a single layout, on average over its tokens.

    `once_bytes` are all tokens of a rank, one copy of each; `copies` of each leave for `ranks_met` ranks on `nodes_met` nodes,
    or one for each expert where the software does not merge them. Between nodes a rank sends `network_bytes`.
    """

    ranks: float
    nodes: float
    once_bytes: float
    copies: float
    ranks_met: float
    nodes_met: float
    sent_bytes: float
    network_bytes: float


def token_volume(entries: Iterable[Entry], cluster: Cluster) -> TokenVolume | None:
    """The volume of the first dispatch among some operators; None where there is none.

    An exchange sends a token once to each rank that it meets, and once over the network for each node; an all-to-all sends a
    copy for each expert; where ranks gather all tokens, every token goes to all of them.
    """
    for entry in entries:
        call = entry.operator
        if isinstance(call, Collective) and call.role is Role.DISPATCH and call.group.axis == EXPERT:
            return _volume(call, cluster)
    return None


def _volume(call: Collective, cluster: Cluster) -> TokenVolume:
    where = placement(call.group, cluster)
    ranks, inside, nodes = float(call.group.ranks), float(where.ranks_per_node), float(where.nodes)
    gathers, merges = call.kind == "all_gather", call.kind == "token_exchange"
    once = float(call.payload_bytes) / (ranks if gathers else float(call.copies))
    met, nodes_met = float(ranks_met(call, ranks)), float(places_met(call, nodes))
    copies = ranks if gathers else met if merges else float(call.copies)
    over_network = nodes_met * (nodes - 1) / nodes if merges else copies * (ranks - inside) / ranks
    return TokenVolume(
        ranks=ranks,
        nodes=nodes,
        once_bytes=once,
        copies=copies,
        ranks_met=met,
        nodes_met=nodes_met,
        sent_bytes=once * copies * (ranks - 1) / ranks,
        network_bytes=once * over_network,
    )
