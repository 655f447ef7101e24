"""The command ``fastlstm``. A sub-command imports what it needs only when it runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ._version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    int
        0 for success. 2 for something that the user can mend: an argument, a missing extra, a
        folder that cannot be written.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["bench"]:  # has its own parser, for its own --help too
        return _bench(argv[1:])
    args = _parser().parse_args(argv)
    return _demo(args) if args.command == "demo" else _info()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastlstm", description="A fast LSTM runtime for CPUs.")
    parser.add_argument("--version", action="version", version=f"fastlstm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    commands.add_parser("info", help="print version, compiler, instruction set, BLAS and threads")

    demo = commands.add_parser(
        "demo",
        help="train an LSTM that forecasts El Niño, and plot it",
        description="Train an LSTM that forecasts the monthly sea surface temperature of the El "
        "Niño region, compare it with simple forecasts, plot it, and save the model.",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("fastlstm-demo"),
        metavar="DIR",
        help="folder for the plot and the model (default: ./fastlstm-demo)",
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of weights and batches (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="print the results only, no progress")

    commands.add_parser("bench", help="compare with other runtimes; see fastlstm bench --help")
    return parser


def _seed(text: str) -> int:
    seed = int(text)
    if seed < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {text}")
    return seed


def _info() -> int:
    from ._runtime import show_config

    print(show_config())
    return 0


def _demo(args: argparse.Namespace) -> int:
    try:
        from .demo import run
    except ModuleNotFoundError as error:
        return _missing_extra("demo", error)
    try:
        run(args.out, seed=args.seed, quiet=args.quiet)
    except OSError as error:
        print(f"fastlstm demo: {error}", file=sys.stderr)
        return 2
    return 0


def _bench(argv: list[str]) -> int:
    try:
        from fastlstm_bench.cli import main as bench
    except ModuleNotFoundError as error:
        return _missing_extra("bench", error)
    return int(bench(argv))


def _missing_extra(command: str, error: ModuleNotFoundError) -> int:
    package = str(error.name).split(".")[0]
    message = f"{package} is not installed: pip install 'fastlstm[{command}]'"
    print(f"fastlstm {command}: {message}", file=sys.stderr)
    return 2
