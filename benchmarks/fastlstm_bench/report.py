"""The report: one HTML file with everything in it, which can be sent and kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fastlstm_bench import tables
from fastlstm_bench.results import Group, Run

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-size: 13px; }
th, td { padding: 0.15em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tr.subject { font-weight: bold; }
td.reason { text-align: left; white-space: normal; color: #777; }
img { max-width: 100%; }
pre { background: #f5f5f5; padding: 0.8em; overflow-x: auto; font-size: 12px; }
summary { cursor: pointer; }
"""


def write_report(run: Run, plots: Sequence[Path], path: Path) -> None:
    """Write the report; `plots` are PNG files, which become part of it."""
    about = f"{run.machine.get('cpu')}, {run.started} to {run.finished}"
    body = [
        "<h1>Recurrent layers on this CPU</h1>",
        f"<p>{escape(about)}</p>",
        "<h2>Where fastlstm stands</h2>",
        _pre("\n".join(tables.standing(run)) or "fastlstm was not timed next to a peer."),
        *(f"<p><b>Warning:</b> {escape(warning)}</p>" for warning in run.warnings),
        "<h2>Plots</h2>" if plots else "",
        *map(_image, plots),
        "<h2>Limits of the machine</h2>",
        _pre(tables.limits_table(run)) if run.limits else "<p>Not measured.</p>",
        "<h2>Results</h2>",
        "<p>Time: median over rounds. Spread: half the interquartile range; systems that are far "
        "behind have too few rounds for one. Roofline: the least "
        "time that the machine's limits allow, over the time taken. Error: largest difference from "
        "float64, relative to the largest value.</p>",
        _pre(tables.summary_table(run)),
        *(_group(run, group) for group in run.groups()),
        "<h2>Systems</h2>",
        _pre(json.dumps(run.systems, indent=1)),
        "<h2>Machine and settings</h2>",
        _pre(json.dumps({"machine": run.machine, "settings": run.settings}, indent=1)),
    ]
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>fastlstm bench, {escape(run.started)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        "<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _pre(content: str) -> str:
    return f"<pre>{escape(content)}</pre>"


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<p><img alt="{escape(path.stem)}" src="data:image/png;base64,{data}"></p>'


def _row(cells: Iterable[str], tag: str = "td", kind: str = "") -> str:
    columns = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    return f"<tr{f' class={kind}' if kind else ''}>{columns}</tr>"


def _group(run: Run, group: Group) -> str:
    quantiles = ("p50", "p99", "p99.9") if group.case.task == "step" else ()
    head = ["", *tables.RESULT_HEAD[1:], "error", *quantiles]
    rows = [_row(head, "th")]
    for result in group:
        if result.timed:
            cells = tables.result_cells(run, group, result)
            cells.append(f"{max(result.errors.values(), default=0.0):.0e}")
            cells += [tables.seconds(result.quantiles.get(q)) for q in quantiles]
            rows.append(_row(cells, kind="subject" if result.system == group.subject else ""))
        else:
            reason = escape(f"{result.status}: {result.reason}")
            rows.append(
                f"<tr><td>{escape(result.system)}</td>"
                f'<td class="reason" colspan="{len(head) - 1}">{reason}</td></tr>'
            )
    title = (
        f"{group.case.name}, {tables.threads_text(group.threads)}: {tables.ratio(group.ratio())}"
    )
    short = [f"{r.system}: {tables.rounds_text(r)}" for r in group if r.timed and r.sat_out]
    return (
        f"<details><summary>{escape(title)}</summary>\n<table>\n"
        + "\n".join(rows)
        + f"\n</table>{escape('; '.join(short))}</details>"
    )
