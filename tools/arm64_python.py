#!/usr/bin/env python3
"""Make a Python for 64-bit ARM that runs here: Debian's, in a folder, under qemu-user.

    python tools/arm64_python.py /tmp/arm64
    /tmp/arm64/python -c "import platform; print(platform.machine())"

Its packages come from the sources that this machine's apt has, which must know arm64, as Debian's
do. apt gets folders of its own for them: nothing is installed, and nobody needs to be root.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("python3", "libpython3-dev", "libstdc++6")  # the last for other packages


@dataclass(frozen=True)
class ArmPython:
    """A Python for ARM in a folder.

    Attributes
    ----------
    folder : Path
        With the command ``python``, and ``site``, which may hold packages for it.
    version : str
        Such as "3.11".
    """

    folder: Path
    version: str

    @property
    def command(self) -> Path:
        return self.folder / "python"

    @property
    def site(self) -> Path:
        return self.folder / "site"

    @property
    def include(self) -> Path:
        """The folder of its headers."""
        return self.folder / "root" / "usr" / "include" / f"python{self.version}"

    @property
    def module_suffix(self) -> str:
        """How the names of its extension modules end."""
        return f".cpython-{self.version.replace('.', '')}-aarch64-linux-gnu.so"


def make(folder: Path) -> ArmPython:
    """Download and unpack it."""
    folder = folder.resolve()
    root = folder / "root"
    root.mkdir(parents=True)
    for package in _download(folder / "apt"):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
    names = (path.name for path in root.glob("usr/bin/python3.*"))
    (name,) = (name for name in names if re.fullmatch(r"python3\.\d+", name))
    made = ArmPython(folder, name.removeprefix("python"))
    made.site.mkdir()
    # Debian's pyconfig.h includes the CPU's, which a compiler finds only if it looks at the headers
    # of that whole system: its own are others.
    of_cpu = made.include.parent / "aarch64-linux-gnu" / name / "pyconfig.h"
    of_cpu.replace(made.include / "pyconfig.h")
    qemu = f'qemu-aarch64 -L "{root}" "{root}/usr/bin/{name}"'
    made.command.write_text(
        f'#!/bin/sh\nPYTHONPATH="{made.site}" exec {qemu} "$@"\n', encoding="utf-8"
    )
    made.command.chmod(0o755)
    return made


def _download(state: Path) -> list[Path]:
    for name in ("lists/partial", "archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()  # nothing is installed: what is needed is all that is needed
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "root",  # another one may not write there
        "Debug::NoLocking": "true",
        "Dir::Cache": state,
        "Dir::State": state,
        "Dir::State::status": state / "status",
    }
    apt = ["apt-get", "-qq", *(part for s, v in settings.items() for part in ("-o", f"{s}={v}"))]
    subprocess.run([*apt, "update"], check=True)
    install = ("install", "--download-only", "--no-install-recommends", "-y")
    subprocess.run([*apt, *install, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    return sorted(state.glob("archives/*.deb"))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where it goes; must not exist")
    made = make(parser.parse_args(arguments).folder)
    print(f"{made.command}: Python {made.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
