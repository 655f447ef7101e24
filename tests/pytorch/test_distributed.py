"""Several processes: torchrun, workers of a DataLoader, and forks. Each has its time at most."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import fastlstm.torch
import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch without distributed"),
    pytest.mark.slow,
]
HERE = Path(__file__).parent
SECONDS = 300


def torchrun(processes: int, script: Path, *arguments: str, cwd: Path) -> str:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", str(processes), str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("processes", "checks"),
    [
        (2, ["data_parallel", "data_parallel_accelerated_inside", "uneven"]),
        (4, ["data_parallel", "uneven"]),
        (2, ["fully_sharded_1", "fully_sharded_2", "fully_sharded_2_accelerated_after"]),
    ],
)
def test_training_equals_that_of_one_process(
    processes: int, checks: list[str], tmp_path: Path
) -> None:
    printed = torchrun(processes, HERE / "distributed_worker.py", *checks, cwd=tmp_path)
    for check in checks:
        assert len(re.findall(rf"passed {check}\b", printed)) == processes, printed


def test_the_program_of_the_documentation(tmp_path: Path) -> None:
    page = (HERE.parent.parent / "docs" / "distributed.md").read_text()
    (program,) = re.findall(r'^```py\n("""train.py.*?)^```$', page, re.MULTILINE | re.DOTALL)
    assert "torchrun --standalone --nproc-per-node 2 train.py" in page
    script = tmp_path / "train.py"
    script.write_text(program)
    torchrun(2, script, cwd=tmp_path)
    lstm = fastlstm.from_torch(tmp_path / "model.pt", "lstm", batch_first=True)
    assert repr(lstm) == "LSTM(8, 32, batch_first=True)"


class Encoded(Dataset[Tensor]):
    """Items that a model computes in the worker."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = fastlstm.torch.accelerate(nn.LSTM(3, 4).eval())
        self.x = torch.randn(8, 5, 3)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        with torch.no_grad():
            return self.model(self.x[index])[0]  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader(start: str) -> None:
    data = Encoded()
    expected = torch.stack([data[k] for k in range(len(data))])
    loader = DataLoader(
        data, batch_size=2, num_workers=2, multiprocessing_context=start, timeout=SECONDS
    )
    assert torch.equal(torch.cat(list(loader)), expected)


def train_a_step(model: nn.Module) -> float:
    loss = model(torch.ones(40, 8, 32))[0].square().sum()
    model.zero_grad()
    loss.backward()
    return float(sum(p.grad.abs().sum() for p in model.parameters() if p.grad is not None))


def in_child(model: nn.Module, results: SimpleQueue[float]) -> None:
    torch.set_num_threads(1)  # a child of fork has none of OpenMP's threads
    results.put(train_a_step(model))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_a_fork_after_calls() -> None:
    torch.manual_seed(0)
    model = fastlstm.torch.accelerate(nn.LSTM(32, 64))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = train_a_step(model)
        context = multiprocessing.get_context("fork")
        results = context.SimpleQueue()
        child = context.Process(target=in_child, args=(model, results))
        child.start()
        child.join(SECONDS)
        assert child.exitcode == 0
        assert results.get() == pytest.approx(expected, rel=1e-5)
        assert train_a_step(model) == pytest.approx(expected, rel=1e-5)
    finally:
        torch.set_num_threads(threads)
