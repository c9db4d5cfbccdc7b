"""Fuzz a target in Python, guided by what of the package, of h11 and of wsproto it runs.

``python -m fuzz.guided TARGET`` takes libFuzzer's options, directories of inputs, or one input
to try again.  It needs atheris, which runs on CPython on Linux.
"""

from __future__ import annotations

import importlib
import sys

import atheris


def main() -> None:
    """Fuzz until libFuzzer's options say that it is enough."""
    _, target, *options = sys.argv
    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=["echo_service", "h11", "wsproto"]):
        check = importlib.import_module(f"fuzz.{target}").check
    again = f"{sys.executable} -m fuzz.guided {target}"  # what libFuzzer calls itself by, to merge
    atheris.Setup([again, *options], check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
