"""The plots: ratio to the best peer over the grid, roofline, latency distribution."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastlstm._extras import needs_extra

from fastlstm_bench.cases import BLOCKS, CELLS
from fastlstm_bench.results import Group, Result, Run
from fastlstm_bench.roofline import flop, weights_read
from fastlstm_bench.systems import OWN, REFERENCE, SUBJECT, SYSTEMS
from fastlstm_bench.tables import by_kind, scaling, threads_text

# Colours that stay apart for colour-blind readers (Okabe and Ito, and four more), the subject in
# the strongest.
_COLOURS = dict(
    zip(
        SYSTEMS,
        (
            *("#D55E00", "#8B0000", "#F0E442", "#FF9DA7", "#0072B2", "#000000"),
            *("#8C564B", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#999999"),
        ),
        strict=True,
    )
)


def pyplot() -> Any:
    """matplotlib.pyplot, without a screen."""
    with needs_extra("drawing", "bench"):
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

    return plt


def plain_log_labels(axis: Any) -> None:
    """Label a logarithmic axis 0.5, 1, 2, 5 instead of with powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def colour(system: str) -> str:
    return _COLOURS.get(system, "black")


def draw_ratios(plt: Any, groups: Sequence[Group], title: str) -> Any:
    """One row for each case: every system's speed over the best peer's, which is the line at 1."""
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.22 * len(groups)))
    for system in SYSTEMS:
        rows = [(row, group.ratio(system)) for row, group in enumerate(groups)]
        known = [(row, ratio) for row, ratio in rows if ratio is not None]
        if known:
            below = [ratio.median - ratio.q25 for _, ratio in known]
            above = [ratio.q75 - ratio.median for _, ratio in known]
            axes.errorbar(
                [ratio.median for _, ratio in known],
                [row for row, _ in known],
                xerr=[below, above],
                fmt="o",
                markersize=6 if system in OWN else 4,
                elinewidth=0.8,
                color=colour(system),
                label=system,
                zorder=3 if system in OWN else 2,
            )
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xscale("log")
    plain_log_labels(axes.xaxis)
    axes.set_yticks(range(len(groups)), [group.case.name for group in groups], fontsize=7)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.set_xlabel("speed over the best peer's, median and quartiles by round")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def _on_roofline(run: Run, threads: int) -> list[Result]:
    """What the roofline's plot shows: layers, in float32."""
    timed = [r for r in run.results if r.timed and r.threads == threads and r.system != REFERENCE]
    return [r for r in timed if r.case.dtype == "float32" and r.case.use not in BLOCKS]


