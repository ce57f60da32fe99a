"""How long all passes of an iteration take on a pipeline: the longest of the paths through its first, middle and last stages.

Symbols: p stages, v virtual_pipeline, m micro-batches, c a message; f_i, b_i, w_i what one micro-batch takes on stage i
forward, backward (of the inputs, where weight gradients are apart) and for weight gradients, t_i their sum; n = p - 1 - i
stages after it; a_i the pieces it runs forward before its first backward pass, k_i the micro-batches whose weight gradients it
keeps to the end.

    T       = max over i of m*t_i + first_i + last_i + ends_i, each of the three at least 0
    first_i = F + (sum of b after i)/v + n*c - (sum of f before i)/v - i*c - a_i*f_i/v                  until it can go back
    last_i  = G + (sum of f after i)/v + n*c - (sum of b before i)/v - i*c - a_i*b_i/v - (a_i - 1)*w_i
    ends_i  = (sum of f + b before i)/v + 2*i*c + w_0 - k_i*w_i
    F       = sum(f)/v + (p - 1)*c + (v - 1)*max(sum(f)/v + p*c, p*max(f)/v); G the same of b

                   a_i                      k_i
    1f1b           n + 1                    (w is part of b)      arXiv:2104.04473, section 2.2
    interleaved    2*n + (v - 1)*p + 1      (the same)            the same; Megatron's warm-up
    zb-h1, zb-1p   n + 1                    i + 1                 arXiv:2401.10241, section 2
    zb-2p          2*n + 1                  2*i + 1               the same

For even stages without messages T = (m + (p - 1)/v)*t, less 2*(p - 1)*w for zb-h1 and 3*(p - 1)*w for zb-2p. Where 1f1b waits
for its messages, f_i is longer by c on all stages but the last, b_i on all but the first. Interleaved, it waits and runs
in step: T = S + 2*(m*v + p - 2)*c with S = m*max(t) + (sum(t) - max(t))/v. Few micro-batches overlap the waits of first_i and
last_i: T <= S + 2*(p*v - 1)*c.

Zero-bubble schedules do not wait for messages, but what a stage sends shares its link, and from n stages before the last to it
and back a micro-batch takes R_n = (n + 1)/p * sum(f + b) + 2*n*c, until when the stage runs a_i pieces forward at most.
Messages that outlast passes make that the pace: T >= F + G + (m - 1)*max(2*c, R_n/a_i), c where p = 2, with the most n of
which a_i < m.

events/pipeline_events.py runs these schedules event by event: for p = 2..16, v = 1..8, m >= 2p, stages that differ by
-15 to +30 % and messages of up to a tenth of a piece, T is within 6 % of it (2 % for 95 % of the cases). For messages of up to
five times as much as a stage takes, zero-bubble schedules are within -11 to +30 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.arithmetic import added, divided, less, multiplied
from perfmodel.spec.fields import Numeric, Truth, chosen
from perfmodel.spec.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSeconds:
    """What one micro-batch takes on a stage; without weight gradients of their own, they are in `backward_s`."""

    forward_s: Numeric
    backward_s: Numeric
    weight_s: Numeric = 0.0

    @property
    def total_s(self) -> Numeric:
        """Both passes and weight gradients."""
        return added(self.forward_s + self.backward_s, self.weight_s)

    def __add__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(
            forward_s=self.forward_s + other.forward_s,
            backward_s=self.backward_s + other.backward_s,
            weight_s=added(self.weight_s, other.weight_s),
        )

    def __sub__(self, other: StageSeconds) -> StageSeconds:
        return StageSeconds(
            forward_s=less(self.forward_s, other.forward_s),
            backward_s=less(self.backward_s, other.backward_s),
            weight_s=less(self.weight_s, other.weight_s),
        )

    def __mul__(self, times: Numeric) -> StageSeconds:
        return StageSeconds(
            forward_s=self.forward_s * times,
            backward_s=self.backward_s * times,
            weight_s=multiplied(self.weight_s, times),
        )

    def where(self, condition: Truth, other: StageSeconds) -> StageSeconds:
        """These seconds where the condition holds, elsewhere the other ones."""
        return StageSeconds(
            forward_s=chosen(condition, self.forward_s, other.forward_s),
            backward_s=chosen(condition, self.backward_s, other.backward_s),
            weight_s=chosen(condition, self.weight_s, other.weight_s),
        )


NO_SECONDS: Final = StageSeconds(forward_s=0.0, backward_s=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTimes:
    """The first stage, the fullest between the ends (anything where there is none), the last, and the sum of all."""

    first: StageSeconds
    middle: StageSeconds
    last: StageSeconds
    whole: StageSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages:
    """What one message to a neighbour takes, and whether a stage waits for its messages."""

    seconds: Numeric
    waits: bool


def pipeline_time_s(times: StageTimes, layout: Layout, messages: Messages) -> Numeric:
    """T of all micro-batches.

    >>> from dataclasses import replace
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> run = read_candidates("nemotron-4-15b")[0].run
    >>> layout = replace(run.layout(run.stages[0]), pipeline_parallel=4, global_batch_size=96 * 8)
    >>> one = StageSeconds(forward_s=1.0, backward_s=2.0)
    >>> times = StageTimes(first=one, middle=one, last=one, whole=one * 4)
    >>> float(pipeline_time_s(times, layout, Messages(seconds=0.0, waits=False)))  # (8 + 4 - 1) * 3
    33.0
    """
    stages, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    batches, message_s = layout.micro_batches, chosen(stages > 1, messages.seconds, 0.0)
    slowest_s = reduce(np.maximum, (each.total_s for each in (times.first, times.middle, times.last)))
    in_step_s = batches * slowest_s + divided(times.whole.total_s - slowest_s, virtual)
    path_s = _longest_path_s(times, layout, messages)
    if messages.waits:
        interleaved_s = in_step_s + 2 * (batches * virtual + stages - 2) * message_s
        plain_s = np.minimum(path_s, in_step_s + 2 * (batches + stages - 1) * message_s)
        waiting_s: Numeric = chosen(virtual > 1, interleaved_s, plain_s)
        return waiting_s
    most_s = in_step_s + 2 * (stages * virtual - 1) * message_s
    if layout.pipeline_schedule != "1f1b":
        # with fewer micro-batches than stages, every weight gradient but the last finds its place
        share = (times.whole.forward_s + times.whole.backward_s) * (stages - 1) - (batches - 1) * times.whole.weight_s
        most_s = chosen(batches < stages, batches * slowest_s + share / stages + 2 * (stages - 1) * message_s, most_s)
    longer_s = chosen(virtual > 1, batches * np.maximum(2 * message_s * virtual - slowest_s, 0.0), 0.0)
    beside_s: Numeric = np.minimum(path_s, most_s) + longer_s
    return (
        beside_s if layout.pipeline_schedule == "1f1b" else np.maximum(beside_s, _paced_by_messages_s(times, layout, messages))
    )


def _paced_by_messages_s(times: StageTimes, layout: Layout, messages: Messages) -> Numeric:
    """F + G + (m - 1)*max(2*c, R_n/a_i): micro-batches that follow each other as their messages let them."""
    stages, batches, message_s = np.asarray(layout.pipeline_parallel), layout.micro_batches, messages.seconds
    once_s = times.whole.forward_s + times.whole.backward_s
    each = 2 if layout.pipeline_schedule == "zb-2p" else 1
    behind = np.clip((batches - 2) // each, 0, stages - 1)  # n
    back_s = (behind + 1) / stages * once_s + 2 * behind * message_s
    pace_s = np.maximum(chosen(stages > 2, 2, 1) * message_s, back_s / _ahead(layout, behind))
    paced_s: Numeric = once_s + 2 * (stages - 1) * message_s + (batches - 1) * pace_s
    return chosen(stages > 1, paced_s, 0.0)


def _longest_path_s(times: StageTimes, layout: Layout, messages: Messages) -> Numeric:
    """The longest of the paths of the first stage, of the fullest and of an average one between the ends, and of the last."""
    stages = np.asarray(layout.pipeline_parallel)
    several = stages > 2
    first, last, whole = times.first, times.last, times.whole
    middle, before_last = times.middle.where(several, first), whole - last
    between = ((whole - first - last) * (1.0 / np.maximum(stages - 2, 1))).where(several, first)
    times = replace(times, middle=middle)
    fill_s = _through_s(times, "forward_s", layout, messages), _through_s(times, "backward_s", layout, messages)
    places = (
        (first, NO_SECONDS, 0),
        (middle, first.where(several, NO_SECONDS), chosen(several, 1, 0)),
        (between, (before_last - between).where(several, NO_SECONDS), chosen(several, stages - 2, 0)),
        (last, before_last, stages - 1),
    )
    paths = [
        _path_s(_StagePosition(stage=stage, before=before, position=at), times, layout, messages, fill_s)
        for stage, before, at in places
    ]
    longest: Numeric = reduce(np.maximum, paths)
    return longest


def _through_s(times: StageTimes, part: str, layout: Layout, messages: Messages) -> Numeric:
    """F, or G: until a micro-batch has passed through all pieces of the pipeline in one direction."""
    stages, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    once_s = divided(getattr(times.whole, part), virtual)
    longest_s = reduce(np.maximum, (getattr(each, part) for each in (times.first, times.middle, times.last)))
    again_s = np.maximum(once_s + stages * messages.seconds, divided(stages * longest_s, virtual))
    through_s: Numeric = once_s + (stages - 1) * messages.seconds + (virtual - 1) * again_s
    return through_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _StagePosition:
    stage: StageSeconds
    before: StageSeconds  # of all stages before it
    position: Numeric


def _path_s(place: _StagePosition, times: StageTimes, layout: Layout, messages: Messages, fill_s: Sequence[Numeric]) -> Numeric:
    """m*t_i + first_i + last_i + ends_i of one stage."""
    stage, before, batches = place.stage, place.before, layout.micro_batches
    virtual, message_s = np.asarray(layout.virtual_pipeline), messages.seconds
    after_it = np.asarray(layout.pipeline_parallel) - 1 - place.position
    after = times.whole - before - stage
    waiting_s = message_s if messages.waits else 0.0
    forward_s = added(stage.forward_s, multiplied(waiting_s, chosen(after_it > 0, 1, 0)))
    backward_s = added(stage.backward_s, multiplied(waiting_s, chosen(place.position > 0, 1, 0)))
    ahead, kept = _ahead(layout, after_it), _kept(layout, place.position)
    before_f = divided(before.forward_s, virtual) + place.position * message_s
    before_b = divided(before.backward_s, virtual) + place.position * message_s
    far_s = after_it * message_s
    first_s = fill_s[0] + divided(after.backward_s, virtual) + far_s - before_f - divided(ahead * forward_s, virtual)
    last_s: Numeric = fill_s[1] + divided(after.forward_s, virtual) + far_s - before_b - divided(ahead * backward_s, virtual)
    last_s = less(last_s, multiplied(stage.weight_s, ahead - 1))
    ends_s = less(added(before_f + before_b, times.first.weight_s), multiplied(stage.weight_s, kept))
    waits_s: Numeric = np.maximum(first_s, 0.0) + np.maximum(last_s, 0.0) + np.maximum(ends_s, 0.0)
    return batches * added(forward_s + backward_s, stage.weight_s) + waits_s


def _ahead(layout: Layout, after_it: Numeric) -> Numeric:
    """a_i, at most all pieces of all micro-batches."""
    stages, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    pieces: Numeric = after_it
    if layout.pipeline_schedule == "1f1b":
        pieces = chosen(virtual > 1, 2 * after_it + (virtual - 1) * stages, after_it)
    elif layout.pipeline_schedule == "zb-2p":
        pieces = 2 * after_it
    return np.minimum(pieces, virtual * layout.micro_batches - 1) + 1


def _kept(layout: Layout, position: Numeric) -> Numeric:
    """k_i, at most all micro-batches."""
    batches = 2 * position if layout.pipeline_schedule == "zb-2p" else position
    return np.minimum(batches, layout.micro_batches - 1) + 1
