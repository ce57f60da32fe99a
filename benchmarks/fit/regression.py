"""How coefficients are fitted, and how wrong they are on rows that the fit did not see.

A fit makes the logarithm of the equation nearest to that of the measurement, outliers damped. One group of rows in five is
held out: all rows of a shape go together, because neighbours of a row that was fitted say nothing of a new shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

Floats = NDArray[np.float64]
HELD_OUT: Final = 0.2
SEED: Final = 0
NINETY: Final = 1.645  # standard deviations on either side that hold 90 % of a normal distribution
DAMPING: Final = 0.02  # relative errors much larger count in proportion, not squared
LEAST_SPREAD: Final = 1e-4
MOST_SPREAD: Final = 3.0  # of a coefficient (spec/fields.py); a busy machine may scatter more, which its evidence still says
BOUND: Final = 0.005
MOST_STEPS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Free:
    """A coefficient that is fitted: where to start, and between which bounds it makes sense."""

    start: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Coefficients, the relative half width of each one's 90 % interval, and the predictions of all rows."""

    found: dict[str, float]  # by name
    spread: dict[str, float]
    predicted_s: Floats
    measured_s: Floats
    out: NDArray[np.bool_]
    cost: float  # what was made least
    at_bounds: tuple[str, ...] = ()  # coefficients that the rows leave at an end of what makes sense: their spread says nothing

    @property
    def error(self) -> Floats:
        """predicted / measured - 1 of every row."""
        return self.predicted_s / self.measured_s - 1.0

    def held_out_error(self, rows: NDArray[np.bool_] | None = None) -> dict[str, float]:
        """Rows, median and 90th percentile of the absolute error of the held-out rows among `rows`."""
        chosen = np.abs(self.error[self.out if rows is None else self.out & rows])
        return {
            "rows": len(chosen),
            "median": rounded(float(np.median(chosen)), 3),
            "p90": rounded(float(np.quantile(chosen, 0.9)), 3),
        }


def held_out(groups: NDArray[Any], seed: int = SEED) -> NDArray[np.bool_]:
    """Whether each row belongs to one of the fifth of the groups that the fit does not see."""
    draws = np.random.default_rng(seed).random(int(groups.max()) + 1) < HELD_OUT
    return np.asarray(draws[groups])


def fit(
    equation: Callable[[Mapping[str, Any]], Floats],
    free: Mapping[str, Free],
    measured_s: Floats,
    groups: NDArray[Any],
) -> Fit:
    """The coefficients named in `free` that make `equation` (seconds of every row) nearest to `measured_s`."""
    return _fit_without(equation, free, measured_s, groups, held_out(groups))


def _fit_without(
    equation: Callable[[Mapping[str, Any]], Floats],
    free: Mapping[str, Free],
    measured_s: Floats,
    groups: NDArray[Any],
    out: NDArray[np.bool_],
    *,
    weights: Floats | None = None,
) -> Fit:
    """The fit of the rows that are not `out`, and its predictions of all."""
    values, found, residual = _least(equation, free, measured_s, out, weights)
    return Fit(
        found=values,
        spread=_spread(list(free), found.x, found.jac, residual, groups[~out]),
        predicted_s=np.asarray(equation(values)),
        measured_s=measured_s,
        out=out,
        cost=float(found.cost),
        at_bounds=tuple(name for name in free if _at_bound(free[name], values[name])),
    )


def fit_of_few(
    equation: Callable[[Mapping[str, Any]], Floats],
    free: Mapping[str, Free],
    measured_s: Floats,
    groups: NDArray[Any],
    weights: Floats | None = None,
) -> Fit:
    """A fit of all rows of a small table, whose errors are those with each group held out once.

    Without a group the solver starts from the coefficients of all rows, which lie near. `weights` multiply the squared errors
    of rows; without them all rows count alike.
    """
    of_all = _fit_without(equation, free, measured_s, groups, np.zeros(len(measured_s), dtype=bool), weights=weights)
    predicted_s = np.zeros(len(measured_s))
    found = of_all.found
    near = {
        name: replace(each, start=float(np.clip(found[name], each.low, each.high)) or each.start) for name, each in free.items()
    }
    for group in np.unique(groups):
        out = groups == group
        without, *_ = _least(equation, near, measured_s, out, weights)
        predicted_s[out] = np.asarray(equation(without))[out]
    return replace(of_all, predicted_s=predicted_s, out=~of_all.out)


def _at_bound(free: Free, value: float) -> bool:
    near = BOUND * (free.high - free.low)
    return value <= min(free.low * (1 + BOUND), free.low + near) or value >= free.high * (1 - BOUND)


def _least(
    equation: Callable[[Mapping[str, Any]], Floats],
    free: Mapping[str, Free],
    measured_s: Floats,
    out: NDArray[np.bool_],
    weights: Floats | None,
) -> tuple[dict[str, float], Any, Floats]:
    """The best coefficients without the rows that are `out`, the solver's result, and its residuals."""
    names = list(free)
    start = np.array([free[name].start for name in names])
    root = 1.0 if weights is None else np.sqrt(weights)

    def residual(scaled: Floats) -> Floats:
        values = dict(zip(names, scaled * start, strict=True))
        return np.asarray((root * np.log(equation(values) / measured_s))[~out])

    found = least_squares(
        residual,
        np.ones(len(names)),
        bounds=(
            [free[name].low / free[name].start for name in names],
            [free[name].high / free[name].start for name in names],
        ),
        loss="soft_l1",
        f_scale=DAMPING,
        max_nfev=MOST_STEPS,
    )
    values = {name: rounded(value, 4) for name, value in zip(names, found.x * start, strict=True)}
    return values, found, residual(found.x)


def _spread(names: list[str], scaled: Floats, jacobian: Floats, residual: Floats, groups: NDArray[Any]) -> dict[str, float]:
    """What the fit leaves open of each coefficient with the others held, from the scatter between groups of rows.

    The information matrix of errors that are alike within a group is I = H B^-1 H, with H = J'J and B = sum over groups of
    (J_g' r_g)(J_g' r_g)'; with the others held the variance of coefficient i is 1 / I_ii.
    """
    hessian = jacobian.T @ jacobian
    scores = np.zeros((int(groups.max()) + 1, len(names)))
    damped = residual * np.power(1.0 + np.square(residual / DAMPING), 0.25)  # as the solver has weighted the Jacobian's rows
    np.add.at(scores, groups, jacobian * damped[:, None])
    information = hessian @ np.linalg.pinv(scores.T @ scores) @ hessian
    deviation = 1.0 / np.sqrt(np.maximum(np.diag(information), 1e-300))
    relative = NINETY * deviation / np.maximum(np.abs(scaled), 1e-12)
    return {
        name: rounded(min(float(value), 1.0), 2) for name, value in zip(names, relative, strict=True) if value > LEAST_SPREAD
    }


def spread_of_sums(errors: Floats, number: int, draws: int = 20000) -> float:
    """The 90th percentile of the absolute relative error of a sum of `number` kernels drawn from held-out rows."""
    chance = np.random.default_rng(SEED)
    picked = chance.integers(0, len(errors), (draws, number))
    return min(rounded(float(np.quantile(np.abs(errors[picked].mean(axis=1)), 0.9)), 2), MOST_SPREAD)


def rounded(value: float, digits: int) -> float:
    """`value` to significant digits."""
    return float(f"{value:.{digits}g}")
