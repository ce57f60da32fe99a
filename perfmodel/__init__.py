"""perfmodel: how long a training iteration takes, whether it fits, how many days, and what to change.

    import perfmodel as pm
    pm.predict("nemotron-4-15b").to_pandas()

Each name below is loaded when it is first asked for, so that `import perfmodel` costs nothing (docs/api.md shows them at work).
"""

TYPE_CHECKING = False  # as type checkers take it; loading typing would come before Ctrl-C can be handled (__main__.py)

if TYPE_CHECKING:
    from perfmodel.api import (
        MFUMeter,
        compare,
        diagnose,
        explain,
        infer,
        load,
        plan,
        plan_hardware,
        plan_service,
        predict,
        sweep,
        timeline,
        validate,
        whatif,
    )
    from perfmodel.errors import InputError, NotSupportedError, PerfmodelError
    from perfmodel.events.timeline import Timeline
    from perfmodel.evidence.steps.step_comparison import StepComparison
    from perfmodel.evidence.time_scores import TimeScores
    from perfmodel.exchange.questions.measured_logs import LogComparison
    from perfmodel.exchange.questions.profiled_runs import ProfileComparison
    from perfmodel.explanation.explanation import Explanation
    from perfmodel.explanation.measured.diagnosis import Diagnosis
    from perfmodel.prediction import Prediction
    from perfmodel.report.html.document import Page
    from perfmodel.report.html.pages import report
    from perfmodel.search.hardware import HardwarePlans
    from perfmodel.search.plan import Plan
    from perfmodel.serving.forecast import ServingForecast
    from perfmodel.serving.service_plan import ServerPlan
    from perfmodel.spec.run import Run
    from perfmodel.variation.scenarios import WhatIf
    from perfmodel.variation.sweep import Sweep

__version__ = "0.1.0"
__all__ = [
    "Diagnosis",
    "Explanation",
    "HardwarePlans",
    "InputError",
    "LogComparison",
    "MFUMeter",
    "NotSupportedError",
    "Page",
    "PerfmodelError",
    "Plan",
    "Prediction",
    "ProfileComparison",
    "Run",
    "ServerPlan",
    "ServingForecast",
    "StepComparison",
    "Sweep",
    "TimeScores",
    "Timeline",
    "WhatIf",
    "compare",
    "diagnose",
    "explain",
    "infer",
    "load",
    "plan",
    "plan_hardware",
    "plan_service",
    "predict",
    "report",
    "sweep",
    "timeline",
    "validate",
    "whatif",
]
_ELSEWHERE = {  # than in perfmodel.api
    **dict.fromkeys(("InputError", "NotSupportedError", "PerfmodelError"), "errors"),
    "StepComparison": "evidence.steps.step_comparison",
    "LogComparison": "exchange.questions.measured_logs",
    "ProfileComparison": "exchange.questions.profiled_runs",
    "Page": "report.html.document",
}

if not TYPE_CHECKING:  # a type checker that saw it would take any misspelt name for a value of any type

    def __getattr__(name: str) -> object:
        """A function of perfmodel.api, the type of its result, or an error that it raises."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        from importlib import import_module

        if name == "report":  # a room that can be called: the name that it has once it is loaded
            return import_module("perfmodel.report")
        return getattr(import_module(f"perfmodel.{_ELSEWHERE.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
