"""Running the commands, in processes of their own or in this one."""

import os
import subprocess
import sys
import warnings

import interrupts
import pytest
import session
from helpers import ROOT


def start(variables, command, *flags) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / f"{command}.py"), *map(str, flags)],
        env=variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(variables, command, *flags) -> tuple[int, str, str]:
    process = start(variables, command, *flags)
    output, errors = process.communicate()
    return process.returncode, output, errors


def assert_refused(result, *words):
    status, output, errors = result
    assert (status, output) == (2, "")
    assert "Traceback" not in errors
    text = " ".join(errors.replace("│", " ").split())
    for word in words:
        assert word in text


def exit_status(monkeypatch, main, *flags):
    """How a command would leave its process."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setattr(sys, "argv", ["command", *map(str, flags)])
    monkeypatch.setattr(interrupts, "catch", lambda: None)
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    with pytest.raises(SystemExit) as exit_:
        session.run(main)
    return exit_.value.code
