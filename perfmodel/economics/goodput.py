"""How much of the calendar is training: checkpoints, failures, and how often a checkpoint is best written.

Symbols: l failures_per_s of the whole job, M = 1 / l the mean time between them, t interval_s (training between two
checkpoints), d stall_s (what each of them holds training up), a hidden_s (what it is written for after that, beside training),
R restart_s.

References: J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17 (1974),
doi 10.1145/361147.361115. J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps,
FGCS 22 (2006), doi 10.1016/j.future.2004.11.016: equation 20 (the time that a run takes), equation 37 (the interval).

Ignored: failures that come in bursts (here each second is as likely as the next); what a run does at its very start and end,
less than one interval.
"""

from __future__ import annotations

import numpy as np

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.units import SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often a job fails and writes checkpoints, and how long both take [s]; arrays of any shape that broadcast."""

    failures_per_s: Numeric
    interval_s: Numeric  # infinite where nothing ever fails and no interval is given
    stall_s: Numeric
    hidden_s: Numeric
    restart_s: Numeric


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeShares:
    """The shares of the calendar that are training, lost, stalled and restarting; they sum to 1."""

    training: Numeric  # training that counts
    lost: Numeric  # training that is done again after a failure
    stalled: Numeric  # waiting for checkpoints
    restarting: Numeric


def effective_share(*, gpus: Numeric, parameters: Numeric, terms: Economics) -> Numeric:
    """The share of the calendar that is training which counts, for a job with this many GPUs and parameters.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> round(float(effective_share(gpus=16384, parameters=405e9, terms=economics_preset("typical"))), 3)
    0.904
    """
    return time_shares(cadence(gpus=gpus, parameters=parameters, terms=terms)).training


def calendar_days(*, days: Numeric, effective_share: Numeric) -> Numeric:
    """days / effective_share: calendar days of so many days of training; infinite for a job that never ends.

    >>> float(calendar_days(days=45.0, effective_share=0.9))
    50.0
    """
    with np.errstate(divide="ignore"):
        return np.true_divide(days, effective_share)


def cadence(*, gpus: Numeric, parameters: Numeric, terms: Economics) -> Cadence:
    """How often a job of this size fails and writes checkpoints: at the best interval that is sane, unless the terms give one.

    A checkpoint begins when the one before it is wholly written, no sooner.
    """
    failures_per_s = gpus * terms.failures_per_gpu_hour / SECONDS_PER_HOUR
    write_s = checkpoint_s(gpus=gpus, parameters=parameters, terms=terms)
    stall_s = write_s * terms.checkpoint_stall_share
    hidden_s = write_s - stall_s
    chosen_s = terms.checkpoint_interval_s
    if chosen_s is None:
        best_s = daly_interval_s(stall_s=stall_s, failures_per_s=failures_per_s)
        chosen_s = np.maximum(best_s, terms.least_checkpoint_interval_s)
    return Cadence(
        failures_per_s=failures_per_s,
        interval_s=np.maximum(chosen_s, hidden_s),
        stall_s=stall_s,
        hidden_s=hidden_s,
        restart_s=restart_s(gpus=gpus, parameters=parameters, terms=terms),
    )


def kept_cadence(*, gpus: Numeric, parameters: Numeric, terms: Economics, actual: Economics) -> Cadence:
    """How a job fails under `actual` terms that checkpoints as often as is best under the `terms` that are known."""
    pace = cadence(gpus=gpus, parameters=parameters, terms=actual)
    planned = cadence(gpus=gpus, parameters=parameters, terms=terms)
    return replace(pace, interval_s=np.maximum(planned.interval_s, pace.hidden_s))


def checkpoint_s(*, gpus: Numeric, parameters: Numeric, terms: Economics) -> Numeric:
    """parameters * bytes of each / min(gpus * rate of a GPU, rate of the storage): how long it takes to write one.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> round(float(checkpoint_s(gpus=1000, parameters=122e9, terms=economics_preset("typical"))), 6)
    14.0
    """
    rate = _rate(gpus * terms.checkpoint_write_bytes_per_s_per_gpu, terms.storage_write_bytes_per_s)
    return parameters * terms.checkpoint_bytes_per_parameter / rate


def restart_s(*, gpus: Numeric, parameters: Numeric, terms: Economics) -> Numeric:
    """detect + requeue + start up + read the checkpoint: from a failure until training goes on.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> round(float(restart_s(gpus=1000, parameters=122e9, terms=economics_preset("typical"))), 6)
    974.0
    """
    return terms.detect_s + terms.requeue_s + _ready_s(gpus, parameters, terms)


def switch_s(*, gpus: Numeric, parameters: Numeric, terms: Economics) -> Numeric:
    """write a checkpoint + start up + read it: from one layout to the next, as was planned.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> round(float(switch_s(gpus=1000, parameters=122e9, terms=economics_preset("typical"))), 6)
    328.0
    """
    return checkpoint_s(gpus=gpus, parameters=parameters, terms=terms) + _ready_s(gpus, parameters, terms)


def _ready_s(gpus: Numeric, parameters: Numeric, terms: Economics) -> Numeric:
    """From the start of the processes until the checkpoint is read."""
    rate = _rate(gpus * terms.checkpoint_read_bytes_per_s_per_gpu, terms.storage_read_bytes_per_s)
    return terms.start_up_s + parameters * terms.checkpoint_bytes_per_parameter / rate


def _rate(of_gpus: Numeric, of_storage: Numeric | None) -> Numeric:
    return of_gpus if of_storage is None else np.minimum(of_gpus, of_storage)


def young_interval_s(*, stall_s: Numeric, failures_per_s: Numeric) -> Numeric:
    """sqrt(2 * d * M), the best interval where checkpoints are much shorter than the time between failures (Young 1974).

    >>> float(young_interval_s(stall_s=8.0, failures_per_s=1 / 10_000))
    400.0
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        interval = np.sqrt(2.0 * np.asarray(stall_s) / failures_per_s)
    return np.where(np.equal(failures_per_s, 0), np.inf, interval)


