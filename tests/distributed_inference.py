"""What test_distributed_inference.py runs: a program of docs/distributed.md, and a worker dies.

In one of its two jobs, the third part of the data kills the worker that has it. Every part leaves a
line in ``log``: the job, the process, the threads that its calls have.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from pathlib import Path
from typing import Any

import fastlstm

KILLED = "labels"


def begin(log: Path, job: str) -> None:
    """Note that a part begins here, and be killed if it is the third of that job."""
    with log.open("a") as file:  # short lines are written in one piece
        file.write(f"{job} {os.getpid()} {fastlstm.get_num_threads()}\n")
    processes = [line.split()[1] for line in log.read_text().splitlines() if line.startswith(job)]
    if job == KILLED and processes[2:3] == [str(os.getpid())]:
        os.kill(os.getpid(), signal.SIGKILL)


def with_ray(program: Any, log: Path) -> None:
    import ray

    # Two for the workers, and two for the tasks that read and write.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)

    class Labels(program.Labels):  # type: ignore[misc]
        def __call__(self, batch: Any) -> Any:
            begin(log, "labels")
            return super().__call__(batch)

    class Vectors(program.Vectors):  # type: ignore[misc]
        def __call__(self, batch: Any) -> Any:
            begin(log, "vectors")
            return super().__call__(batch)

    program.Labels, program.Vectors = Labels, Vectors


def with_dask(program: Any, log: Path) -> None:
    labels, vectors = program.labels, program.vectors

    def noted_labels(source: Path, target: Path) -> None:
        begin(log, "labels")
        labels(source, target)

    def noted_vectors(source: Path, target: Path) -> None:
        begin(log, "vectors")
        vectors(source, target)

    class Client(program.Client):  # type: ignore[misc]
        def __exit__(self, *error: Any) -> None:
            self.wait_for_workers(2)  # Dask may wait for ever for one that it ends while it starts
            super().__exit__(*error)

    program.labels, program.vectors = noted_labels, noted_vectors
    program.Client = Client


if __name__ == "__main__":
    engine, folder = sys.argv[1], Path(sys.argv[2])
    program = importlib.import_module(f"answer_{engine}")
    {"ray": with_ray, "dask": with_dask}[engine](program, folder / "log")
    program.main(folder)
