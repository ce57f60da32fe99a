"""Is the best layout still the best when the uncertain numbers are not what they are thought to be?

All layouts share one cluster and one stack: a number that is off is off for all of them, so most of an interval cancels between
two layouts. Each number moves on its own, as in timing/uncertainty.py:

    ln T_k(z) = ln T_k + sum over i of |z_i| * r_ki + u_k,    r_ki = ln(T_ki / T_k) with number i at the end that z_i points to

90 % of z_i lie between -1 and 1; u_k is what the equations lack of this layout alone, and the rest of the discrepancy is the
same for all (run_evidence.py). All z_i and u_k of a draw are wide or narrow together (error_law.py). Ignored: that
two numbers moved together may do more than both alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import heaviest_tails
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.timing.uncertainty import Uncertainty

DRAWS: Final = 2000
SEED: Final = 2402


@dataclass(frozen=True, slots=True, kw_only=True)
class Robustness:
    """How sure it is that the first of several layouts is the fastest, over draws of the uncertain numbers.

    `first_share` is the share of draws in which each layout is the fastest; regret is the ratio by which the first layout is
    slower than the fastest of a draw, none of which is farther out than spec/evidence/error_law.py draws.
    """

    first_share: tuple[float, ...]
    mean_regret: float
    regret_p95: float  # exceeded in a twentieth of the draws


def robustness(times_s: Sequence[float], intervals: Sequence[Uncertainty]) -> Robustness:
    """How often each of several layouts is the fastest, and the regret of the first; all layouts share the draws.

    >>> sure = Uncertainty(low_s=1.0, high_s=1.0, half_widths_s={}, ends_s={}, discrepancy_s=0.0)
    >>> robustness([1.0, 1.1], [sure, sure]).first_share
    (1.0, 0.0)
    """
    logs = np.log(np.asarray(times_s, dtype=np.float64))
    paths = list(dict.fromkeys(path for each in intervals for path in each.ends_s))
    up, down = (_responses(logs, intervals, paths, end) for end in (0, 1))
    generator = np.random.default_rng(SEED)
    law = heaviest_tails(each.law for each in intervals)
    widths, reach = law.draws_of_scale(generator, DRAWS)[:, None] / DEVIATIONS, law.farthest / DEVIATIONS
    draws = np.clip(generator.standard_normal((DRAWS, len(paths))) * widths, -reach, reach)
    apart = np.asarray([float(each.discrepancy.apart(each.discrepancy.layout_deviation)) for each in intervals])
    own = np.clip(generator.standard_normal((DRAWS, len(logs))) * widths, -reach, reach) * apart
    drawn = logs + np.maximum(draws, 0.0) @ up.T + np.maximum(-draws, 0.0) @ down.T + own
    first = np.bincount(drawn.argmin(axis=1), minlength=len(logs)) / DRAWS
    regret = np.exp(drawn[:, 0] - drawn.min(axis=1)) - 1.0
    return Robustness(
        first_share=tuple(first.tolist()), mean_regret=float(regret.mean()), regret_p95=float(np.quantile(regret, 0.95))
    )


def _responses(
    logs: NDArray[np.float64], intervals: Sequence[Uncertainty], paths: Sequence[str], end: int
) -> NDArray[np.float64]:
    """ln(T_ki / T_k), a row a layout and a column a number; 0 for numbers that a layout does not depend on."""
    rows = [
        [np.log(float(each.ends_s[path][end])) - log if path in each.ends_s else 0.0 for path in paths]
        for each, log in zip(intervals, logs, strict=True)
    ]
    return np.asarray(rows, dtype=np.float64).reshape(len(logs), len(paths))
