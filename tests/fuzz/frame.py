"""Runs cases in children, and says what they may not do."""

from __future__ import annotations

import contextlib
import importlib
import math
import multiprocessing
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

SPARE_MEMORY = 64 << 20
CPU_SECONDS = 5.0  # of one case; all originals are small
PATIENCE = 60.0  # seconds without a sign of a case's end, on a machine with much else to do
MOST_FAULTS = 10


class FaultError(Exception):
    """What a case may not do."""


class Outcome(NamedTuple):
    """Of one case, or of the child's end."""

    case: int
    accepted: bool
    fault: str = ""


# --- one case -------------------------------------------------------------------------------------


def runner(module: ModuleType, folder: Path, any_memory: bool) -> Callable[[Random], bool]:
    """Return what runs a case: whether it was accepted, not refused."""
    if hasattr(module, "case"):
        return module.case  # type: ignore[no-any-return]
    (folder / "originals").mkdir(exist_ok=True)
    module.originals(folder / "originals")
    files = sorted(p for p in (folder / "originals").iterdir() if p.is_file())
    for file in files:  # each must be read; and what reading imports is imported
        module.read(str(file))
    contents = [(file.suffix, file.read_bytes()) for file in files]

    def run(random: Random) -> bool:
        suffix, data = random.choice(contents)
        if hasattr(module, "mutated") and random.random() < 0.5:
            data = module.mutated(random, data)
        else:
            data = damaged(random, data)
        path = folder / f"case{suffix}"
        path.write_bytes(data)
        most = sys.maxsize if any_memory else 4 * len(data) + SPARE_MEMORY
        return within_bounds(lambda: module.read(str(path)), most)

    return run


def damaged(random: Random, data: bytes) -> bytes:
    """A file with some bytes replaced, cut out, doubled or moved, or without its end."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        at = random.randrange(len(changed) + 1)
        width = random.choice((1, 1, 2, 4, 8, 64))
        match random.randrange(7):
            case 0:
                changed[at : at + width] = random.randbytes(width)
            case 1:
                changed[at : at + width] = random.choice((b"\xff", b"\0", b"\x7f")) * width
            case 2:
                del changed[at : at + width]
            case 3:
                changed[at:at] = changed[at : at + width]
            case 4:
                source = random.randrange(len(changed) + 1)
                changed[at : at + width] = changed[source : source + width]
            case 5 if at < len(changed):
                changed[at] ^= 1 << random.randrange(8)
            case _ if random.random() < 0.3:
                del changed[at:]
    return bytes(changed)


def within_bounds(read: Callable[[], Any], most: int) -> bool:
    """Whether a reader read; FaultError where it did or took what it may not."""
    before = memory("VmRSS")
    reset_peak()
    start = time.process_time()
    try:
        read()
        accepted = True
    except ValueError:
        accepted = False
    seconds = time.process_time() - start
    taken = memory("VmHWM") - before
    if seconds > CPU_SECONDS:
        raise FaultError(f"{seconds:.1f} seconds")
    if taken > most:
        raise FaultError(f"{taken >> 20} MB of memory, at most {most >> 20} allowed")
    return accepted


def memory(entry: str) -> int:
    """This process's memory now (VmRSS) or at its peak (VmHWM), in bytes; 0 where unknown."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.partition(f"{entry}:")[2].split()[0]) << 10


def reset_peak() -> None:
    """Let the peak begin anew."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


# --- many -----------------------------------------------------------------------------------------


def cases(name: str, seed: int, first: int, last: int, any_memory: bool, out: Any) -> None:
    """The child: runs cases and sends their outcomes."""
    warnings.simplefilter("ignore")
    module = importlib.import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        run = runner(module, Path(folder), any_memory)
        out.send("ready")
        for case in range(first, last):
            try:
                outcome = Outcome(case, run(Random(f"{seed} {case}")))
            except BaseException as error:  # also what pyo3 and pytest raise
                outcome = Outcome(case, False, describe(error))
            out.send(outcome)


def describe(error: BaseException) -> str:
    if isinstance(error, FaultError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)[-1]
    at = f"{Path(place.filename).name}:{place.lineno}"
    return f"{type(error).__module__}.{type(error).__name__} at {at}: {str(error)[:300]}"


class Fuzzer:
    """Runs cases in children, until the time is over or there is enough to mend."""

    def __init__(self, name: str, seed: int, seconds: float, most: int, any_memory: bool) -> None:
        self.name, self.seed, self.most, self.any_memory = name, seed, most, any_memory
        # From the first case on: frameworks may take longer to be imported.
        self.seconds, self.end = seconds, math.inf
        self.done = self.accepted = 0
        self.faults: list[str] = []
        self._seen: set[str] = set()

    def run(self) -> None:
        while self.done < self.most and not self._over():
            self._run_child()

    def _over(self) -> bool:
        return time.monotonic() > self.end or len(self._seen) >= MOST_FAULTS

    def _run_child(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        arguments = (self.name, self.seed, self.done, self.most, self.any_memory, theirs)
        child = context.Process(target=cases, args=arguments)
        child.start()
        theirs.close()
        try:
            ours.recv()  # its first case begins; EOFError where it cannot
            self.end = min(self.end, time.monotonic() + self.seconds)
            while not self._over() and self.done < self.most:
                if not ours.poll(PATIENCE):
                    self._count(Outcome(self.done, False, f"no end after {PATIENCE:.0f} seconds"))
                    return
                try:
                    self._count(ours.recv())
                except EOFError:
                    child.join()
                    text = f"the process ended with {child.exitcode}"
                    self._count(Outcome(self.done, False, text))
                    return
        finally:
            child.kill()
            child.join()

    def _count(self, outcome: Outcome) -> None:
        self.done = outcome.case + 1
        self.accepted += outcome.accepted
        kind = outcome.fault.partition(": ")[0].lstrip("0123456789.")
        if outcome.fault and kind not in self._seen:
            self._seen.add(kind)
            self.faults.append(
                f"{outcome.fault}\n    python tests/fuzz {self.name} --seed {self.seed} "
                f"--case {outcome.case}"
            )

    def report(self) -> str:
        text = f"{self.name}: seed {self.seed}, {self.done} cases, {self.accepted} accepted"
        return "\n".join([f"{text}, {len(self.faults)} kinds of faults", *self.faults])
