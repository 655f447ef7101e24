"""What the processes of test_distributed.py run: their part of a training, and rank 0's check.

torchrun starts it with names of its functions.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from typing import Any

import fastlstm.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.rnn import pack_padded_sequence

I, H, T = 5, 8, 7


class Model(nn.Module):
    """A classifier of packed sequences by two kinds of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(I, H, 2, bidirectional=True)
        self.gru = nn.GRU(2 * H, H)
        self.out = nn.Linear(H, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed, _ = self.lstm(pack_padded_sequence(x, lengths, enforce_sorted=False))
        _, h = self.gru(packed)
        return self.out(h[-1])  # type: ignore[no-any-return]


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return Model()


def make_batch(seed: int, size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(T, size, I, generator=generator)
    lengths = torch.randint(1, T + 1, (size,), generator=generator)
    return x, lengths, torch.randint(0, 3, (size,), generator=generator)


def loss_of(model: Any, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    x, lengths, y = batch
    return nn.functional.cross_entropy(model(x, lengths), y)


def assert_ours(model: nn.Module) -> None:
    rows = fastlstm.torch.report(model).rows
    assert len(rows) == 2, rows
    assert all(row.replaced and not row.reason for row in rows), rows


def trained_alone(steps: int, has_batch: Callable[[int, int], bool] = lambda *_: True) -> nn.Module:
    """A model of torch's that one process trained with all batches."""
    world = dist.get_world_size()
    model = make_model()
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for step in range(steps):
        optimiser.zero_grad()
        for rank in range(world):
            if has_batch(rank, step):
                (loss_of(model, make_batch(10 * step + rank)) / world).backward()
        optimiser.step()
    return model


def train(model: nn.Module, steps: int) -> None:
    optimiser = torch.optim.SGD(model.parameters(), 0.5)
    for step in range(steps):
        optimiser.zero_grad()
        loss_of(model, make_batch(10 * step + dist.get_rank())).backward()
        optimiser.step()


def compare(values: dict[str, Tensor], alone: nn.Module) -> None:
    start = make_model().state_dict()
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(values[name], value, rtol=1e-4, atol=1e-6, msg=name)
        assert not torch.allclose(value, start[name], rtol=1e-3), name


def data_parallel() -> None:
    model = fastlstm.torch.accelerate(make_model())
    parallel = DistributedDataParallel(model)
    assert_ours(parallel)
    train(parallel, 3)
    compare(model.state_dict(), trained_alone(3))


def data_parallel_accelerated_inside() -> None:
    parallel = DistributedDataParallel(make_model())
    assert_ours(fastlstm.torch.accelerate(parallel))
    train(parallel, 3)
    compare(parallel.module.state_dict(), trained_alone(3))


def uneven() -> None:
    """The first rank has a batch more than the others, as the last part of a data set has."""
    parallel = DistributedDataParallel(fastlstm.torch.accelerate(make_model()))
    with parallel.join():
        train(parallel, 3 if dist.get_rank() == 0 else 2)
    alone = trained_alone(3, lambda rank, step: rank == 0 or step < 2)
    compare(parallel.module.state_dict(), alone)


def fully_sharded_1() -> None:
    model = FullyShardedDataParallel(
        fastlstm.torch.accelerate(make_model()), device_id=torch.device("cpu"), use_orig_params=True
    )
    assert_ours(model)
    train(model, 3)
    with FullyShardedDataParallel.summon_full_params(model):
        compare(copy.deepcopy(model.module.state_dict()), trained_alone(3))


def fully_sharded_2() -> None:
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    model = fastlstm.torch.accelerate(make_model())
    fully_shard(model.lstm, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert_ours(model)
    train(model, 3)
    values = {name: value.full_tensor() for name, value in model.state_dict().items()}
    compare(values, trained_alone(3))


def fully_sharded_2_accelerated_after() -> None:
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    model = make_model()
    fully_shard(model.lstm, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert_ours(fastlstm.torch.accelerate(model))
    train(model, 3)
    values = {name: value.full_tensor() for name, value in model.state_dict().items()}
    compare(values, trained_alone(3))


CHECKS = {
    check.__name__: check
    for check in (
        data_parallel,
        data_parallel_accelerated_inside,
        uneven,
        fully_sharded_1,
        fully_sharded_2,
        fully_sharded_2_accelerated_after,
    )
}

if __name__ == "__main__":
    dist.init_process_group("gloo")
    try:
        for name in sys.argv[1:]:
            CHECKS[name]()
            print(f"passed {name}\n", end="", flush=True)  # in one piece, between the others
    finally:
        dist.destroy_process_group()