def draw_roofline(plt: Any, run: Run, threads: int) -> Any:
    """Speed over operations per byte of weights, with the measured limits as roofs."""
    limits = run.limits[threads]
    figure, axes = plt.subplots(figsize=(9, 5.5))
    points = _on_roofline(run, threads)
    intensity = {r.case.name: flop(r.case) / weights_read(r.case)[1] for r in points}
    for place, system in enumerate(SYSTEMS):
        own = [r for r in points if r.system == system]
        if own:
            axes.scatter(
                # Side by side, or the systems of a case would hide each other.
                [intensity[r.case.name] * 1.04 ** (place - len(SYSTEMS) / 2) for r in own],
                [flop(r.case) / r.seconds.median / 1e9 for r in own],
                s=26 if system in OWN else 14,
                color=colour(system),
                label=system,
                zorder=3 if system in OWN else 2,
            )
    low, high = min(intensity.values()) / 2, max(intensity.values()) * 2
    peak = limits.flops["float32"] / 1e9
    for place, level in enumerate(limits.levels):
        roof = level.bandwidth / 1e9
        knee = min(max(peak / roof, low), high)
        axes.plot(
            [low, knee, high], [roof * low, min(roof * knee, peak), peak], "k-", linewidth=0.7
        )
        # Each further to the right: L2 and L3 are often close.
        x = low * 1.1 * 1.35**place
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        axes.text(x, roof * x, level.name, ha="center", va="center", fontsize=8, bbox=box)
    axes.axhline(peak, color="black", linewidth=0.9)
    axes.annotate(f"peak {peak:.0f} GFLOP/s", (high, peak), ha="right", va="bottom", fontsize=8)
    axes.set_xscale("log")
    axes.set_yscale("log")
    plain_log_labels(axes.xaxis)
    plain_log_labels(axes.yaxis)
    axes.set_xlim(low, high)
    axes.set_xlabel("operations per byte of weights that must be read")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(f"Roofline, float32, {threads_text(threads)}", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")
    return figure


def _grid(plt: Any, n: int, most: int, inches: tuple[float, float]) -> tuple[Any, Any]:
    """Make a figure of n plots of this size, at most so many beside each other."""
    columns = min(most, n)
    rows = -(-n // columns)
    size = (inches[0] * columns, inches[1] * rows)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axes in grid.flat[n:]:
        axes.axis("off")
    return figure, grid.flat


def draw_latencies(plt: Any, groups: Sequence[Group], threads: int) -> Any:
    """How long the slowest one in N steps takes, by case."""
    figure, grid = _grid(plt, len(groups), 3, (4, 3))
    for axes, group in zip(grid, groups, strict=False):
        for result in group:
            if result.timed:
                # 1 - q on a log scale gives the tail its room; p0 to p49 are of no interest.
                tail = [(1 - q, s) for q, s in result.distribution if 0.5 <= q < 1]
                axes.plot(
                    [beyond for beyond, _ in tail],
                    [s * 1e6 for _, s in tail],
                    color=colour(result.system),
                    label=result.system,
                    linewidth=1.2,
                )
        axes.set_xscale("log")
        axes.set_yscale("log")
        plain_log_labels(axes.yaxis)
        axes.tick_params(axis="y", labelsize=7)
        axes.minorticks_off()
        axes.invert_xaxis()
        axes.set_xticks([0.5, 0.1, 0.01, 0.001], ["p50", "p90", "p99", "p99.9"], fontsize=7)
        axes.set_title(f"{group.case.name}, {threads_text(threads)}", fontsize=8)
        axes.set_ylabel("us a step", fontsize=7)
    grid[0].legend(fontsize=6)
    figure.tight_layout()
    return figure


def draw_scaling(plt: Any, run: Run) -> Any:
    """How many times as fast as the subject on the fewest threads each system is, by threads."""
    times = scaling(run)
    cases = list(dict.fromkeys(case for case, system in times if system == SUBJECT))
    figure, grid = _grid(plt, len(cases), 4, (3, 2.5))
    for axes, case in zip(grid, cases, strict=False):
        own = times[case, SUBJECT]
        one = own[min(own)] * min(own)
        for system in SYSTEMS:
            of_threads = times.get((case, system))
            if of_threads:
                speeds = [one / t for t in of_threads.values()]
                axes.plot(
                    list(of_threads),
                    speeds,
                    "o-",
                    markersize=3,
                    linewidth=1.0,
                    color=colour(system),
                    label=system,
                )
        axes.plot(list(own), list(own), "k:", linewidth=0.7)  # as many times as threads
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(list(own), [str(n) for n in own], fontsize=7)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.tick_params(axis="y", labelsize=7)
        axes.set_title(case, fontsize=8)
    grid[0].legend(fontsize=6)
    figure.supxlabel("threads", fontsize=8)
    figure.supylabel("times as fast as fastlstm on one", fontsize=8)
    figure.tight_layout()
    return figure


def save_plots(run: Run, folder: Path) -> list[Path]:
    """Draw what the run has data for, as PNG files.

    Raises
    ------
    ModuleNotFoundError
        matplotlib is not installed.
    """
    plt = pyplot()
    figures: dict[str, Any] = {}
    for (kind, threads), unordered in by_kind(run).items():
        groups = sorted(unordered, key=lambda group: CELLS.index(group.case.cell))
        with_ratio = [group for group in groups if group.best_peer is not None]
        if with_ratio:
            title = f"{kind}, {threads_text(threads)}"
            figures[f"ratio-{kind}-{threads}"] = draw_ratios(plt, with_ratio, title)
        timed = [group for group in groups if any(r.timed for r in group)]
        if kind == "step" and timed:
            figures[f"latency-{threads}"] = draw_latencies(plt, timed, threads)
    if run.settings.get("suite") == "scaling" and scaling(run):
        figures["scaling"] = draw_scaling(plt, run)
    for threads, limits in run.limits.items():
        if limits.flops and _on_roofline(run, threads):
            figures[f"roofline-{threads}"] = draw_roofline(plt, run, threads)
    paths = []
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)
        paths.append(path)
    return paths
