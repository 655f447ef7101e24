"""The parent's end of a worker: start it, ask it, survive it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

PACKAGE_ROOT = Path(__file__).resolve().parent.parent


class WorkerError(Exception):
    """A worker that is of no more use for this case.

    Attributes
    ----------
    status : {"absent", "unsupported", "failed", "died", "timeout"}
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def worker_environment(threads: int) -> dict[str, str]:
    """The environment of every worker: what libraries read when they load, the same for all."""
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment[name] = str(threads)
    environment["FASTLSTM_NUM_THREADS"] = str(threads)
    # No system may find a GPU, or wait for a network.
    environment["CUDA_VISIBLE_DEVICES"] = "-1"
    # A worker finds what this process finds: a checkout that is not installed, a test's adapters.
    paths = [str(PACKAGE_ROOT), *sys.path, environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    return environment


class Worker:
    """A process with one system on one number of threads.

    Parameters
    ----------
    module : str
        The adapter.
    threads : int
    timeout : float
        Seconds after which a request's silence is a hang, and the process is killed.
    """

    def __init__(self, module: str, threads: int, timeout: float) -> None:
        self.timeout = timeout
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fastlstm_bench.worker", module, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=worker_environment(threads),
        )
        # A thread that blocks on the pipe uses no CPU, and works where pipes cannot be polled.
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            greeting = self._reply()
        except WorkerError:
            self.close()
            raise
        self.versions: dict[str, str] = greeting["versions"]

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Raises
        ------
        WorkerError
            The system cannot, failed, died or hangs. It is killed in the last case.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        return self._reply()

    def close(self) -> None:
        """End the process, by force if it does not end by itself."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=2)
        self._process.stdout.close()
        self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _reply(self) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=self.timeout)
        except queue.Empty:
            self._process.kill()
            self._process.wait()
            raise WorkerError("timeout", f"no answer for {self.timeout:g} s") from None
        if line is None:
            raise self._died()
        reply: dict[str, Any] = json.loads(line)
        for status in ("absent", "unsupported", "failed"):
            if status in reply:
                raise WorkerError(status, reply[status])
        return reply

    def _died(self) -> WorkerError:
        code = self._process.wait()
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return WorkerError("died", ": ".join([f"the process died ({how})", *last]))
