"""How long a prompt waits before its first token: behind prompts that come at random, in step with it, or all at once.

Symbols: B sequences at once, O tokens of an answer, D a pass in which they decode, p what a prompt adds to it, P(m) a pass of m
prompts alone, g prompts that the tokens of one pass hold beside those of all sequences, r from the client to the engine, a what
of it is work of a server that takes one request after the other, f and F density and share of a normal distribution.

All clients start at once: in the first of `waves` rounds k = B/g passes read B prompts, one behind the other, from P(g) to
P'(g), which is beside all sequences; or the server lets them in later than those take, a*(B - 1)/2 for the middle one.
Answers that differ by s*O at most then end farther apart each round, as the steps of a random walk lead, so that the prompts
of a round come within C = min(W + B/g, O) passes, W = O * min(s * sqrt(waves/2), 1). Of one length, they end in the
order in which they began.

At random: half the running pass, the next one where it has been put together while one runs (w = 1/2 or 3/2 passes), and its
own. Passes take x = (C*D + B*p) / (C + w) on average, m = B / (C + w) prompts come in each (of B/g passes where these are
more), and q is what one more prompt adds where some are read anyway. The greater of two times counts, of which the second
leaves out how far passes differ:

    D/2 + q*u / (2*(1 - u)) + p + D,   u = (B - 1)*q / (C*D + B*q)      one behind the other: a queue of fixed service, M/D/1
    x/2 + max(m, 1)*p + (1 + m - max(m, 1))*q + D                       beside those that came meanwhile, all read in one pass

Passes hold g prompts and no more, G = g*(C + w) of them in a round. Where B prompts are about as many, they queue for places
as well: as each answer ends in a pass with the odds 1/(C + w), and g prompts are read in it, the number Q that waits is a
normal one of mean B - G and variance v = G/2, of which what is below 0 is cut off,

    Q = (B - G + sqrt(v) * f(z)/F(z)) * min(B/G, 1)^2,   z = (B - G) / sqrt(v)

(M/D/1 where few come, and g = 1), behind full passes of g*p + D. Where they are more, B/g passes are a life, in O - 1 of which
a sequence decodes, so that by Little's law no first token comes before (O*D + B*p) * (1 - (O - 1)/max(O, B/g)).

Answers of one length: where prompts ride in decode passes, the B prompts of a round fill k = ceil(B/g) passes one behind the
other, and B/k answers begin in each: so B/k end in each of k passes in a row, their clients ask again while the next group is
read, wait for that pass, and are read in the one behind it. TTFT is that of two passes full of prompts, of three where the next
one is fixed before. Nothing here is fitted: passes simulated one by one give the same.

Where prompts have passes of their own, no sequence decodes while any waits: those wait together that came between two looks
for them, n passes apart, or while such a pass ran, which it does for u = (B - 1)*p / (C*D + B*p) of the time,

    D/2 + u*P(1)/2 + P(h) * (m/h + 1)/2,   m = 1 + (B - 1) * (n/W + u*P(1)/(C*D + B*p)),   h = min(m, g)

or, where prompts take most of the time, one behind the other as above; and all B where answers end together.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.spread import share_below
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.serving.engine import EngineSchedule

FAR_BELOW: Final = -5.0  # deviations
MOST_BUSY: Final = 0.95  # of the time on prompts, for the wait of an open queue, which has no end at 1: a guard, not a fit


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptQueue:
    """The prompts of B clients, and how the engine reads them; all numbers broadcast.

    `alone_s` is a pass of one prompt and nothing else, `full_s` one of as many as there are or it holds, `beside_s` the same
    with all sequences beside them, `further_s` what one more adds to a pass of some (q), `together` how many prompts the tokens
    of a pass hold (g, below 1 where a prompt takes several), `length_spread` by what share of O answers differ (s), `door_s`
    what a server works on each request before the next one (a).
    """

    schedule: EngineSchedule
    running: Numeric
    output_tokens: Numeric
    together: Numeric
    alone_s: Numeric
    full_s: Numeric
    beside_s: Numeric
    prompt_s: Numeric
    further_s: Numeric
    decode_s: Numeric
    length_spread: float
    waves: float
    door_s: Numeric = 0.0
    replicas: Numeric = 1.0
    waited_for: Numeric = 0.0

    def first_token_s(self, request_s: Numeric) -> Numeric:
        """From the engine's door to the first token, on average over all rounds; `request_s` is r, which it does not hold."""
        steady_s = self._steady_s(request_s)
        first_s = np.maximum(self.burst_s, self.at_the_door_s + self.alone_s)
        queued: Numeric = steady_s + (first_s - steady_s) / self.waves
        return np.where(np.asarray(self.running) > 1.0, queued, self.alone_s)

    @property
    def at_the_door_s(self) -> Numeric:
        """a*(B - 1)/2: until a server that lets requests in one by one has come to the middle one of B that ask at once."""
        return self.door_s * (np.asarray(self.running) - 1.0) / 2.0

    @property
    def idle_s(self) -> Numeric:
        """How much longer that is than reading them, on average over all rounds: nothing runs in it."""
        idle_s: Numeric = np.maximum(self.at_the_door_s - self.burst_s, 0.0) / self.waves
        return idle_s

    def _steady_s(self, request_s: Numeric) -> Numeric:
        """In any round but the first."""
        if not self.schedule.mixes:
            return self.apart_s
        passes = np.maximum(self.output_tokens, self.running / self.together)
        found_s = np.where(self.ends_within < 1.0, self.in_step_s(request_s), self.at_random_s + self.held_s)
        return np.maximum(found_s, self.life_s * (1.0 - (self.output_tokens - 1.0) / passes))

    @property
    def held_s(self) -> Numeric:
        """What prompts that come at any time and ride in decode passes wait until they are enough, on average.

        Where replicas wait for each other, half the passes in which R*(1 + 1/2 + .. + 1/R) come, so that each of them has one,
        or half of those after which they are read all the same; but only while all of them decode, which R sequences or fewer
        never do, as the one that is free reads at once, and twice as many always. Where N are waited for, but no longer than L
        passes behind the first, m*L more come meanwhile, which wait half as long; no replicas wait so.
        """
        schedule = self.schedule
        passes = self.passes
        come = self.running / passes
        held: Numeric = 0.0
        several = np.asarray(self.replicas) > 1.0
        if schedule.balances:
            all_have_one = self.replicas * harmonic(self.replicas) / come
            each = np.minimum(all_have_one / 2.0 + schedule.gather_passes, schedule.balance_passes / 2.0)
            all_decode = np.clip((self.running - self.replicas) / self.replicas, 0.0, 1.0)
            held = np.where(several, each * all_decode, 0.0)
        if anywhere(np.asarray(schedule.wait_passes) > 0):
            longest = np.minimum(schedule.wait_passes, np.maximum(self.waited_for - 1.0, 0.0) / come)
            held = np.where(several, held, longest * (1.0 + come * longest / 2.0) / (1.0 + come * longest))
        at_any_time = (
            schedule.mixes
            & (np.asarray(self.running) > 1.0)
            & (np.asarray(self.ends_within) >= 1.0)
            & (np.asarray(self.output_tokens) > 1.0)
        )
        held_s: Numeric = np.where(at_any_time, held * self.round_s / passes, 0.0)
        return held_s

    @property
    def apart_s(self) -> Numeric:
        """Of prompts that have passes of their own, shared by those that come between two looks or while such a pass runs.

        Or one behind the other, where those take most of the time: the longer one, and no longer than a burst.
        """
        busy = np.where(self.ends_within < 1.0, 0.0, (self.running - 1.0) * self.prompt_s / self.round_s)
        meanwhile = busy * (self.running - 1.0) * self.alone_s / self.round_s
        read_s = self._read_s(np.minimum(self.looked_at + meanwhile, self.running))
        queued_s = np.minimum(self.behind_others_s + self.alone_s, self.burst_s)
        found_s = self._wait_s(self.decode_s / 2.0, self.decode_s) + np.maximum(busy * self.alone_s / 2.0 + read_s, queued_s)
        return np.where(self.looked_at < self.running, found_s, read_s)

    def _wait_s(self, running_s: Numeric, next_s: Numeric) -> Numeric:
        """For what is left of the running pass, and for the next one where it is fixed by then."""
        return running_s + next_s if self.schedule.overlaps else running_s

    def _read_s(self, prompts: Numeric) -> Numeric:
        """Until the middle one of m prompts is read, in passes of h = min(m, g): P(h) * (m/h + 1)/2."""
        shared = np.minimum(prompts, np.maximum(self.together, 1.0))
        return self._pass_of_s(shared) * (prompts / shared + 1.0) / 2.0

    def _pass_of_s(self, prompts: Numeric) -> Numeric:
        """P(m): of m prompts and nothing else, between one of them and as many as a pass holds."""
        most = np.minimum(np.maximum(self.together, 1.0), self.running)
        share = np.where(most > 1.0, (prompts - 1.0) / np.maximum(most - 1.0, 1e-9), 0.0)
        return self.alone_s + share * (self.full_s - self.alone_s)

    @property
    def looked_at(self) -> Numeric:
        """Prompts that come between two looks for them, n passes apart, where answers end within W: 1 + (B - 1) * n / W."""
        looks = self.schedule.receive_passes
        return 1.0 + (self.running - 1.0) * looks / np.maximum(self.ends_within, looks)

    @property
    def ends_within(self) -> Numeric:
        """Passes that answers which began together end within, W = O * min(s * sqrt(w/2), 1).

        Each round is a step of a walk, of which there are w/2 on average over w rounds, until answers end anywhere in a life.
        """
        scatter = min(self.length_spread * np.sqrt(self.waves / 2.0), 1.0) if self.length_spread else 0.0
        return scatter * self.output_tokens

    @property
    def life_s(self) -> Numeric:
        """O*D + B*p: of a request, from where it comes to the GPUs to where its answer ends."""
        return self.output_tokens * self.decode_s + self.running * self.prompt_s

    @property
    def waits(self) -> float:
        """Passes that a prompt at random waits for before its own: half the running one, and the next where that is fixed."""
        return 1.5 if self.schedule.overlaps else 0.5

    @property
    def comes_within(self) -> Numeric:
        """C = min(W + B/g, O): passes that prompts of a round come within, those that read the first round among them."""
        return np.minimum(self.ends_within + self.running / self.together, self.output_tokens)

    @property
    def passes(self) -> Numeric:
        """That prompts of a round come in, C + w, or as many as hold B prompts where those are more."""
        return np.maximum(self.comes_within + self.waits, self.running / self.together)

    @property
    def round_s(self) -> Numeric:
        """C*D + B*p: from the first of B prompts that come within C passes to the last one."""
        return self.comes_within * self.decode_s + self.running * self.prompt_s

    @property
    def at_random_s(self) -> Numeric:
        """Of a prompt that comes at any time and rides in a decode pass, or in 1/g of them."""
        passes = self.passes
        mean, pass_s = self.running / passes, self.round_s / passes
        read = np.maximum(mean, 1.0)
        more = np.maximum(np.minimum(1.0 + mean, np.maximum(self.together, 1.0)) - read, 0.0)
        beside_s = pass_s / 2.0 + self.for_a_place_s + read * self.prompt_s + more * self.further_s
        behind_s = self.decode_s / 2.0 + self.behind_others_s + self.prompt_s
        decode_s = self.decode_s * np.maximum(1.0 / self.together, 1.0)
        found_s = np.maximum(np.maximum(behind_s, beside_s) + decode_s, self.decode_s / 2.0 + self.alone_s)
        return self._wait_s(found_s, pass_s)

    @property
    def behind_others_s(self) -> Numeric:
        """q*u / (2*(1 - u)): until the prompts before it are read, where each takes q."""
        life_s = self.round_s - self.running * (self.prompt_s - self.further_s)
        share = np.minimum((self.running - 1.0) * self.further_s / life_s, MOST_BUSY)
        behind_s: Numeric = self.further_s * share / (2.0 * (1.0 - share))
        return behind_s

    @property
    def for_a_place_s(self) -> Numeric:
        """Full passes until Q prompts that wait have found a place; they come as answers end, (B - Q)/(C + w) in a pass."""
        life = self.comes_within + self.waits
        places = self.together * life
        deviation, taken = np.sqrt(places / 2.0), np.minimum(self.running / places, 1.0)
        waiting = deviation * above_zero((self.running - places) / deviation) * taken**2
        decoding = np.minimum(places / self.running, 1.0)  # of all at once: the others wait
        passes: Numeric = waiting * life / (self.running - waiting)
        return passes * (self.together * self.prompt_s + decoding * self.decode_s)

    def in_step_s(self, request_s: Numeric) -> Numeric:
        """Of prompts that come group by group, one in each of k passes; before the first group only sequences decode.

        A client asks r after the pass that ended its answer, and at least half of the pass that runs by then is left.
        """
        passes = np.ceil(self.running / self.together)
        group = self.running / passes
        full_s = group * self.prompt_s + self.decode_s
        ahead = 1.0 if self.schedule.overlaps else 0.0
        behind = np.maximum(passes - 1.0 - ahead, 0.0) / passes  # the share of groups that find a full pass running
        left_s, plain_s = (np.maximum(each - request_s, each / 2.0) for each in (full_s, self.decode_s))
        next_s = (full_s * (passes - 1.0) + self.decode_s) / passes
        found_s = full_s * np.maximum(1.0 / group, 1.0) + self._wait_s(behind * left_s + (1.0 - behind) * plain_s, next_s)
        return np.where(passes > 1.0, found_s, self.burst_s)  # one group ends as a whole, and leaves nobody who decodes

    @property
    def burst_s(self) -> Numeric:
        """Of B prompts that come at once: all read one behind the other, beside those of them that decode by then.

        In pass j of k these are (j - 1)/k of all, whose passes until a prompt's own sum to (k^2 - 1)/(6*k) of what all add.
        """
        passes = np.maximum(self.running / self.together, 1.0)
        beside_s = (passes - 1.0 / passes) / 6.0 * (self.beside_s - self.full_s) if self.schedule.mixes else 0.0
        return self._read_s(self.running) + beside_s


