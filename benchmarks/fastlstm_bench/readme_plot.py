"""``python -m fastlstm_bench.readme_plot``: the README's plot, from the newest published run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastlstm_bench.cases import CELLS, Case, Cell
from fastlstm_bench.plots import colour, plain_log_labels, pyplot
from fastlstm_bench.results import Group, Run
from fastlstm_bench.systems import REFERENCE, SUBJECT, SYSTEMS
from fastlstm_bench.tables import threads_text

_RESULTS = Path(__file__).resolve().parents[1] / "results"

# Blocks of rows: a title and which cases it shows.
BLOCKS: dict[str, Any] = {
    "one step of a stream": lambda c: c.task == "step" and c.B == 1 and not c.variant,
    "inference, one sequence": lambda c: (
        c.task == "inference" and c.B == 1 and c.T == 100 and not c.variant
    ),
    "inference, batches": lambda c: c.task == "inference" and c.B >= 8 and not c.variant,
    "inference, uneven lengths": lambda c: c.task == "inference" and c.variant == "lengths",
    "training": lambda c: c.task == "training" and not c.variant,
    "training, uneven lengths": lambda c: c.task == "training" and c.variant == "lengths",
}
# A peer slower than this part of the best one is drawn at the edge.
_EDGE = 0.1


def _label(case: Case) -> str:
    return f"H {case.H}" if case.task == "step" else f"T {case.T}, B {case.B}, H {case.H}"


def _rows(run: Run, cell: Cell) -> list[str | Case]:
    """From top to bottom: the title of each block, and its cases that have a ratio."""
    cases = {group.case: None for group in run.groups() if group.ratio() is not None}
    rows: list[str | Case] = []
    for title, belongs in BLOCKS.items():
        own = [case for case in cases if case.cell == cell and belongs(case)]
        rows += [title, *own] if own else []
    return rows


def draw(run: Run, cell: Cell, path: Path) -> None:
    """Speed over the best peer's: a row for each case, a column for each number of threads.

    Raises
    ------
    ValueError
        The run has nothing to draw.
    """
    plt = pyplot()
    rows = _rows(run, cell)
    if not rows:
        raise ValueError(f"the run has no {cell} next to a peer")
    threads = sorted({group.threads for group in run.groups()})
    figure, columns = plt.subplots(
        1, len(threads), figsize=(9, 1.7 + 0.2 * len(rows)), sharey=True, sharex=True, squeeze=False
    )
    for axes, n in zip(columns.flat, threads, strict=True):
        groups: dict[str | Case, Group] = {g.case: g for g in run.groups() if g.threads == n}
        _draw_column(axes, [groups.get(row) for row in rows])
        axes.set_title(threads_text(n), fontsize=10)
    first = columns.flat[0]
    labels = [row if isinstance(row, str) else _label(row) for row in rows]
    first.set_yticks(range(len(rows)), labels, fontsize=8)
    for label, row in zip(first.get_yticklabels(), rows, strict=True):
        label.set_fontweight("bold" if isinstance(row, str) else "normal")
    first.set_ylim(len(rows) - 0.5, -0.5)

    handles: dict[str, Any] = {}
    for axes in columns.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        handles.values(), handles.keys(), loc="lower center", ncols=len(handles), fontsize=9
    )
    figure.suptitle(
        f"{cell.upper()}, float32: speed over the best peer's ({run.machine['cpu']}, "
        f"{run.started[:10]})",
        fontsize=11,
    )
    inch = 1 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0.35 * inch, 1, 1))
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw_column(axes: Any, groups: Sequence[Group | None]) -> None:
    for system in SYSTEMS:
        ratios = [(g.ratio(system) if g and system != REFERENCE else None) for g in groups]
        known = [(max(r.median, _EDGE), row) for row, r in enumerate(ratios) if r is not None]
        if known:
            axes.plot(
                *zip(*known, strict=True),
                "o",
                markersize=7 if system == SUBJECT else 4,
                color=colour(system),
                label=system,
                zorder=3 if system == SUBJECT else 2,
                clip_on=False,
            )
    axes.axvline(1.0, color="black", linewidth=1.0)
    axes.set_xscale("log")
    axes.set_xlim(left=_EDGE)
    plain_log_labels(axes.xaxis)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(linewidth=0.3)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--cell", choices=CELLS, default="lstm")
    parser.add_argument("--out", type=Path, default=_RESULTS / "readme.png")
    options = parser.parse_args(argv)
    # Published runs are named by date, so that the last name is the newest.
    found = sorted(options.results.glob("[0-9]*.json"))
    if not found:
        parser.error(f"no published run in {options.results}")
    try:
        draw(Run.read(found[-1]), options.cell, options.out)
    except ValueError as error:
        parser.error(str(error))
    print(f"{options.out} drawn from {found[-1].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
