"""``python -m fastlstm_bench.markdown FILE``: a run's results as tables in Markdown."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from fastlstm_bench import tables
from fastlstm_bench.cases import BLOCKS, CELLS, JOBS, Case
from fastlstm_bench.results import Group, Run
from fastlstm_bench.statistics import geometric_mean
from fastlstm_bench.systems import SUBJECT

KINDS = (
    *("step", "inference", "training", "optimiser"),
    *("cells-inference", "cells-training", "model-inference", "model-optimiser"),
    *(f"{job}-{task}" for job in JOBS for task in ("optimiser", "inference")),
    *(f"{block}-training" for block in BLOCKS),
)
# Names of the cells as people write them.
_CELL_NAMES = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# The parts of a grid that a mean is also given of, by themselves.
_PARTS: dict[str, Callable[[Case], bool]] = {
    "all": lambda _: True,
    "layers": lambda case: case.layers > 1,
    "float64": lambda case: case.dtype == "float64",
    "bfloat16": lambda case: case.dtype == "bfloat16",
    "int8": lambda case: case.dtype == "int8",
    "uneven lengths": lambda case: case.lengths,
    "bidirectional": lambda case: case.bidirectional,
}

Key = TypeVar("Key", bound=Hashable)


def table(head: Sequence[str], *rows: Sequence[str]) -> str:
    """A table whose first column is to the left and the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def point(case: Case) -> str:
    """A case without its task and cell: T = 100, B = 32, H = 256, float64."""
    sizes = [f"B = {case.B}", f"H = {case.H}"]
    if case.task != "step":
        sizes.insert(0, f"T = {case.T}")
    if case.V:
        sizes.append(f"V = {case.V}")
    forms = {
        f"{case.layers} layers": case.layers > 1,
        "bidirectional": case.bidirectional,
        "uneven lengths": case.lengths,
        case.dtype: case.dtype != "float32",
    }
    return ", ".join([*sizes, *(form for form, has in forms.items() if has)])


def _title(kind: str, cell: str, comma: str = "") -> str:
    """A kind of case of a cell; blocks have none."""
    has_none = kind.removesuffix("-training") in BLOCKS
    return kind if has_none else f"{_CELL_NAMES[cell]}{comma} {kind}"


def _grouped(items: Iterable[Group], key: Callable[[Group], Key]) -> dict[Key, list[Group]]:
    found: dict[Key, list[Group]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _cells(run: Run, group: Group | None) -> list[str]:
    """fastlstm, best peer, ratio (bold below 1), part of the roofline."""
    own = group.of(group.subject) if group else None
    best = group.best_peer if group else None
    ratio = group.ratio() if group else None
    shown = tables.NOTHING if ratio is None else f"{ratio.median:.2f}x"
    return [
        tables.seconds(own.seconds.median) if own else tables.NOTHING,
        f"{tables.seconds(best.seconds.median)} {best.system}" if best else tables.NOTHING,
        f"**{shown}**" if ratio is not None and ratio.median < 1 else shown,
        tables.percent(run.roofline_fraction(own)) if own else tables.NOTHING,
    ]


def points_table(run: Run, groups: Iterable[Group]) -> str:
    """One line for each point, with all numbers of threads next to each other."""
    threads = sorted({group.threads for group in run.groups()})
    head = ["point"]
    for n in threads:
        head += [f"{SUBJECT}, {tables.threads_text(n)}", "best peer", "ratio", "roofline"]
    rows = []
    for case, found in _grouped(groups, lambda group: group.case).items():
        by_threads = {group.threads: group for group in found}
        row = [point(case)]
        for n in threads:
            row += _cells(run, by_threads.get(n))
        rows.append(row)
    return table(head, *rows)


def _mean(groups: Iterable[Group]) -> str:
    """Geometric mean of the ratios, of how many, and how many of them are below 1."""
    ratios = [ratio.median for group in groups if (ratio := group.ratio()) is not None]
    if not ratios:
        return tables.NOTHING
    below = sum(ratio < 1 for ratio in ratios)
    of = f"{len(ratios)}, {below} below 1" if below else f"{len(ratios)}"
    return f"{geometric_mean(ratios):.2f}x ({of})"


def means_table(run: Run) -> str:
    """Geometric means of the ratio to the best peer by task and cell, and of parts of them."""
    threads = sorted({group.threads for group in run.groups()})
    rows = []
    groups = _grouped(run.groups(), lambda group: (group.case.kind, group.case.cell))
    for kind in KINDS:
        for cell in CELLS:
            for part, belongs in _PARTS.items():
                own = [g for g in groups.get((kind, cell), ()) if belongs(g.case)]
                if own:
                    means = (_mean(g for g in own if g.threads == n) for n in threads)
                    rows.append([_title(kind, cell), part, *means])
    return table(["", "cases", *map(tables.threads_text, threads)], *rows)


def document(run: Run, kinds: Sequence[str] = KINDS, cells: Sequence[str] = CELLS) -> str:
    """All tables of a run: machine, means, limits, then each task and cell by points."""
    versions = (
        # OpenVINO's goes on with a hash and a branch.
        f"{name} {about[name].split('-')[0]}"
        for name, about in run.systems.items()
        if name in about
    )
    parts = [
        f"{run.machine.get('cpu')}, {run.started[:10]}: {', '.join(versions)}.",
        "Ratio: how many times faster fastlstm is than the best peer, median over rounds; bold "
        "where it is slower. Roofline: the least time that the machine's limits allow, over the "
        "time taken.",
        "Geometric means of the ratio, in brackets of how many cases:",
        means_table(run),
        table(*tables.limits_rows(run)) if run.limits else "",
    ]
    groups = _grouped(run.groups(), lambda group: (group.case.kind, group.case.cell))
    for kind in KINDS:
        for cell in CELLS:
            found = groups.get((kind, cell), [])
            if found and kind in kinds and cell in cells:
                parts += [f"### {_title(kind, cell, comma=',')}", points_table(run, found)]
    return "\n\n".join(part for part in parts if part)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastlstm_bench.markdown", description=__doc__.split(": ", 1)[1]
    )
    parser.add_argument("file", type=Path, help="results.json of a run")
    parser.add_argument("--task", action="append", choices=KINDS, help="only this (repeatable)")
    parser.add_argument("--cell", action="append", choices=CELLS, help="only this (repeatable)")
    options = parser.parse_args(argv)
    try:
        run = Run.read(options.file)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(document(run, options.task or KINDS, options.cell or CELLS))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
