"""Does a process that stays run the tests of a tree as it stands, and the quickest first?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from perfmodel.benchmarks.project.mutation.warm_tests import SECONDS, QuickestFirst, WarmTests

TEST = "from rate import BYTES\n\ndef test_bytes():\n    assert BYTES == 2\n"


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_each_run_sees_the_tree_as_it_is(tmp_path: Path) -> None:
    """A changed module fails its test, and no longer once it is as it was, though all of it happens within one second."""
    (tmp_path / "rate.py").write_text("BYTES = 2\n")
    (tmp_path / "test_rate.py").write_text(TEST)
    with WarmTests(tmp_path, libraries=["pytest"], compiles=True) as tests:
        assert not tests.fail(["test_rate.py"])
    with WarmTests(tmp_path, libraries=["pytest"]) as tests:
        for value in (3, 2, 4, 2):
            (tmp_path / "rate.py").write_text(f"BYTES = {value}  # another size of the file\n")
            assert tests.fail(["test_rate.py"]) == (value != 2)
    assert list(json.loads((tmp_path / SECONDS).read_text())) == ["test_rate.py::test_bytes"]


def test_the_quickest_tests_come_first(tmp_path: Path) -> None:
    """Those of which nothing is known before all."""
    (tmp_path / SECONDS).write_text(json.dumps({"slow": 2.0, "quick": 0.1}))
    items = [SimpleNamespace(nodeid=name) for name in ("slow", "quick", "new")]
    QuickestFirst(tmp_path / SECONDS).pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["new", "quick", "slow"]
