"""Instruction counts of a few fastlstm calls under callgrind: a regression that noise cannot hide.

``python -m fastlstm_bench.callgrind [--baseline FILE] [--save FILE]`` prints JSON: the build, and
the instructions of one call. The same binary gives the same counts on any day, but another compiler
or instruction set gives others: a baseline belongs to a build. Valgrind knows no AVX-512, so on a
processor that has it the AVX2 kernels are counted.

Every process prepares all calls, then repeats one of them, or none. All around the repetitions (the
interpreter's start, imports, preparation) is the same, so the difference of two processes holds the
repeated calls and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastlstm
from fastlstm import _core

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import make_problem
from fastlstm_bench.workers import worker_environment

# Name -> case, and how many calls are counted: some 3e8 instructions, because two starts of Python
# differ by up to 1e6.
CALLS: dict[str, tuple[Case, int]] = {
    "step": (Case("step", "lstm", 1, 1, 64), 5000),
    "sequence": (Case("inference", "lstm", 50, 1, 64), 300),
    "batch": (Case("inference", "lstm", 10, 16, 64), 300),
    "lengths": (Case("inference", "lstm", 20, 8, 32, lengths=True), 1000),
    "training": (Case("training", "lstm", 20, 8, 32), 150),
}
# Counts vary by less than this from run to run.
TOLERANCE = 0.01


def build() -> dict[str, str]:
    """What the counts belong to: the compiler, and the instruction set whose kernels run."""
    isas = [isa for isa in fastlstm.available_isas() if not isa.startswith("avx512")]
    return {"compiler": _core.compiler(), "isa": isas[0]}


def repeat(name: str, times: int) -> None:
    """What runs under valgrind: prepare all calls, make each once to warm up, then repeat one."""
    from fastlstm_bench.systems import run_fastlstm

    run_fastlstm.start(1)
    calls = {}
    for prepared, (case, _) in CALLS.items():
        problem = make_problem(case)
        calls[prepared] = call = run_fastlstm.prepare(case, problem, 1)
        if case.task == "step":
            call.feed(problem.x[0])
        call.run()
    run = calls[name].run
    for _ in range(times):
        run()


def instructions(name: str, times: int) -> int:
    """Count all instructions of a process that repeats a call so many times.

    Raises
    ------
    RuntimeError
        The process failed under valgrind.
    """
    environment = worker_environment(1)
    # Hash order and the kernels that BLAS picks would otherwise differ by run and by host.
    environment |= {"PYTHONHASHSEED": "0", "OPENBLAS_CORETYPE": "Haswell"}
    environment["FASTLSTM_ISA"] = build()["isa"]
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", "fastlstm_bench.callgrind", "--repeat", name, str(times)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{name} failed under valgrind: {last[0]}")
    return int(found.group(1))


def count(names: Sequence[str]) -> dict[str, int]:
    """Instructions of one call, by name."""
    around = instructions(names[0], 0)
    counts = {}
    for name in names:
        _, times = CALLS[name]
        counts[name] = round((instructions(name, times) - around) / times)
    return counts


def changes(
    counts: dict[str, int], baseline: dict[str, int], tolerance: float = TOLERANCE
) -> dict[str, float]:
    """By call, the relative change from the baseline where it is beyond the tolerance."""
    relative = {name: now / baseline[name] - 1 for name, now in counts.items() if name in baseline}
    return {name: change for name, change in relative.items() if abs(change) > tolerance}


def main(argv: list[str]) -> int:
    """Count, print, compare. 1: a call needs more instructions than in the baseline."""
    parser = argparse.ArgumentParser(prog="python -m fastlstm_bench.callgrind")
    parser.add_argument("--call", action="append", choices=CALLS, help="only these (repeatable)")
    parser.add_argument("--baseline", type=Path, help="JSON of an earlier run to compare with")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="relative change that says nothing"
    )
    parser.add_argument("--save", type=Path, help="write the JSON here too")
    parser.add_argument("--repeat", nargs=2, metavar=("CALL", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.repeat:
        repeat(options.repeat[0], int(options.repeat[1]))
        return 0
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    record: dict[str, Any] = {"build": build()}
    # Read first: --save may name the same file.
    baseline = json.loads(options.baseline.read_text()) if options.baseline else None
    if baseline is not None and baseline["build"] != record["build"]:
        print(f"not compared: the baseline is of {baseline['build']}", file=sys.stderr)
        baseline = None
    record["instructions"] = counts = count(options.call or list(CALLS))
    text = json.dumps(record, indent=1)
    print(text)
    if options.save:
        options.save.write_text(text + "\n")
    changed = changes(counts, baseline["instructions"], options.tolerance) if baseline else {}
    for name, change in changed.items():
        print(f"{name}: {100 * change:+.1f} % instructions", file=sys.stderr)
    return 1 if any(change > 0 for change in changed.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
