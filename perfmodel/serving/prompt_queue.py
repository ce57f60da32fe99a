"""How long a prompt waits before its first token: behind prompts that come at random, in step with it, or all at once.

Symbols: B sequences at once, O tokens of an answer, D a pass in which they decode, p what a prompt adds to it, g prompts that
the tokens of one pass hold, r from the client to the engine.

At random: half the running pass, and behind other prompts as in a queue of fixed service (M/D/1) that is busy for the share
u = (B - 1)*p / (O*D + B*p): p*u / (2*(1 - u)). Where the next pass has been put together while one runs, that pass more.

Answers of one length end in the order in which they began. Where prompts ride in decode passes, the B prompts of a round fill
k = ceil(B/g) passes one behind the other, and B/k answers begin in each: so B/k end in each of k passes in a row, their clients
ask again while the next group is read, wait for that pass, and are read in the one behind it. TTFT is that of two passes full
of prompts, of three where the next one is fixed before. Nothing here is fitted: passes simulated one by one give the same.

Where prompts have passes of their own, no sequence decodes while any waits: those wait together that came between two looks
for them, all B where answers end together. Answers that differ by s*O at most end farther apart each round, as the steps of a
random walk lead; prompts come at random as soon as that is a pass.

All clients start at once: in the first of `waves` rounds B prompts queue.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.engine import EngineSchedule

MOST_BUSY: Final = 0.95  # of the time on prompts, for the wait of an open queue, which has no end at 1: a guard, not a fit


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptQueue:
    """The prompts of B clients, and how the engine reads them; all numbers broadcast.

    `alone_s` is a pass of one prompt and nothing else, `together` how many prompts the tokens of a pass hold (g, below 1 where
    a prompt takes several), `length_spread` by what share of O answers differ (s).
    """

    schedule: EngineSchedule
    running: Numeric
    output_tokens: Numeric
    together: Numeric
    alone_s: Numeric
    prompt_s: Numeric
    decode_s: Numeric
    length_spread: float
    waves: float

    def first_token_s(self, request_s: Numeric) -> Numeric:
        """From the engine's door to the first token, on average over all rounds; `request_s` is r, which it does not hold."""
        steady_s = self._steady_s(request_s)
        queued: Numeric = steady_s + np.maximum(self.burst_s - steady_s, 0.0) / self.waves
        return np.where(np.asarray(self.running) > 1.0, queued, self.alone_s)

    def _steady_s(self, request_s: Numeric) -> Numeric:
        """In any round but the first."""
        if not self.schedule.mixes:
            wait_s = self._wait_s(self.decode_s / 2.0, self.decode_s)
            return np.where(self.looked_at < self.running, wait_s, 0.0) + self._read_s(self.looked_at)
        return np.where(self.ends_within < 1.0, self.in_step_s(request_s), self.at_random_s)

    def _wait_s(self, running_s: Numeric, next_s: Numeric) -> Numeric:
        """For what is left of the running pass, and for the next one where it is fixed by then."""
        return running_s + next_s if self.schedule.overlaps else running_s

    def _read_s(self, prompts: Numeric) -> Numeric:
        """Until the middle one of some prompts is read, those that share a pass at its end: P + ((m + min(m, g))/2 - 1) * p."""
        shared = np.minimum(prompts, np.maximum(self.together, 1.0))
        return self.alone_s + ((prompts + shared) / 2.0 - 1.0) * self.prompt_s

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
    def at_random_s(self) -> Numeric:
        """Of a prompt that comes at any time and rides in a decode pass, or in 1/g of them."""
        life_s = self.output_tokens * self.decode_s + self.running * self.prompt_s
        share = np.minimum((self.running - 1.0) * self.prompt_s / life_s, MOST_BUSY)
        wait_s = self._wait_s(self.decode_s / 2.0, life_s / self.output_tokens) + self.prompt_s * share / (2.0 * (1.0 - share))
        return wait_s + np.maximum(self.alone_s, self.prompt_s + self.decode_s * np.maximum(1.0 / self.together, 1.0))

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

        In pass j of k these are (j - 1)/k of all, whose passes until a prompt's own sum to (k^2 - 1)/(6*k) decode passes.
        """
        passes = np.maximum(self.running / self.together, 1.0)
        beside = (passes - 1.0 / passes) / 6.0 * self.decode_s if self.schedule.mixes else 0.0
        return self._read_s(self.running) + beside
