"""What to run on a machine of many cores that is at hand for some minutes.

    python benchmarks/many_cores.py --out results --minutes 9

It builds the package into a new environment, calibrates, measures meetings, forced plans and the
scaling suite, and leaves in the folder what each step gave as soon as it is there, the most telling
first: a run that is cut off loses the step it is in. Nothing is asked of the network with
``--offline`` (the packages in requirements must then be there).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDED = ("cmake", "ninja", "pybind11", "cython", "setuptools>=77", "numpy", "scipy", "matplotlib")


class Steps:
    """The steps of a run, each with its part of the time."""

    def __init__(self, out: Path, minutes: float) -> None:
        self.out = out
        self.start = time.monotonic()
        self.end = self.start + 60 * minutes

    def left(self) -> float:
        return self.end - time.monotonic()

    def run(
        self, name: str, command: Sequence[str | Path], at_most: float, env: dict[str, str]
    ) -> bool:
        """Run a command; what it prints goes to NAME.txt. False: it failed or took too long."""
        limit = min(at_most, self.left())
        print(f"{time.monotonic() - self.start:5.0f} s  {name}", flush=True)
        if limit < 1:
            return False
        with (self.out / f"{name}.txt").open("w") as file:
            try:
                done = subprocess.run(
                    [str(part) for part in command],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    timeout=limit,
                    cwd=ROOT,
                    env=env,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                print(f"       {name}: out of time", flush=True)
                return False
        if done.returncode != 0:
            print(f"       {name}: exit status {done.returncode}, see its file", flush=True)
        return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; returns the exit status: 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--offline", action="store_true", help="nothing is installed")
    parser.add_argument("--peers", default="", help="packages to compare with, such as onnxruntime")
    options = parser.parse_args(argv)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    steps = Steps(out, options.minutes)
    env = {**os.environ, "FASTLSTM_COSTS": str(out / "costs.txt"), "PIP_NO_INPUT": "1"}
    python = Path(sys.executable)
    right = True
    if not options.offline:
        home = out / "environment"
        right &= steps.run("environment", [python, "-m", "venv", home], 30, env)
        python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        env["PATH"] = f"{python.parent}{os.pathsep}{env['PATH']}"
        pip = [python, "-m", "pip", "install", "-q"]
        right &= steps.run("needed", [*pip, *NEEDED, *options.peers.split()], 90, env)
        right &= steps.run("build", [*pip, "--no-build-isolation", ROOT], 150, env)
    env["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "benchmarks"), *filter(None, [env.get("PYTHONPATH")])]
    )
    # Twice the same plans: as they are without a calibration, and with it.
    usual = {**env, "FASTLSTM_COSTS": "none"}
    fastlstm = [python, "-m", "fastlstm"]
    plans = [python, "-m", "fastlstm_bench.plans", "--rounds", "3"]
    left = max(60.0, steps.left())
    right &= steps.run("info", [*fastlstm, "info", "--all"], 20, usual)
    files = ["--out", out / "plans-usual.json", "--plot", out / "plans-usual.png"]
    minutes = ["--minutes", str(0.3 * left / 60)]
    right &= steps.run("plans-usual", [*plans, *minutes, *files], 0.4 * left, usual)
    right &= steps.run("tune", [*fastlstm, "tune"], 60, env)
    files = ["--out", out / "plans-tuned.json", "--plot", out / "plans-tuned.png"]
    minutes = ["--minutes", str(0.15 * left / 60)]
    right &= steps.run("plans-tuned", [*plans, *minutes, *files], 0.25 * left, env)
    # What it writes after each case stays where it is cut off.
    bench = [*fastlstm, "bench", "--suite", "scaling", "--rounds", "3", "--turn", "0.05"]
    right &= steps.run("scaling", [*bench, "--out", out / "scaling"], steps.left() - 25, env)
    preset = out / "kernels"
    cmake = ["cmake", "-S", ROOT, "-B", preset, "-G", "Ninja", "-DFASTLSTM_TESTS=ON"]
    if steps.run("configure", [*cmake, "-DCMAKE_BUILD_TYPE=Release"], 20, env):
        build = ["cmake", "--build", preset, "--target", "meeting_benchmark"]
        if steps.run("meetings-build", build, 120, env):
            steps.run("meetings", [preset / "meeting_benchmark"], 20, env)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
