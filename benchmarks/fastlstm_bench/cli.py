"""``fastlstm bench``."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from fastlstm_bench import machine, tables
from fastlstm_bench.cases import SMALL, SUITES, select
from fastlstm_bench.compare import compare
from fastlstm_bench.results import Group, Run
from fastlstm_bench.schedule import LEAST_ROUNDS, Plan, execute
from fastlstm_bench.systems import BY_SUITE, EVERYWHERE, SUBJECT, SYSTEMS, WEIGHTS

# (rounds, seconds of a turn): enough samples for p99.9 in a full run, three minutes in all for a
# quick one.
_EFFORT = {"quick": (5, 0.06)}
_DEFAULT_EFFORT = (7, 0.2)
# With a budget, a fifth of it goes to turns of this many rounds: compilers take more than a third
# of a full run, calls longer than a turn another, and more rounds are worth more than long turns.
_BUDGET_SHARE, _BUDGET_ROUNDS = 1 / 5, 3
_SHORTEST_TURN, _LONGEST_TURN = 0.05, 0.5


def main(argv: list[str] | None = None) -> int:
    """Run the command line; `argv` is what follows ``fastlstm bench``. Returns the exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        if options.compare:
            print(compare(*(Run.read(path) for path in options.compare)))
            return 0
        if options.report:
            return _report(Run.read(options.report), options.out)
        plan = _plan(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if options.list:
        for case in plan.cases:
            print(case.name)
        return 0
    return _run(plan, argv, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastlstm bench",
        description="Compare recurrent layers on this CPU. Every system's results are checked "
        "against float64 before it is timed.",
    )
    parser.add_argument("--suite", default="quick", choices=SUITES, help="default: quick")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only cases whose name contains or matches this, e.g. 'lstm-*-H256' (repeatable)",
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPES",
        help="only these types, such as float32,bfloat16,int8: the latter two of weights, inputs "
        "and h, of the suite's layers in inference. Default: the suite's own",
    )
    parser.add_argument(
        "--peer",
        action="append",
        choices=SYSTEMS,
        help="only these systems (repeatable); fastlstm always takes part. Default: all installed",
    )
    parser.add_argument(
        "--threads",
        help="numbers of threads, such as 1,2; default: 1 and all CPUs of this process, in the "
        "suite scaling also the powers of two between them",
    )
    parser.add_argument("--rounds", type=_positive, help="turns of each system on each case")
    parser.add_argument("--turn", type=float, metavar="SECONDS", help="length of one turn")
    parser.add_argument(
        "--minutes",
        type=_positive,
        help="budget of the whole run: picks the length of a turn, and for each case the rounds, "
        f"{LEAST_ROUNDS} at least. A budget that is too small is exceeded",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=180.0,
        metavar="SECONDS",
        help="silence after which a system is killed (default: 180)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-results"), metavar="DIR", help="for all results"
    )
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    parser.add_argument(
        "--compare",
        nargs=2,
        type=Path,
        metavar=("A.json", "B.json"),
        help="say what changed beyond noise from A to B, and stop",
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="A.json",
        help="draw plots and report of an earlier run, and stop",
    )
    return parser


def _positive(value: str) -> int:
    number = int(value)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {number}")
    return number


def _plan(options: argparse.Namespace) -> Plan:
    available = len(machine.available_cpus())
    if options.threads is None:
        between = [2**k for k in range(1, available.bit_length()) if options.suite == "scaling"]
        threads = sorted({1, *(n for n in between if n < available), available})
    else:
        try:
            threads = [int(part) for part in options.threads.split(",")]
        except ValueError:
            raise ValueError(f"--threads: expected numbers, got {options.threads!r}") from None
        if not all(1 <= n <= available for n in threads):
            raise ValueError(f"--threads: expected 1 to {available}, got {options.threads}")
    dtypes = options.dtype.split(",") if options.dtype else []
    chosen = options.peer or BY_SUITE.get(options.suite, EVERYWHERE)
    if not options.peer and set(dtypes) & {*SMALL}:
        chosen = (*chosen, WEIGHTS)
    systems = {n: m for n, m in SYSTEMS.items() if n in chosen or n == SUBJECT}
    cases = select(options.suite, options.case, dtypes)
    rounds, turn = _EFFORT.get(options.suite, _DEFAULT_EFFORT)
    if options.minutes is not None:
        turns = len(cases) * len(threads) * len(systems) * _BUDGET_ROUNDS
        turn = 60.0 * options.minutes * _BUDGET_SHARE / turns
        turn = round(min(max(turn, _SHORTEST_TURN), _LONGEST_TURN), 3)
    return Plan(
        cases=cases,
        systems=systems,
        threads=threads,
        rounds=options.rounds or rounds,
        turn=options.turn or turn,
        timeout=options.timeout,
        minutes=options.minutes,
    )


class _Console:
    """Progress on standard error, one line that is written over; results on standard output.

    Results are saved after each case, so that an interruption loses at most one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.overwrite = sys.stderr.isatty()

    def status(self, text: str) -> None:
        if self.overwrite:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        self.status("")

    def message(self, text: str) -> None:
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def group_done(self, run: Run, group: Group) -> None:
        self.clear()
        print(tables.group_table(run, group))
        if group.case.task == "step":
            print(tables.latency_table(group))
        print(flush=True)
        run.write(self.path)


def _run(plan: Plan, argv: list[str] | None, options: argparse.Namespace) -> int:
    options.out.mkdir(parents=True, exist_ok=True)
    run = Run()
    run.settings["command"] = shlex.join(
        ["fastlstm", "bench", *(sys.argv[1:] if argv is None else argv)]
    )
    run.settings["suite"] = options.suite
    path = options.out / "results.json"
    console = _Console(path)
    interrupted = False
    try:
        execute(plan, run, console)
    except KeyboardInterrupt:
        interrupted = True
        console.message("interrupted: what is measured is kept")
    console.clear()
    run.write(path)
    status = _report(run, options.out)
    return 130 if interrupted else status


def _report(run: Run, out: Path) -> int:
    """Print the summary, draw plots, write the report. 1: a system gave wrong results or broke."""
    # matplotlib takes a second to load and is an extra: only here.
    from fastlstm_bench.plots import save_plots
    from fastlstm_bench.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    try:
        plots = save_plots(run, out)
    except ImportError as error:
        print(f"No plots: {error}", file=sys.stderr)
        plots = []
    write_report(run, plots, out / "report.html")
    if run.limits:
        print(tables.limits_table(run), end="\n\n")
    print(tables.summary_table(run), end="\n\n")
    if run.settings.get("suite") == "scaling":
        print(tables.scaling_table(run), end="\n\n")
    for line in (*tables.standing(run), *run.warnings):
        print(line)
    print(f"\nresults.json, {len(plots)} plots and report.html are in {out}/")
    broken = [r for r in run.results if r.status not in ("ok", "unsupported")]
    return 1 if broken else 0
