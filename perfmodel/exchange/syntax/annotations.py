"""Values with how far they may be off and where they come from: `launch_s: {value: 6us, spread: 50%, source: a guess}`.

Any single value of a file may be written so. A spread whose range has another source is annotated in turn:
`spread: {value: 50%, source: a prior}`. `source` beside settings is that of every value below which has none of its own.
What `perfmodel calibrate` and the fits write has `spread` and `sources` as tables instead, by name and by key path.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean, shown

VALUE, SPREAD, SOURCE = "value", "spread", "source"
PARTS: Final = (VALUE, SPREAD, SOURCE)
TABLE: Final = "sources"
LONGEST: Final = 300  # characters of a source that is no text


def separated(mapping: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The plain settings of a mapping, and the sources of its values by key path. Errors: InputError for a part that is none.

    >>> separated({"host": {"launch_s": {"value": "6us", "spread": "50%", "source": "a guess"}}})
    ({'host': {'launch_s': '6us', 'spread': {'launch_s': '50%'}}}, {'host.launch_s': 'a guess'})
    """
    sources: dict[str, str] = {}
    return _settings(mapping, "", sources), sources


def _settings(mapping: Mapping[str, Any], path: str, sources: dict[str, str]) -> dict[str, Any]:
    """The settings that stand at `path`; their sources are added to `sources`."""
    settings: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    for key, entry in mapping.items():
        here = _joined(path, str(key))
        if key == SOURCE:
            sources[path] = source_sentence(entry)
        elif key == TABLE:
            sources |= {_joined(path, str(below)): source_sentence(each) for below, each in _table(entry).items()}
        elif is_annotated(entry):
            settings[key] = _value(entry, here, sources)
            if SPREAD in entry:
                spreads[key] = _spread(entry[SPREAD], _joined(path, f"{SPREAD}.{key}"), sources)
        else:
            settings[key] = _plain(entry, here, sources)
    return settings | {SPREAD: _table(settings.get(SPREAD)) | spreads} if spreads else settings


def is_annotated(entry: Any) -> bool:
    """Whether an entry is a value with what is known of it."""
    return isinstance(entry, Mapping) and VALUE in entry


def _value(entry: Mapping[str, Any], path: str, sources: dict[str, str]) -> Any:
    for part in entry:
        if part not in PARTS:
            raise InputError(f"unknown key beside a value; {did_you_mean(str(part), PARTS)}", key=_joined(path, str(part)))
    if isinstance(entry[VALUE], Mapping):
        raise InputError(f"{shown(entry[VALUE])} where one value is needed", key=_joined(path, VALUE))
    if SOURCE in entry:
        sources[path] = source_sentence(entry[SOURCE])
    return entry[VALUE]


def _spread(entry: Any, path: str, sources: dict[str, str]) -> Any:
    return _value(entry, path, sources) if is_annotated(entry) else entry


def _plain(entry: Any, path: str, sources: dict[str, str]) -> Any:
    if isinstance(entry, Mapping):
        return _settings(entry, path, sources)
    if isinstance(entry, list):
        return [_plain(each, f"{path}[{index}]", sources) for index, each in enumerate(entry)]
    return entry


def _table(entry: Any) -> dict[str, Any]:
    """A table of sources or spreads; what a person's own file has there may be anything."""
    return dict(entry) if isinstance(entry, Mapping) else {}


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path and key else path or key


def source_sentence(source: Any) -> str:
    """A source in words; those of fitted numbers are mappings of what was fitted, on what, when, and how wrong it is.

    What a person's own file has there may be anything: it is shown as it is.
    """
    if isinstance(source, Mapping) and "held_out" in source:
        with suppress(AttributeError, LookupError, TypeError, ValueError):
            return _of_a_fit(source)
    return source if isinstance(source, str) else shown(source, width=LONGEST)


def _of_a_fit(source: Mapping[str, Any]) -> str:
    errors = (
        f"{'' if name == 'all' else f'{name} '}{100 * error['median']:.1f} % / {100 * error['p90']:.1f} % of {error['rows']}"
        for name, error in source["held_out"].items()
    )
    origin = f"{source['table']}, {source['version']}, {source['licence']}"
    return (
        f"fitted on {source['what']} ({origin}), {source['rows']} rows, {source['fitted']}; "
        f"error on rows not fitted (median / p90) {', '.join(errors)}"
        + (f"; the rows leave {source['at_bounds']} at a bound" if "at_bounds" in source else "")
    )
