"""Random models train alike with and without `accelerate`: their losses, step by step."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import fastlstm.torch
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

STEPS = 20
BATCH, LONGEST, WORDS, CLASSES = 5, 9, 11, 4
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


def output_of(state: Any) -> Tensor:
    """h of a state that may have a c."""
    return state[0] if isinstance(state, tuple) else state


class Sequential(nn.Module):
    """Features in, one number out, with torch's containers."""

    def __init__(self, kind: str, pick: random.Random) -> None:
        super().__init__()
        width, H = pick.randint(1, 7), pick.randint(1, 20)
        self.width = width
        self.net = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), LAYERS[kind](width, H, pick.choice([1, 2]))
        )
        self.out = nn.Linear(H, 1)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x = torch.sin(batch["words"].T[..., None] + torch.arange(self.width))
        output, _ = self.net(x.to(self.out.weight.dtype))
        return (self.out(output[-1])[:, 0] - batch["tags"][:, 0]).square().mean()


class Tagger(nn.Module):
    """A class for each word, from packed or padded sequences of both directions."""

    def __init__(self, kind: str, pick: random.Random) -> None:
        super().__init__()
        I, H = pick.randint(1, 12), pick.randint(1, 20)
        bias = pick.choice([True, False])
        more = {"proj_size": H // 2} if kind == "LSTM" and H > 3 and pick.random() < 0.5 else {}
        self.packed = pick.choice([True, False])
        self.embedding = nn.Embedding(WORDS, I)
        self.rnn = LAYERS[kind](
            I, H, pick.choice([1, 2, 3]), bias=bias, batch_first=True, bidirectional=True, **more
        )
        self.out = nn.Linear(2 * more.get("proj_size", H), CLASSES)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x: Any = self.embedding(batch["words"])
        if self.packed:
            x = pack_padded_sequence(x, batch["lengths"], batch_first=True, enforce_sorted=False)
        output, _ = self.rnn(x)
        if self.packed:
            output, _ = pad_packed_sequence(output, batch_first=True, total_length=LONGEST)
        there = torch.arange(LONGEST) < batch["lengths"][:, None]
        return nn.functional.cross_entropy(self.out(output)[there], batch["tags"][there])


class Translator(nn.Module):
    """An encoder of packed sequences, and a decoder with attention that is a cell."""

    def __init__(self, kind: str, pick: random.Random) -> None:
        super().__init__()
        I, H = pick.randint(1, 12), pick.randint(1, 20)
        self.H = H
        self.embedding = nn.Embedding(WORDS, I)
        self.encoder = LAYERS[kind](I, H)
        self.decoder = CELLS[kind](I + H, H)
        self.out = nn.Linear(2 * H, WORDS)

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x = self.embedding(batch["words"].T)
        packed, state = self.encoder(
            pack_padded_sequence(x, batch["lengths"], enforce_sorted=False)
        )
        memory, _ = pad_packed_sequence(packed, total_length=LONGEST)
        away = torch.arange(LONGEST)[:, None] >= batch["lengths"]
        state = tuple(s[0] for s in state) if isinstance(state, tuple) else state[0]
        loss = 0.0
        for t in range(4):
            scores = (memory * output_of(state)).sum(-1).masked_fill(away, -1e9)
            context = (memory * scores.softmax(0)[..., None]).sum(0)
            state = self.decoder(torch.cat([x[t], context], 1), state)
            logits = self.out(torch.cat([output_of(state), context], 1))
            loss = loss + nn.functional.cross_entropy(logits, batch["words"][:, t + 1])
        return loss


class Several(nn.Module):
    """Layers of all kinds; one is called twice, and one has another's weights."""

    def __init__(self, kind: str, pick: random.Random) -> None:
        super().__init__()
        H = pick.randint(1, 16)
        self.embedding = nn.Embedding(WORDS, H)
        self.first = nn.ModuleList([LAYERS[k](H, H, dropout=0.0) for k in (kind, "LSTM", "RNN")])
        self.twin = LAYERS[kind](H, H)
        for name, parameter in self.first[0].named_parameters():
            setattr(self.twin, name, parameter)
        self.again = nn.RNN(H, H, nonlinearity="relu")
        self.out = nn.Linear(H, WORDS)
        self.out.weight = self.embedding.weight

    def forward(self, batch: dict[str, Any]) -> Tensor:
        x = self.embedding(batch["words"].T)
        for layer in (*self.first, self.twin, self.again):
            x = x + layer(x)[0]
        output, state = self.again(x, self.again(x)[1])
        logits = self.out(output).flatten(0, 1)
        return (
            nn.functional.cross_entropy(logits, batch["words"].T.flatten()) + state.square().mean()
        )


def parametrised(model: nn.Module, pick: random.Random) -> nn.Module:
    """Weight norm or spectral norm on the recurrent weights."""
    for module in model.modules():
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
            names = [n for n, _ in module.named_parameters() if n.startswith("weight_hh")]
            put = pick.choice([parametrizations.weight_norm, parametrizations.spectral_norm])
            for name in names:
                put(module, name)
            # Spectral norm's iteration goes on with each access, and torch makes several in a call.
            module.parametrizations.eval()
    return model


MODELS: dict[str, Callable[[str, random.Random], nn.Module]] = {
    "sequential": Sequential,
    "tagger": Tagger,
    "translator": Translator,
    "several": Several,
    "parametrised tagger": lambda kind, pick: parametrised(Tagger(kind, pick), pick),
    "parametrised translator": lambda kind, pick: parametrised(Translator(kind, pick), pick),
}
OPTIMISERS: list[Callable[[Any], Any]] = [
    lambda p: torch.optim.Adam(p, 1e-2),
    lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    lambda p: torch.optim.AdamW(p, 1e-2, foreach=False),
]


def batches(pick: random.Random) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(pick.getrandbits(32))

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator)

    return [
        {
            "words": integers(0, WORDS, BATCH, LONGEST),
            "tags": integers(0, CLASSES, BATCH, LONGEST),
            "lengths": integers(1, LONGEST + 1, BATCH),
        }
        for _ in range(STEPS)
    ]


def train(
    model: nn.Module, data: list[dict[str, Tensor]], optimiser: Any, clip: bool
) -> list[float]:
    losses = []
    for batch in data:
        optimiser.zero_grad()
        loss = model(batch)
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("name", MODELS)
def test_losses_agree(name: str, kind: str, dtype: str) -> None:
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    for seed in range(3):
        losses = []
        for ours in (False, True):  # made twice, as torch cannot copy all parametrised modules
            pick = random.Random(f"{name} {kind} {seed}")
            torch.manual_seed(seed)
            model = MODELS[name](kind, pick).to(getattr(torch, dtype))
            optimiser = pick.choice(OPTIMISERS)(model.parameters())
            if ours:
                rows = fastlstm.torch.report(fastlstm.torch.accelerate(model)).rows
                assert rows
                assert all(row.replaced and not row.reason for row in rows)
            losses.append(train(model, batches(pick), optimiser, pick.random() < 0.5))
        assert losses[1] == pytest.approx(losses[0], rel=tolerance), seed
        assert losses[0][0] != losses[0][-1]


def test_another_model_would_be_noticed() -> None:
    """What is compared depends on the recurrent weights."""
    pick = random.Random(0)
    torch.manual_seed(0)
    model = Tagger("GRU", pick)
    data = batches(pick)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.rnn.weight_hh_l0 += 0.1
    losses = [train(m, data, torch.optim.SGD(m.parameters(), 0.1), False) for m in (model, other)]
    assert losses[1] != pytest.approx(losses[0], rel=1e-5)
