"""The command ``fastlstm``. A sub-command imports what it needs only when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ._extras import needs_extra
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
        0 for success. 1 where verify finds a difference. 2 for something that the user can mend:
        an argument, a missing extra, a folder that cannot be written, a file that cannot be read.
        141, as for programs that SIGPIPE ends, where nobody reads the output any more.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(argv)
        finally:
            print(end="", flush=True)  # the errors of this here, not when Python ends
    except BrokenPipeError:
        # Nor must what is left be written when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + 13  # SIGPIPE, which Windows does not name
    except ModuleNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{' '.join(['fastlstm', *argv[:1]])}: {error}", file=sys.stderr)
        return 2


def _run(argv: list[str]) -> int:
    # These have their own parsers, for their own --help too.
    if argv[:1] == ["bench"]:
        return _bench(argv[1:])
    if argv[:1] == ["demo"] and len(argv) > 1 and not argv[1].startswith("-"):
        return _use(argv[1], argv[2:])
    args = _parser().parse_args(argv)
    return {"demo": _demo, "info": _info, "tune": _tune, "verify": _verify}[args.command](args)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastlstm", description="A fast LSTM runtime for CPUs.")
    parser.add_argument("--version", action="version", version=f"fastlstm {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    info = commands.add_parser(
        "info", help="print version, compiler, instruction set, BLAS and threads"
    )
    info.add_argument("--all", action="store_true", help="also what is tuned for this machine")

    demo = commands.add_parser(
        "demo",
        help="train an LSTM that forecasts El Niño, and plot it; or another use on real data",
        usage="%(prog)s [-h] [--out DIR] [--seed SEED] [--quiet]\n"
        "       %(prog)s NAME ...   another use; see fastlstm demo NAME --help\n"
        "       %(prog)s --list",
        description="Train an LSTM that forecasts the monthly sea surface temperature of the El "
        "Niño region, compare it with simple forecasts, plot it, and save the model. Or run "
        "another use of LSTMs, on data that is downloaded once.",
    )
    demo.add_argument("--list", action="store_true", help="name the other uses, and end")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("fastlstm-demo"),
        metavar="DIR",
        help="folder for the plot and the model (default: ./fastlstm-demo)",
    )
    demo.add_argument("--seed", type=_seed, default=0, help="of weights and batches (default: 0)")
    demo.add_argument("--quiet", action="store_true", help="print the results only, no progress")

    tune = commands.add_parser(
        "tune",
        help="measure what this machine takes for the parts of a call",
        description="Measure what this machine takes for products, bytes from its caches and "
        "meetings of threads, in less than a minute in which it should do nothing else. Later "
        "processes divide their calls among threads by that. No result depends on it.",
    )
    tune.add_argument(
        "--out",
        metavar="FILE",
        help="(default: what FASTLSTM_COSTS names, or costs.txt in fastlstm's folder of the "
        "user's cache directory)",
    )
    tune.add_argument(
        "--seconds",
        type=_seconds,
        default=0.6,
        help="of each of some 32 experiments (default: 0.6)",
    )

    verify = commands.add_parser(
        "verify",
        help="compare a converted layer with its source",
        description="Convert a recurrent layer of a model and compare it with the model itself, "
        "run by PyTorch, Keras or ONNX Runtime. Says where they differ first. Exit code: 0 the "
        "same, 1 they differ, 2 the comparison was not possible. Or compare a quantized layer with "
        "the one that it was made of: fastlstm verify SMALL --with LAYER.",
    )
    verify.add_argument("source", metavar="MODEL", help=".pt, .safetensors, .keras, .h5 or .onnx")
    verify.add_argument(
        "--with",
        dest="exact",
        metavar="FILE",
        help="MODEL and this are layers that fastlstm saved, the first one quantized: print its "
        "errors by step and unit, and from end to end; exit code 1 where the latter is above "
        "--tolerance",
    )
    verify.add_argument(
        *("--prefix", "--name", "--node"),
        dest="which",
        metavar="LAYER",
        help="which layer of the model, as PyTorch, Keras and ONNX call it; one of them is enough",
    )
    verify.add_argument(
        "--layer",
        metavar="FILE",
        help="compare this layer, which fastlstm saved, instead of a new conversion",
    )
    verify.add_argument(
        "--nonlinearity", choices=("tanh", "relu"), help="of an RNN whose file has weights only"
    )
    verify.add_argument(
        "--tolerance", type=float, help="relative (default: what rounding explains)"
    )
    verify.add_argument("--special", action="store_true", help="also NaN and infinity as inputs")
    verify.add_argument("--seed", type=_seed, default=0, help="of the random inputs (default: 0)")

    commands.add_parser("bench", help="compare with other runtimes; see fastlstm bench --help")
    return parser


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to {2**32 - 1}, got {text}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 60:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 60, got {text}")
    return seconds


def _tune(args: argparse.Namespace) -> int:
    from . import _costs
    from ._saving import check_writable
    from ._tune import measure

    path = args.out or _costs.default_path()
    if path is None:
        print("fastlstm tune: no cache directory; name a file with --out", file=sys.stderr)
        return 2
    _costs.make_folder(path)
    check_writable(path)
    print(_costs.machine())
    found = measure(args.seconds, lambda text: print(text, flush=True))
    _costs.write(path, found)
    print(f"written to {path}")
    return 0


def _info(args: argparse.Namespace) -> int:
    from ._runtime import show_config

    try:
        print(show_config(args.all))
    except ValueError as error:  # of an environment variable
        print(f"fastlstm info: {error}", file=sys.stderr)
        return 2
    return 0


def _demo(args: argparse.Namespace) -> int:
    return _list_uses() if args.list else _elnino(args)


def _list_uses() -> int:
    from ._uses import uses

    for name, title in uses().items():
        print(f"{name:<14}{title}")
    return 0


def _use(name: str, argv: list[str]) -> int:
    from ._uses import run, uses

    if name not in (known := uses()):
        print(f"fastlstm demo: expected one of {', '.join(known)}, got {name}", file=sys.stderr)
        return 2
    with needs_extra(f"fastlstm demo {name}", "examples"):
        return run(name, argv)


@needs_extra("fastlstm demo", "demo")
def _elnino(args: argparse.Namespace) -> int:
    from .demo import run

    run(args.out, seed=args.seed, quiet=args.quiet)
    return 0


def _verify(args: argparse.Namespace) -> int:
    return _verify_source(args) if args.exact is None else _verify_small(args)


def _verify_small(args: argparse.Namespace) -> int:
    from .layers import load
    from .verification import compare_layers

    try:
        if args.which or args.layer or args.nonlinearity or args.special:
            raise ValueError(
                "--with: expected neither --node (--prefix, --name) nor --layer, --nonlinearity or "
                "--special beside it"
            )
        found = compare_layers(load(args.source), load(args.exact), seed=args.seed)
    except (ValueError, TypeError) as error:
        print(f"fastlstm verify: {error}", file=sys.stderr)
        return 2
    print(found)
    return 0 if args.tolerance is None or found.relative_error <= args.tolerance else 1


@needs_extra("fastlstm verify", "verify")
def _verify_source(args: argparse.Namespace) -> int:
    from .layers import load
    from .verification import convert, verify

    try:
        if args.layer is not None:
            layer = load(args.layer)
        else:
            layer = convert(args.source, args.which, nonlinearity=args.nonlinearity)
        report = verify(
            layer,
            args.source,
            args.which,
            nonlinearity=args.nonlinearity,
            tolerance=args.tolerance,
            special=args.special,
            seed=args.seed,
        )
    except ValueError as error:
        print(f"fastlstm verify: {error}", file=sys.stderr)
        return 2
    print(report)
    return 0 if report.ok else 1


@needs_extra("fastlstm bench", "bench")
def _bench(argv: list[str]) -> int:
    from fastlstm_bench.cli import main as bench

    return int(bench(argv))
