"""The light decorator makes what the standard one makes, but for how it is made."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from perfmodel.light_dataclass import dataclass, light, replace

OPTIONS: tuple[dict[str, bool], ...] = (
    {},
    {"slots": True},
    {"slots": True, "kw_only": True},
    {"slots": True, "kw_only": True, "eq": False},
    {"kw_only": True, "repr": False},
)


def made_by(decorator: Callable[..., Any], **options: bool) -> tuple[Any, Any]:
    """A class and one that is built on it, with fields of every sort that this project has."""

    class Base:
        kind: ClassVar[str] = "none"
        width: float
        label: str = "one"
        seen: list[int] = dataclasses.field(default_factory=list)
        hidden: int = dataclasses.field(default=3, repr=False)

        def __post_init__(self) -> None:
            if self.width < 0:
                raise ValueError("below zero")

    Base.__qualname__ = "Base"
    base = decorator(frozen=True, **options)(Base)

    class Longer(base):  # type: ignore[misc, valid-type]
        height: float = 2.0
        label: str = "two"

    Longer.__qualname__ = "Longer"
    return base, decorator(frozen=True, **options)(Longer)


@pytest.fixture(params=OPTIONS, ids=str)
def pairs(request: pytest.FixtureRequest) -> list[tuple[Any, Any]]:
    """Classes of the light decorator, each beside its twin of the standard one."""
    return list(zip(made_by(light, **request.param), made_by(dataclasses.dataclass, **request.param), strict=True))


def test_signatures_and_fields_are_those_of_the_standard_one(pairs: list[tuple[Any, Any]]) -> None:
    """Names, order, defaults, kinds and annotations: what help(), editors and `fields` show."""
    for ours, theirs in pairs:
        mine, standard = (inspect.signature(each.__init__).parameters for each in (ours, theirs))
        assert [(name, each.kind) for name, each in mine.items()] == [(name, each.kind) for name, each in standard.items()]
        assert [each.name for each in dataclasses.fields(ours)] == [each.name for each in dataclasses.fields(theirs)]
        assert ours.__init__.__annotations__ == theirs.__init__.__annotations__
        assert ours.__match_args__ == theirs.__match_args__
        assert ours.kind == "none"


def test_objects_are_made_shown_and_changed_alike(pairs: list[tuple[Any, Any]]) -> None:
    """Defaults, factories that are asked each time, __post_init__, repr, replace, asdict."""
    for ours, theirs in pairs:
        mine, standard = ours(width=1.5), theirs(width=1.5)
        assert dataclasses.asdict(mine) == dataclasses.asdict(standard)
        assert ours(width=1.0).seen is not ours(width=1.0).seen
        if "object at" not in repr(standard):
            assert repr(mine) == repr(standard)
        assert dataclasses.replace(mine, width=4.0).width == 4.0
        for wrong in ({}, {"width": 1.0, "wide": 2.0}):
            with pytest.raises(TypeError, match="__init__"):
                ours(**wrong)
        with pytest.raises(ValueError, match="below zero"):
            dataclasses.replace(mine, width=-1.0)


def test_objects_are_frozen(pairs: list[tuple[Any, Any]]) -> None:
    """Nothing is set and nothing deleted, by the error of the standard library."""
    for ours, _ in pairs:
        made = ours(width=1.0)
        with pytest.raises(dataclasses.FrozenInstanceError, match="'width'"):
            made.width = 2.0
        with pytest.raises(dataclasses.FrozenInstanceError, match="'width'"):
            del made.width
        assert made.width == 1.0


def test_equality_and_hashes_follow_the_fields(pairs: list[tuple[Any, Any]]) -> None:
    """Equal where all fields are and the class is the same; by identity where that was asked for."""
    for ours, theirs in pairs:
        for made in (ours, theirs):
            one, same, other = made(width=1.0, seen=()), made(width=1.0, seen=()), made(width=2.0, seen=())
            by_fields = theirs.__eq__ is not object.__eq__
            assert (one == same) == by_fields
            assert (hash(one) == hash(same)) == by_fields
            assert one != other
            assert one != (1.0, "one", (), 3)


def test_objects_are_copied(pairs: list[tuple[Any, Any]]) -> None:
    """copy and deepcopy, which go the way of pickle."""
    for ours, _ in pairs:
        made = ours(width=1.0, seen=[1])
        deep = copy.deepcopy(made)
        assert dataclasses.asdict(copy.copy(made)) == dataclasses.asdict(made) == dataclasses.asdict(deep)
        assert deep.seen is not made.seen


@dataclass(frozen=True, slots=True)
class Kept:
    """What a class has of its own stays its own."""

    only: int

    def __eq__(self, other: object) -> bool:
        """Equal to every number."""
        return isinstance(other, int)

    def __hash__(self) -> int:
        """Always the same."""
        return 7

    def __repr__(self) -> str:
        """One word."""
        return "kept"


def test_methods_of_a_class_stay_and_pickle_finds_it() -> None:
    """Own methods are not replaced; a class at the top of a module is pickled."""
    assert Kept(1) == 5
    assert hash(Kept(1)) == 7
    assert repr(Kept(1)) == "kept"
    assert pickle.loads(pickle.dumps(Kept(3))).only == 3  # noqa: S301


def test_a_class_that_is_not_frozen_is_the_standard_one() -> None:
    """Nothing to save there."""

    class Open:
        only: int = 1

    made = light(slots=True)(Open)()
    made.only = 4
    assert made.only == 4


def test_what_makes_an_object_is_compiled_with_the_first_one() -> None:
    """Or when somebody asks for it, as for a signature."""

    @dataclass(frozen=True, slots=True)
    class Ring:
        ranks: int
        stride: int = 1

    assert not inspect.isfunction(vars(Ring)["__init__"])
    assert (Ring(8).ranks, Ring(ranks=8).stride) == (8, 1)
    assert inspect.isfunction(vars(Ring)["__init__"])


def test_a_changed_copy_is_checked_like_any_object() -> None:
    """As the standard replace does it: an unknown name is refused, and what is wrong."""

    @dataclass(frozen=True, kw_only=True)
    class Link:
        rate: float
        start: float = 0.0

        def __post_init__(self) -> None:
            if self.rate < 0:
                raise ValueError("below zero")

    link = Link(rate=2.0, start=1.0)
    assert replace(link, rate=3.0) == dataclasses.replace(link, rate=3.0) == Link(rate=3.0, start=1.0)
    with pytest.raises(ValueError, match="below zero"):
        replace(link, rate=-1.0)
    with pytest.raises(TypeError, match="speed"):
        replace(link, speed=1.0)  # type: ignore[call-arg]
