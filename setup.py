"""Drives CMake: everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Build both extension modules with one run of CMake, into the place setuptools asks for."""

    def build_extensions(self) -> None:
        # All extensions belong to one package, so that they share one output folder.
        output = Path(self.get_ext_fullpath(self.extensions[0].name)).resolve().parent
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            f"-S{ROOT}",
            f"-B{build}",
            "-GNinja",
            f"-DCMAKE_BUILD_TYPE={os.environ.get('FASTLSTM_BUILD_TYPE', 'Release')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DFASTLSTM_MODULE_DIR={output}",
            "-DFASTLSTM_PYTHON=ON",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(
    ext_modules=[Extension("fastlstm._core", []), Extension("fastlstm._scipy_blas", [])],
    cmdclass={"build_ext": CMakeBuild},
)
