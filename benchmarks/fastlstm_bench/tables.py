"""Numbers as words, and the tables of the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fastlstm_bench.results import Group, Result, Run
from fastlstm_bench.roofline import flop
from fastlstm_bench.statistics import Summary, geometric_mean
from fastlstm_bench.systems import MODULES, SUBJECT

NOTHING = "-"
# Seconds of a call above which noise hides what a module adds.
_SHORT = 2e-4


def seconds(value: float | None) -> str:
    """Three digits with a unit: 1.23 us, 45.6 ms."""
    if value is None:
        return NOTHING
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.0f} %"


def gflops(result: Result) -> str:
    """Operations of products a second; nothing where there are none."""
    operations = flop(result.case)
    return f"{operations / result.seconds.median / 1e9:.1f}" if operations else NOTHING


def ratio(value: Summary | None) -> str:
    """The median, and the quartiles in brackets."""
    if value is None:
        return NOTHING
    return f"{value.median:.2f}x [{value.q25:.2f}, {value.q75:.2f}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, the others to the right. The first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def rounds_text(result: Result) -> str:
    """How many rounds a result has, and why not all."""
    count = len(result.rounds)
    rounds = "1 round" if count == 1 else f"{count} rounds"
    return f"{rounds}, {result.sat_out}" if result.sat_out else rounds


def spread(result: Result) -> str:
    """Half the interquartile range over the median; too few rounds have none."""
    if len(result.rounds) < 3:
        return NOTHING
    return f"±{50 * result.seconds.spread:.0f} %"


def result_cells(run: Run, group: Group, result: Result) -> list[str]:
    """system, time, spread, GFLOP/s, part of the roofline, ratio to the best peer."""
    if not result.timed:
        return [result.system, result.status, "", "", "", ""]
    time = result.seconds
    return [
        result.system,
        seconds(time.median),
        spread(result),
        gflops(result),
        percent(run.roofline_fraction(result)),
        ratio(group.ratio(result.system)),
    ]


RESULT_HEAD = ["", "time", "spread", "GFLOP/s", "roofline", "times the best peer's speed"]


def group_table(run: Run, group: Group) -> str:
    """All systems on one case, and why some have no time."""
    head = [f"{group.case.name}, {threads_text(group.threads)}", *RESULT_HEAD[1:]]
    lines = [table([head, *(result_cells(run, group, result) for result in group)])]
    lines += [
        f"  {r.system} {r.status}: {r.reason}"
        for r in group
        if r.status not in ("ok", "unsupported")
    ]
    lines += [f"  {r.system}: {rounds_text(r)}" for r in group if r.timed and r.sat_out]
    return "\n".join(lines)


def latency_table(group: Group) -> str:
    """Quantiles of single steps."""
    names = ("p50", "p90", "p99", "p99.9", "max")
    rows = [[f"{group.case.name}, {threads_text(group.threads)}", *names, "steps"]]
    for result in group:
        if result.timed:
            values = [seconds(result.quantiles.get(name)) for name in names]
            rows.append([result.system, *values, f"{result.calls}"])
    return table(rows)


def threads_text(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def summary_table(run: Run) -> str:
    """One line for each case: fastlstm, the best peer, and how they compare."""
    rows = [["case", "threads", SUBJECT, "best peer", "", "ratio", "GFLOP/s", "roofline"]]
    for group in run.groups():
        own, best = group.of(group.subject), group.best_peer
        rows.append(
            [
                group.case.name,
                str(group.threads),
                seconds(own.seconds.median) if own else NOTHING,
                seconds(best.seconds.median) if best else NOTHING,
                best.system if best else "",
                ratio(group.ratio()),
                gflops(own) if own else NOTHING,
                percent(run.roofline_fraction(own)) if own else NOTHING,
            ]
        )
    return table(rows)


def scaling(run: Run) -> dict[tuple[str, str], dict[int, float]]:
    """Seconds of a call by threads, of each case and system that was timed on several numbers."""
    times: dict[tuple[str, str], dict[int, float]] = {}
    for result in run.results:
        if result.timed:
            of_threads = times.setdefault((result.case.name, result.system), {})
            of_threads[result.threads] = result.seconds.median
    return {key: dict(sorted(t.items())) for key, t in times.items() if len(t) > 1}


def scaling_table(run: Run) -> str:
    """By case and system: how many times as fast as on the fewest threads, and that by thread."""
    times = scaling(run)
    numbers = sorted({n for of_threads in times.values() for n in of_threads})
    rows = [["case", "system", *(threads_text(n) for n in numbers), "best"]]
    for (case, system), of_threads in times.items():
        fewest = min(of_threads)
        cells = []
        for n in numbers:
            if n not in of_threads:
                cells.append(NOTHING)
            elif n == fewest:
                cells.append(seconds(of_threads[n]))
            else:
                speedup = of_threads[fewest] / of_threads[n]
                cells.append(f"{speedup:.2f}x {percent(speedup * fewest / n)}")
        best = min(of_threads, key=lambda n: of_threads[n])
        rows.append([case, system, *cells, f"{seconds(of_threads[best])} on {best}"])
    return table(rows)


def standing(run: Run) -> list[str]:
    """Where fastlstm stands, by task and threads: the mean ratio, and every case that it loses."""
    lines = []
    for (kind, threads), groups in by_kind(run).items():
        ratios = {group.case.name: group.ratio() for group in groups}
        known = {name: r for name, r in ratios.items() if r is not None}
        if not known:
            continue
        mean = geometric_mean([r.median for r in known.values()])
        lines.append(
            f"{kind}, {threads_text(threads)}: {mean:.2f}x the best peer's speed, geometric mean "
            f"of {len(known)} cases"
        )
        lines += [f"  slower: {name} {ratio(r)}" for name, r in known.items() if r.median < 1]
    return lines + overheads(run)


def overheads(run: Run) -> list[str]:
    """What PyTorch's modules add to the layers that they are made of, where it can be seen."""
    lines = []
    for group in run.groups():
        modules, layer = group.of(MODULES), group.of(SUBJECT)
        if modules and layer and layer.seconds.median < _SHORT:
            both = modules.rounds.keys() & layer.rounds.keys()
            added = median(modules.rounds[turn] - layer.rounds[turn] for turn in both)
            lines.append(
                f"{group.case.name}, {threads_text(group.threads)}: {MODULES} takes "
                f"{1e6 * added:+.1f} us a call over {SUBJECT}"
            )
    return lines


def by_kind(run: Run) -> dict[tuple[str, int], list[Group]]:
    """Groups by task and use, and number of threads."""
    found: dict[tuple[str, int], list[Group]] = {}
    for group in run.groups():
        found.setdefault((group.case.kind, group.threads), []).append(group)
    return found


def limits_table(run: Run) -> str:
    return table(limits_rows(run))


def limits_rows(run: Run) -> list[list[str]]:
    """The machine's limits by number of threads, below a head."""
    rows = [["limits", *(threads_text(n) for n in run.limits)]]
    every = list(run.limits.values())
    for dtype in ("float32", "float64"):
        rows.append(
            [f"peak {dtype}, GFLOP/s", *(f"{x.flops.get(dtype, 0) / 1e9:.1f}" for x in every)]
        )
        rows.append(
            [f"NumPy GEMM {dtype}, GFLOP/s", *(f"{x.gemm.get(dtype, 0) / 1e9:.1f}" for x in every)]
        )
    for name in dict.fromkeys(level.name for x in every for level in x.levels):
        cells = [{v.name: f"{v.bandwidth / 1e9:.1f}" for v in x.levels} for x in every]
        rows.append([f"{name} read, GB/s", *(cell.get(name, NOTHING) for cell in cells)])
    return rows
