"""The small libraries that are loaded before those of a program under measurement: compiled here, each from one file."""

import os
import shlex
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent / "preload"


def build(name, folder, *libraries):
    """Compiles preload/NAME.c; `libraries` are pkg-config's names."""
    made = folder / f"{name}.so"
    flags = []
    if libraries:
        found = subprocess.run(["pkg-config", "--cflags", "--libs", *libraries], check=True, capture_output=True, text=True)
        flags = shlex.split(found.stdout)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", made, HERE / f"{name}.c", *flags]
    subprocess.run(command, check=True)
    return made


def environment(library, **more):
    """This process's environment with `library` loaded first."""
    return {**os.environ, "LD_PRELOAD": str(library), **more}
