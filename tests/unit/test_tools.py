"""What the Makefile calls."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


def tool(name: str) -> ModuleType:
    """A module of ``tools/``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"tool_{name}", ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
def test_policy_is_as_it_was_after_an_installation(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apt, policy = tool("apt"), tmp_path / "policy-rc.d"
    monkeypatch.setattr(apt, "POLICY", policy)
    if before is not None:
        policy.write_text(before)
    with pytest.raises(KeyboardInterrupt), apt.no_daemons():
        assert subprocess.run([policy], check=False).returncode == 101
        raise KeyboardInterrupt
    assert (policy.read_text() if policy.exists() else None) == before
    assert [path.name for path in tmp_path.iterdir()] == ([] if before is None else ["policy-rc.d"])


def test_without_root_one_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    apt = tool("apt")
    monkeypatch.setattr(apt.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(apt, "missing", lambda group: ["python3-venv", "python3-dev"])
    assert apt.main(["test"]) == 0
    assert apt.main(["build"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines
        == ["Missing: python3-venv python3-dev (apt-get install --no-install-recommends python3-venv python3-dev)"] * 2
    )


def test_a_step_runs_again_only_when_its_inputs_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = tool("prepare")
    monkeypatch.setattr(prepare, "ROOT", tmp_path)
    monkeypatch.setattr(prepare, "STAMPS", tmp_path / "stamps")
    source = tmp_path / "a.txt"
    source.write_text("one")
    first = prepare.digest([source])
    assert prepare.step("thing", first, "doing")
    prepare.done("thing", first)
    assert not prepare.step("thing", prepare.digest([source]), "doing")
    source.write_text("two")
    assert prepare.step("thing", prepare.digest([source]), "doing")
    assert prepare.step("thing", first, "doing")  # what failed is not taken for done


def test_locks_name_versions_and_no_hosts() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[a-z0-9-]+==[0-9A-Za-z.+!-]+", line) for line in lines)
    if (ROOT / "web/package-lock.json").exists():
        packages = json.loads((ROOT / "web/package-lock.json").read_text())["packages"]
        assert not [name for name, package in packages.items() if "resolved" in package]


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    told = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {line.partition(":")[0] for line in told.splitlines()} == set(phony[1].split())


def test_a_target_that_hangs_is_a_failure_that_is_told(tmp_path: Path) -> None:
    """``.ci/run`` in a folder whose ``make test`` never ends, with a limit of about a second for it."""
    (tmp_path / ".ci").mkdir()
    script = (ROOT / ".ci/run").read_text()
    assert "\ntest 15\n" in script
    (tmp_path / ".ci/run").write_text(script.replace("\ntest 15\n", "\ntest 0.02\n"))
    hang = f"{sys.executable} -X faulthandler -c 'import time; time.sleep(1000)'"
    (tmp_path / "Makefile").write_text(f"setup lint test-slow:\n\t@echo $@ done\ntest:\n\t@{hang}\n")
    done = subprocess.run(
        ["bash", tmp_path / ".ci/run"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=50,
        check=False,
    )
    assert done.returncode == 1
    assert [line for line in done.stdout.splitlines() if line.endswith(" done")] == [
        "setup done",
        "lint done",
        "test-slow done",
    ]
    assert "make test was ended after 0.02 minutes" in done.stdout
    assert done.stdout.endswith("FAILED: test\n")
    assert "most recent call first" in done.stderr
