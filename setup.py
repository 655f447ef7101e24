"""Drives CMake: everything else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Build all extension modules with one run of CMake, into the places setuptools asks for."""

    def folder_of(self, module: str) -> Path:
        return Path(self.get_ext_fullpath(module)).resolve().parent

    def build_extensions(self) -> None:
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            "cmake",
            "--fresh",  # the tools of an earlier, isolated build are gone
            f"-S{ROOT}",
            f"-B{build}",
            "-GNinja",
            f"-DCMAKE_BUILD_TYPE={os.environ.get('FASTLSTM_BUILD_TYPE', 'Release')}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DFASTLSTM_MODULE_DIR={self.folder_of('fastlstm._core').as_posix()}",
            f"-DFASTLSTM_BENCH_DIR={self.folder_of('fastlstm_bench._limits').as_posix()}",
            "-DFASTLSTM_PYTHON=ON",
            *os.environ.get("CMAKE_ARGS", "").split(),
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build)], check=True)


setup(
    # `fastlstm demo NAME` runs the scripts, which a clone has in a folder of their own.
    packages=[*find_packages("python"), *find_packages("benchmarks"), "fastlstm.examples"],
    package_dir={
        "fastlstm": "python/fastlstm",
        "fastlstm_bench": "benchmarks/fastlstm_bench",
        "fastlstm.examples": "examples",
    },
    ext_modules=[
        Extension(name, [])
        for name in ("fastlstm._core", "fastlstm._scipy_blas", "fastlstm_bench._limits")
    ],
    cmdclass={"build_ext": CMakeBuild},
)
