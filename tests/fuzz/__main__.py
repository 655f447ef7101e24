"""Fuzzers: files for every reader, and calls of layers, that nobody would write by hand.

    python tests/fuzz                                  # all of them, a minute each, with a new seed
    python tests/fuzz keras_file --seconds 3600        # one of them, for longer
    python tests/fuzz keras_file --seed 7 --case 123   # one case again, with its traceback

A fuzzer is a module beside this file. That of a reader has ``originals(folder)``, which writes some
good files, ``read(path)``, which reads one as users would, and perhaps ``mutated(random, data)``,
which damages a file in ways that only who knows the format can. Another has ``case(random)``. A
case follows from the seed and its number.

A reader may return or raise ValueError. It may not raise anything else, take more than four times
the file's size and 64 MB, take seconds, hang, or end the process: each case runs in a child.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from random import Random

from frame import Fuzzer, runner

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # for what the tests share


def main() -> int:
    names = sorted(
        path.stem for path in HERE.glob("*.py") if path.stem not in ("__main__", "frame")
    )
    parser = argparse.ArgumentParser(prog="tests/fuzz", description="Fuzz readers and calls.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--cases", type=int, default=sys.maxsize, help="at most, for each")
    parser.add_argument("--any-memory", action="store_true", help="readers may take what they want")
    parser.add_argument("--case", type=int, help="this one alone, in this process")
    arguments = parser.parse_args()
    status = 0
    for name in arguments.names or names:
        if arguments.case is not None:
            with tempfile.TemporaryDirectory() as folder:
                run = runner(importlib.import_module(name), Path(folder), arguments.any_memory)
                print(
                    "accepted" if run(Random(f"{arguments.seed} {arguments.case}")) else "refused"
                )
            continue
        fuzzer = Fuzzer(
            name, arguments.seed, arguments.seconds, arguments.cases, arguments.any_memory
        )
        fuzzer.run()
        print(fuzzer.report(), flush=True)
        if fuzzer.faults or fuzzer.done == 0:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