def harmonic(number: Numeric) -> Numeric:
    """1 + 1/2 + .. + 1/n: of n things drawn at random, n times as many draws have each of them.

    >>> [round(float(harmonic(n)), 3) for n in (1, 2, 8)]
    [1.0, 1.5, 2.718]
    """
    near = np.log(number) + np.euler_gamma + 1.0 / (2.0 * np.asarray(number)) - 1.0 / (12.0 * np.asarray(number) ** 2)
    return np.where(np.asarray(number) > 1.0, near, 1.0)


def above_zero(middle: Numeric) -> Numeric:
    """z + f(z)/F(z), the mean of what is above 0 of a normal distribution around z of deviation 1; f its density, F its share.

    Far below 0, where F is lost to rounding, f/F is a continued fraction, x + 1/(x + 2/(x + 3/x)) of x = -z.

    >>> [round(float(above_zero(z)), 4) for z in (-100.0, -5.0, 0.0, 3.0)]
    [0.01, 0.1865, 0.7979, 3.0044]
    """
    near, below = np.maximum(middle, FAR_BELOW), np.maximum(np.negative(middle), -FAR_BELOW)
    density = np.exp(-(near**2) / 2.0) / np.sqrt(2.0 * np.pi)
    far = 1.0 / (below + 2.0 / (below + 3.0 / below))
    return np.where(np.asarray(middle) < FAR_BELOW, far, near + density / share_below(near))
