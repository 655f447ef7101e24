"""``python -m fastlstm_bench.readme_plot``: the README's plot, from the newest published run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastlstm_bench.cases import Case
from fastlstm_bench.plots import colour, plain_log_labels
from fastlstm_bench.results import Group, Run
from fastlstm_bench.systems import REFERENCE, SUBJECT, SYSTEMS
from fastlstm_bench.tables import threads_text

_RESULTS = Path(__file__).resolve().parents[1] / "results"

# One panel each: a title and which cases it shows.
PANELS: dict[str, Any] = {
    "Streaming: one step, batch 1": lambda c: c.task == "step" and c.B == 1 and c.layers == 1,
    "Sequences: T = 100, batch 1": lambda c: c.task == "inference" and c.B == 1 and c.T == 100,
    "Batches, inference": lambda c: c.task == "inference" and c.B >= 8,
    "Batches, training": lambda c: c.task == "training" and c.B >= 8,
}


def _shown(case: Case, panel: str) -> bool:
    return case.cell == "lstm" and not case.variant and bool(PANELS[panel](case))


def _label(case: Case) -> str:
    return f"H {case.H}" if case.B == 1 else f"{case.T}, {case.B}, {case.H}"


def draw(run: Run, threads: int, path: Path) -> None:
    """Speed over the best peer's, by hidden size or (T, B, H), for each system."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, grid = plt.subplots(2, 2, figsize=(10, 7))
    for axes, panel in zip(grid.flat, PANELS, strict=True):
        groups = [g for g in run.groups() if g.threads == threads and _shown(g.case, panel)]
        _draw_panel(axes, [group for group in groups if group.best_peer is not None], panel)
    handles: dict[str, Any] = {}
    for axes in grid.flat:
        handles |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="lower center", ncols=len(handles) or 1)
    figure.suptitle(
        f"LSTM float32, speed over the best peer's, {threads_text(threads)}, {run.machine['cpu']}, "
        f"{run.started[:10]}"
    )
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=120)


def _draw_panel(axes: Any, groups: Sequence[Group], title: str) -> None:
    for system in SYSTEMS:
        points = [(i, g.ratio(system)) for i, g in enumerate(groups) if system != REFERENCE]
        known = [(i, ratio.median) for i, ratio in points if ratio is not None]
        if known:
            style = "o-" if system == SUBJECT else "."
            axes.plot(*zip(*known, strict=True), style, color=colour(system), label=system)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_yscale("log")
    plain_log_labels(axes.yaxis)
    axes.set_xticks(range(len(groups)), [_label(g.case) for g in groups], fontsize=7, rotation=30)
    axes.set_title(title, fontsize=9)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=_RESULTS / "readme.png")
    options = parser.parse_args(argv)
    # Published runs are named by date, so that the last name is the newest.
    found = sorted(options.results.glob("[0-9]*.json"))
    if not found:
        parser.error(f"no published run in {options.results}")
    draw(Run.read(found[-1]), options.threads, options.out)
    print(f"{options.out} drawn from {found[-1].name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
