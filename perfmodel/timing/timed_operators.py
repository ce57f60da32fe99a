"""How long the operators of one block take in a pass: kernels one after the other, collectives beside products that hide them.

A collective beside a matrix product is hidden as long as the product runs; what remains is exposed. While it runs it takes
a share f of the SMs, so the product slows down. With c the collective's time and g the product's:

    hidden = min(c, g / (1 - f)) * (1 - 1 / chunks),   slowdown = f * hidden,   exposed = c - hidden

where `chunks` is infinite for a product and a collective that do not depend on each other, and the number of ranks for a
pair that is pipelined: its first chunk has nothing to hide behind. Software that fuses such pairs alone hides nothing behind
other products (overlap.independent).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, is_attention_core
from perfmodel.count.roles import EXPERT_PRODUCTS, SCANS, TOKEN_EXCHANGE, TOKEN_MOVEMENT, Role
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.arithmetic import added, multiplied
from perfmodel.spec.axes import EXPERT, TENSOR
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown, exposed_part
from perfmodel.timing.collectives import Placement, collective_times_s, placement
from perfmodel.timing.kernel_times import kernel_times_s
from perfmodel.timing.kernels import ATTENTION_POWER, accumulation, at_power_limit, clock_share


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One execution of some operators: seconds by part, and of the CPU launching all.

    `weight_gradient_s` is what weight gradients take of them where a schedule runs these apart; `wait_s` what the GPU waits for
    a CPU that itself waited for it, however far that runs ahead otherwise.
    """

    parts: Breakdown = Breakdown()
    weight_gradient_s: Numeric = 0.0
    host_s: Numeric = 0.0
    wait_s: Numeric = 0.0

    def __add__(self, other: Pass) -> Pass:
        return Pass(
            parts=self.parts + other.parts,
            weight_gradient_s=added(self.weight_gradient_s, other.weight_gradient_s),
            host_s=added(self.host_s, other.host_s),
            wait_s=added(self.wait_s, other.wait_s),
        )

    def __mul__(self, times: Numeric) -> Pass:
        return Pass(
            parts=self.parts * times,
            weight_gradient_s=multiplied(self.weight_gradient_s, times),
            host_s=multiplied(self.host_s, times),
            wait_s=multiplied(self.wait_s, times),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedOperator:
    """One operator of a pass: seconds of all its executions, and what of a collective hides behind a product."""

    operator: Operator
    free_s: Numeric  # at clocks that nothing holds down
    longer: Numeric = 1.0  # times as much, at those that the power limit leaves
    waiting: Numeric = 1.0  # of a product: how many times as long as its tensor cores work
    hidden_s: Numeric = 0.0  # of a collective, behind the product beside it
    sm_fraction: Numeric = 0.0  # what it takes from that product meanwhile

    @property
    def exposed_s(self) -> Numeric:
        """What no product hides of a collective; 0 of a kernel."""
        return self.free_s - self.hidden_s if isinstance(self.operator, Collective) else 0.0

    @property
    def slowdown_s(self) -> Numeric:
        """How much longer the product beside a collective takes."""
        return self.sm_fraction * self.hidden_s

    @property
    def alone_s(self) -> Numeric:
        """Of all its executions, at the clocks that they have."""
        return multiplied(self.free_s, self.longer)


@dataclass(frozen=True, slots=True)
class HostSeconds:
    """What a pass takes the CPU: to launch all of it, and while the GPU waits for it whatever else it does."""

    launch_s: Numeric = 0.0
    wait_s: Numeric = 0.0


NO_HOST: Final = HostSeconds()


def added_up(operators: Iterable[TimedOperator], host: HostSeconds = NO_HOST, *, weights_apart: bool) -> Pass:
    """The parts of a pass that takes the CPU so long, each a sum over its operators; with weight gradients `weights_apart`."""
    alike: dict[tuple[str, ...], list[TimedOperator]] = {}  # their sum is multiplied once: of many layouts, that is what costs
    for each in operators:
        alike.setdefault(_added_with(each.operator), []).append(each)
    sums: dict[str, Numeric] = {}
    weight_gradient_s: Numeric = 0.0
    for (part, *_), group in alike.items():
        alone_s, hidden_s = _sum(each.free_s for each in group), _sum(each.hidden_s for each in group)
        if isinstance(group[0].operator, Collective):
            sums[part] = added(sums.get(part, 0.0), alone_s - hidden_s)
            slowdown_s = multiplied(hidden_s, group[0].sm_fraction)
            sums["communication_slowdown_s"] = added(sums.get("communication_slowdown_s", 0.0), slowdown_s)
            continue
        sums[part] = added(sums.get(part, 0.0), multiplied(alone_s, group[0].longer))
        if weights_apart:
            of_weights_s = _sum(each.free_s for each in group if each.operator.phase == WEIGHT_GRADIENT)
            weight_gradient_s = added(weight_gradient_s, multiplied(of_weights_s, group[0].longer))
    return Pass(parts=Breakdown(**sums), weight_gradient_s=weight_gradient_s, host_s=host.launch_s, wait_s=host.wait_s)


def _added_with(operator: Operator) -> tuple[str, ...]:
    """The part of a breakdown that it counts to, and what else those share whose factors are the same."""
    if isinstance(operator, Collective):
        how = "stepwise" if operator.stepwise else "beside" if anywhere(operator.beside_passes) else ""
        return exposed_part(operator.group.axis), operator.group.name, how
    return compute_part(operator), limited_as(operator)


def _sum(seconds: Iterable[Numeric]) -> Numeric:
    nothing: Numeric = 0.0
    return reduce(added, seconds, nothing)


def host_seconds(operators: Iterable[Operator], stack: SoftwareStack) -> HostSeconds:
    """What the CPU takes to run the code of a pass and to launch its kernels; nothing where a CUDA graph does.

    Before it launches experts it waits for the GPU to say how many tokens each of them has. What is gathered apart from its
    layer comes too late to hide.
    """
    kernels: Numeric = 0.0
    called: Numeric = 0.0
    waits: Numeric = 0.0
    apart: Numeric = 0.0
    for operator in operators:
        if operator.replayed:
            continue
        kernels = kernels + operator.repeats * _kernels(operator)
        called = called + operator.repeats * _calls(operator)
        if _asks_for_tokens(operator):
            waits = waits + operator.repeats
        if isinstance(operator, Matmul) and operator.apart and operator.phase != WEIGHT_GRADIENT:
            apart = apart + operator.repeats
    if stack.host.cuda_graphs:
        return HostSeconds(0.0 * kernels)
    launch_s = called * stack.host.operator_s + kernels * stack.host.launch_s
    gathered_s = multiplied(apart, stack.tuning.adapter_wait_s) if stack.tuning is not None else 0.0
    return HostSeconds(launch_s, multiplied(waits, stack.experts.expert_wait_s) + gathered_s)


def _asks_for_tokens(operator: Operator) -> bool:
    """Whether it is the dispatch of a forward pass to the ranks of its experts, not what ranks that share one then gather."""
    is_dispatch = isinstance(operator, Collective) and operator.role is Role.DISPATCH and operator.group.axis == EXPERT
    return is_dispatch and operator.phase != DATA_GRADIENT


def timed_operators(
    operators: Iterable[Operator], share: Numeric, cluster: Cluster, stack: SoftwareStack
) -> list[TimedOperator]:
    """The operators of one block in their order, each with the time that it takes, or leaves exposed, in a pass of it.

    `share` is what `running_share` says of their iteration.
    """
    (timed,), fractions = timed_blocks([tuple(operators)], cluster, stack)
    if not anywhere(cluster.gpu.full_load_slowdown):
        return timed
    return at_clocks(timed, clock_share(load(timed).duty) * clock_share(share), fractions, cluster, stack)


def timed_blocks(
    blocks: Sequence[Sequence[Operator]], cluster: Cluster, stack: SoftwareStack
) -> tuple[list[list[TimedOperator]], Mapping[str, Numeric]]:
    """The operators of each block in their order, at clocks that nothing holds down, and the SMs that calls of each group take.

    Kernels and calls of all blocks are timed together, then laid out, each collective beside the product it can hide behind.
    """
    every = list({id(operator): operator for block in blocks for operator in block}.values())  # layers have most in common
    calls = [operator for operator in every if isinstance(operator, Collective)]
    places = {group.name: placement(group, cluster) for group in {call.group.name: call.group for call in calls}.values()}
    call_s = iter(collective_times_s(calls, places, cluster=cluster))
    kernels = [operator for operator in every if not isinstance(operator, Collective)]
    kernel_s = iter(kernel_times_s(kernels, cluster=cluster, stack=stack))
    alone = {
        id(operator): TimedOperator(
            operator=operator,
            free_s=operator.repeats
            * expert_time_s(operator, next(call_s if isinstance(operator, Collective) else kernel_s), stack, cluster.gpu),
            waiting=accumulation(operator, gpu=cluster.gpu, stack=stack) if isinstance(operator, Matmul) else 1.0,
        )
        for operator in every
    }
    fractions = {name: sm_fraction(where, stack) for name, where in places.items()}
    return [_beside_products([alone[id(operator)] for operator in block], fractions, stack) for block in blocks], fractions


def expert_time_s(operator: Operator, seconds: Numeric, stack: SoftwareStack, gpu: Gpu) -> Numeric:
    """a + c/s of a dispatch or combine whose links take c, w*g of what runs on copies of tokens or scans and takes g; others g.

    a = dispatch_s of the software, s = its link_share, w = its product_work for products of experts, its movement_work for the
    memory-bound kernels around them; for scans scan_work or delta_rule_work, times the scan.work of the GPU's profile.
    """
    work = stack.experts
    if isinstance(operator, Collective) and operator.role in TOKEN_EXCHANGE:
        return chosen(np.asarray(operator.group.ranks) > 1, work.dispatch_s + seconds / work.link_share, 0.0)
    if operator.role in SCANS:
        chain_s = operator.chained * stack.fusion.scan_step_s if isinstance(operator, MemoryBound) else 0.0
        return seconds * scan_factor(operator.role, stack, gpu) + chain_s
    if isinstance(operator, MemoryBound):
        return seconds * work.movement_work if operator.role in TOKEN_MOVEMENT else seconds
    return seconds * work.product_work if operator.role in EXPERT_PRODUCTS else seconds


def scan_factor(role: Role, stack: SoftwareStack, gpu: Gpu) -> Numeric:
    """u*v, time of a scan over that of its products and traffic: u of the software's kernels, v of such kernels on the GPU."""
    works = {Role.SCAN: stack.fusion.scan_work, Role.DELTA_RULE: stack.fusion.delta_rule_work}
    return gpu.kernels.scan_work * works[role]


def at_clocks(
    timed: Sequence[TimedOperator], clocks: Numeric, fractions: Mapping[str, Numeric], cluster: Cluster, stack: SoftwareStack
) -> list[TimedOperator]:
    """The same pass at the `clocks` that its duty and its GPU's idle time leave, 0 where no products run."""
    if not anywhere(clocks):
        return list(timed)
    longer: dict[str, Numeric] = {}
    slowed = list(timed)
    for place, each in enumerate(timed):
        operator = each.operator
        if isinstance(operator, Matmul | FusedAttention):
            limited = limited_as(operator)
            if limited not in longer:
                longer[limited] = at_power_limit(operator, clocks, gpu=cluster.gpu, stack=stack)
            slowed[place] = TimedOperator(operator=operator, free_s=each.free_s, longer=longer[limited])
    return _beside_products(slowed, fractions, stack)


def limited_as(operator: Operator) -> str:
    """Which operators share what a power limit costs them: products of a precision, attention; "" where it costs nothing."""
    if isinstance(operator, Matmul):
        return operator.precision
    return "attention" if isinstance(operator, FusedAttention) else ""


@dataclass(frozen=True, slots=True)
class Load:
    """What of a pass its GPU's tensor cores draw their power in, and all of it."""

    busy_s: Numeric  # products less what their tensor cores wait, and attention counted by the power that it draws
    total_s: Numeric

    @property
    def duty(self) -> Numeric:
        """The first as a share of the second; 0 of a pass of no length."""
        return self.busy_s / chosen(self.total_s > 0, self.total_s, 1.0)


def load(timed: Iterable[TimedOperator]) -> Load:
    """How long the operators of a pass keep tensor cores busy, and how long they take in all."""
    busy_s: Numeric = 0.0
    total_s: Numeric = 0.0
    for each in timed:
        operator = each.operator
        if isinstance(operator, Collective):
            total_s = added(added(total_s, each.exposed_s), each.slowdown_s)
            continue
        total_s = added(total_s, each.alone_s)
        if isinstance(operator, Matmul):
            busy_s = added(busy_s, each.alone_s / each.waiting)
        elif isinstance(operator, FusedAttention):
            busy_s = added(busy_s, ATTENTION_POWER * each.alone_s)
    return Load(busy_s, total_s)


def _beside_products(
    timed: Sequence[TimedOperator], fractions: Mapping[str, Numeric], stack: SoftwareStack
) -> list[TimedOperator]:
    """The same operators, whose collectives hide behind the kernels beside them; `fractions` of the SMs by group."""
    partners = {each.operator.partner for each in timed if isinstance(each.operator, Collective)}
    beside = {named: each for each in timed if (named := (each.operator.name, each.operator.phase)) in partners}
    timed = hidden_beside_passes(timed, stack)
    return [
        _beside(each.operator, each.free_s, fractions[each.operator.group.name], beside.get(each.operator.partner), stack)
        if isinstance(each.operator, Collective) and not anywhere(each.operator.beside_passes)
        else each
        for each in timed
    ]


def hidden_beside_passes(timed: Sequence[TimedOperator], stack: SoftwareStack) -> Sequence[TimedOperator]:
    """The same operators, where those that may run beside another micro-batch's kernels do.

    The kernels of a block stand for those of the block that the other micro-batch is in: C seconds of messages hide behind G of
    kernels, of which they take a share f of the SMs: hidden = b*e*min(C, G/(1 - f)), b the share of passes that have a partner,
    e what software reaches of it.
    """
    calls = [each for each in timed if isinstance(each.operator, Collective) and anywhere(each.operator.beside_passes)]
    if not calls:
        return timed
    work = stack.experts
    kernels_s = _sum(each.alone_s for each in timed if not isinstance(each.operator, Collective))
    calls_s = _sum(each.free_s for each in calls)
    fits = np.minimum(kernels_s / (1.0 - work.dispatch_sm_fraction) / chosen(calls_s > 0, calls_s, 1.0), 1.0)

    def hidden(each: TimedOperator) -> TimedOperator:
        share = getattr(each.operator, "beside_passes", 0.0) * work.hidden_share * fits
        if stack.overlap.hide_all:
            share = 1.0
        return replace(each, hidden_s=each.free_s * share, sm_fraction=work.dispatch_sm_fraction)

    return [hidden(each) if any(each is call for call in calls) else each for each in timed]


def _kernels(operator: Operator) -> Numeric:
    """How many kernels the CPU launches for one execution; a group of one does not call its collective."""
    if isinstance(operator, Collective):
        return 1.0 * (operator.group.ranks > 1)
    return operator.kernels if isinstance(operator, MemoryBound | Matmul) else 1


def _calls(operator: Operator) -> Numeric:
    """How many times the CPU runs the code around one execution: not of what has no kernels, nor of messages."""
    if isinstance(operator, Collective):
        return 0.0
    if isinstance(operator, MemoryBound):
        return operator.calls * (operator.kernels > 0)
    return 1.0


def compute_part(operator: Matmul | FusedAttention | MemoryBound) -> str:
    """The part of a breakdown that a kernel counts to."""
    if is_attention_core(operator):
        return "attention_s"
    return "matmul_s" if isinstance(operator, Matmul) else "memory_bound_s"


def _beside(
    call: Collective, alone_s: Numeric, fraction: Numeric, product: TimedOperator | None, stack: SoftwareStack
) -> TimedOperator:
    """One collective: what of it hides behind the product beside it, and what it takes from that."""
    if stack.overlap.hide_all:
        return TimedOperator(operator=call, free_s=alone_s, hidden_s=alone_s)
    fraction = 0.0 if call.stepwise else fraction
    if not _may_hide(call, stack):
        return TimedOperator(operator=call, free_s=alone_s, sm_fraction=fraction)
    chunks_hidden = 1.0 - 1.0 / call.group.ranks if call.pipelined else 1.0
    most_s = multiplied(chunks_hidden / (1.0 - fraction) * product.free_s, product.longer) if product else 0.0
    hidden_s = np.minimum(chunks_hidden * alone_s, most_s)
    return TimedOperator(operator=call, free_s=alone_s, hidden_s=hidden_s, sm_fraction=fraction)


def _may_hide(call: Collective, stack: SoftwareStack) -> bool:
    if not call.partner[0]:
        return False
    if call.group.axis != TENSOR:
        return True
    mode = stack.overlap.tensor_parallel
    return mode == "pipelined" if call.pipelined else mode != "none" and stack.overlap.independent


def sm_fraction(where: Placement, stack: SoftwareStack) -> Numeric:
    """The share of the SMs that a collective takes while it runs: for the links of a node, where it crosses any of them."""
    alone_in_its_node = where.crosses_nodes & (np.asarray(where.ranks_per_node) == 1)
    return chosen(alone_in_its_node, stack.overlap.network_sm_fraction, stack.overlap.node_link_sm_fraction)