def daly_interval_s(*, stall_s: Numeric, failures_per_s: Numeric) -> Numeric:
    """sqrt(2*d*M) * (1 + sqrt(x)/3 + x/9) - d with x = d / (2*M), and M where d is 2*M or more (Daly 2006, equation 37).

    >>> round(float(daly_interval_s(stall_s=8.0, failures_per_s=1 / 10_000)), 2)
    394.68
    """
    ratio = np.asarray(stall_s) * failures_per_s / 2.0
    young = young_interval_s(stall_s=stall_s, failures_per_s=failures_per_s)
    with np.errstate(divide="ignore"):
        mean_s = np.true_divide(1.0, failures_per_s)
    return np.where(ratio < 1.0, young * (1.0 + np.sqrt(ratio) / 3.0 + ratio / 9.0) - stall_s, mean_s)


def time_shares(job: Cadence) -> TimeShares:
    """l * t / (exp(l * (R + a)) * (exp(l * (t + d)) - 1)) of the calendar is training that counts (Daly 2006, equation 20).

    Daly's time for an interval of training is M * exp(l*R) * (exp(l*(t + d)) - 1). A checkpoint that is written beside training
    adds a to R, exactly: a failure loses what was trained since the last whole one was begun, and the first one after a
    restart is whole after t + d + a, all others t + d after the one before. A restart may fail itself, so that 1 - exp(-l*R)
    of the calendar is spent on them. Of the rest, d / (t + d) is stalled, and what does not count is lost.

    >>> shares = time_shares(Cadence(failures_per_s=1e-4, interval_s=400.0, stall_s=8.0, hidden_s=0.0, restart_s=600.0))
    >>> round(float(shares.training), 4), round(float(shares.training + shares.lost + shares.stalled + shares.restarting), 12)
    (0.9046, 1.0)
    """
    failures = np.asarray(job.failures_per_s)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        period_s = np.asarray(job.interval_s + job.stall_s)
        stalled = job.stall_s / period_s
        failed = np.where(failures == 0, 0.0, failures * period_s)
        kept = np.where(failed == 0, 1.0, failed / np.expm1(failed))
    running = np.exp(-failures * job.restart_s)
    training = running * np.exp(-failures * job.hidden_s) * kept * (1.0 - stalled)
    return TimeShares(
        training=training,
        lost=running * (1.0 - stalled) - training,
        stalled=running * stalled,
        restarting=1.0 - running,
    )


def calendar_variance_s2(*, work_s: Numeric, job: Cadence) -> Numeric:
    """W / t * M^2 * (exp(2r) * (exp(2x) - 1) - 2 * exp(r) * ((r + x) * (exp(x) - 1) + x)): the variance that failures bring.

    It is that of the calendar of a run with W of training in all; x = l * (t + d), r = l * (R + a). Each interval between two
    checkpoints takes a time of its own: t + d where no failure comes (odds of exp(-x)), else the time until one comes, and
    after that as many tries of R + a + t + d as it takes for one without another failure. The mean of that time is Daly's.
    To first order in l the variance is l * W * (R + a)^2 + ..: expected failures times the square of what one of them takes.
    That a checkpoint is written beside training adds a to R exactly in the mean, and nearly so here.

    >>> job = Cadence(failures_per_s=1e-6, interval_s=400.0, stall_s=0.0, hidden_s=0.0, restart_s=6000.0)
    >>> round(float(calendar_variance_s2(work_s=1e7, job=job)) ** 0.5)  # ten failures, each of 6,000 s and half of 400 s
    19691
    """
    failures = np.asarray(job.failures_per_s)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x = np.where(failures == 0, 0.0, failures * (job.interval_s + job.stall_s))
        r = failures * (job.restart_s + job.hidden_s)
        squared = np.exp(2 * r) * np.expm1(2 * x) - 2 * np.exp(r) * ((r + x) * np.expm1(x) + x)
        variance = np.true_divide(work_s, job.interval_s) * np.maximum(squared, 0.0) / failures**2
    return np.where(failures == 0, 0.0, variance)
