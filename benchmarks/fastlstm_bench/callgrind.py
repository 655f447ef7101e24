"""Instruction counts of a few fastlstm calls under callgrind: a regression that noise cannot hide.

``python -m fastlstm_bench.callgrind [--baseline FILE] [--save FILE]`` prints JSON: instructions of
one call. The same binary gives the same counts to within some hundred instructions on any day, but
another compiler or instruction set gives others: a baseline belongs to one build. Valgrind knows no
AVX-512, so on a processor that has it the AVX2 kernels are counted.

Everything around the calls (the interpreter's start, imports, preparation) is the same for N and
2N calls, so the difference of two runs holds N calls and nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import make_problem
from fastlstm_bench.workers import worker_environment

# Small ones: valgrind is 50 times slower. Name -> case and N.
CALLS: dict[str, tuple[Case, int]] = {
    "step": (Case("step", "lstm", 1, 1, 64), 500),
    "sequence": (Case("inference", "lstm", 50, 1, 64), 20),
    "batch": (Case("inference", "lstm", 10, 16, 64), 20),
    "lengths": (Case("inference", "lstm", 20, 8, 32, lengths=True), 20),
    "training": (Case("training", "lstm", 20, 8, 32), 10),
}
# Counts vary by less than this from run to run.
TOLERANCE = 0.005


def repeat(name: str, times: int) -> None:
    """What runs under valgrind: prepare a call and make it so many times, after one to warm up."""
    from fastlstm_bench.systems import run_fastlstm

    case, _ = CALLS[name]
    run_fastlstm.start(1)
    call = run_fastlstm.prepare(case, make_problem(case), 1)
    if case.task == "step":
        call.feed(make_problem(case).x[0])
    for _ in range(1 + times):
        call.run()


def instructions(name: str, times: int) -> int:
    """Count all instructions of a process that makes a call so many times.

    Raises
    ------
    RuntimeError
        The process failed under valgrind.
    """
    environment = worker_environment(1)
    # Hash order and the kernels that BLAS picks would otherwise differ by run and by host.
    environment |= {"PYTHONHASHSEED": "0", "OPENBLAS_CORETYPE": "Haswell"}
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", "fastlstm_bench.callgrind", "--repeat", name, str(times)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or found is None:
        last = done.stderr.strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{name} failed under valgrind: {last[0]}")
    return int(found.group(1))


def count(name: str) -> int:
    """Instructions of one call."""
    _, times = CALLS[name]
    return round((instructions(name, 2 * times) - instructions(name, times)) / times)


def changes(counts: dict[str, int], baseline: dict[str, int]) -> dict[str, float]:
    """By call, the relative change from the baseline where it is beyond the tolerance."""
    relative = {name: now / baseline[name] - 1 for name, now in counts.items() if name in baseline}
    return {name: change for name, change in relative.items() if abs(change) > TOLERANCE}


def main(argv: list[str]) -> int:
    """Count, print, compare. 1: a call needs more instructions than in the baseline."""
    parser = argparse.ArgumentParser(prog="python -m fastlstm_bench.callgrind")
    parser.add_argument("--call", action="append", choices=CALLS, help="only these (repeatable)")
    parser.add_argument("--baseline", type=Path, help="JSON of an earlier run to compare with")
    parser.add_argument("--save", type=Path, help="write the JSON here too")
    parser.add_argument("--repeat", nargs=2, metavar=("CALL", "TIMES"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.repeat:
        repeat(options.repeat[0], int(options.repeat[1]))
        return 0
    if shutil.which("valgrind") is None:
        parser.error("valgrind is not installed")
    # Read first: --save may name the same file.
    baseline = json.loads(options.baseline.read_text()) if options.baseline else {}
    counts = {name: count(name) for name in options.call or CALLS}
    text = json.dumps(counts, indent=1)
    print(text)
    if options.save:
        options.save.write_text(text + "\n")
    changed = changes(counts, baseline)
    for name, change in changed.items():
        print(f"{name}: {100 * change:+.1f} % instructions", file=sys.stderr)
    return 1 if any(change > 0 for change in changed.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
