"""Shows whether another version of fastlstm computes the same bits, and as fast.

    PYTHON_A tools/compare_versions.py record A.json    # with the Python that has one version
    PYTHON_B tools/compare_versions.py record B.json    # and that of the other
    python tools/compare_versions.py diff A.json B.json
    python tools/compare_versions.py speed --a PYTHON_A --b PYTHON_B

It uses the public interface alone, so that the versions may differ in all that is inside.
FASTLSTM_ISA chooses the instruction set, as always. `diff` needs neither fastlstm nor NumPy.

A record has, for each array that some 1,500 cases compute (version_cases.py), a digest of its bits,
its norm, and some projections: sums of its values with random signs. Where bits may differ,
`diff --close 1e-5` looks at these: for a difference d of two arrays the square of its projection is
in the mean that of its norm, so the largest of them over the array's norm is about the relative
difference.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import version_speed
from version_speed import about_this_process

QUICK_STEP = 12  # --quick: every so many cases, without the large
PROJECTIONS = 4
SHOWN = 12  # lines of each list of differences


# --- record --------------------------------------------------------------------------------------


def make_digest() -> Callable[[Any], list[Any]]:
    """The function that makes of an array [digest, number of values, norm, projections ...]."""
    import numpy as np

    period = 1 << 18
    signs = np.random.default_rng(0).choice((-1.0, 1.0), (PROJECTIONS, period))

    def digest(array: Any) -> list[Any]:
        array = np.array(array, order="C")
        array[np.isnan(array)] = np.nan  # its sign and payload are the compiler's choice
        text = f"{array.dtype.str}{array.shape}".encode()
        bits = hashlib.sha256(text + array.tobytes()).hexdigest()[:24]
        values = np.nan_to_num(array.ravel().astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
        numbers = np.zeros(1 + PROJECTIONS)
        for start in range(0, values.size, period):
            part = values[start : start + period]
            numbers[0] += np.square(part).sum()
            numbers[1:] += [(row * part).sum() for row in signs[:, : part.size]]
        numbers[0] = np.sqrt(numbers[0])
        return [bits, array.size, *numbers.tolist()]

    return digest


def record(args: argparse.Namespace) -> int:
    import numpy as np
    import version_cases

    start, failed = time.monotonic(), 0
    cases = list(enumerate(version_cases.all_cases()))
    if args.quick:
        cases = [(n, c) for n, c in cases if c.family != "threads" or n % 4 == 1][::QUICK_STEP]
    digest = make_digest()
    found: dict[str, dict[str, Any]] = {}
    for n, case in cases:
        results: dict[str, list[Any]] = {}
        try:
            with np.errstate(all="ignore"):
                for name, array in version_cases.results(case, n, args.threads or case.threads):
                    count = sum(key.partition(" #")[0] == name for key in results)
                    results[f"{name} #{count + 1}" if count else name] = digest(array)
        except Exception as error:  # a difference like any other: the rest is compared all the same
            failed += 1
            text = f"{type(error).__name__}: {error}"
            results["error"] = [text, 0, *[0.0] * (1 + PROJECTIONS)]
            print(f"{case.name}: {text}", file=sys.stderr)
        found[f"{n:04d} {case.name}"] = {"features": case.features, "results": results}
    about = about_this_process() | {"quick": args.quick, "threads": args.threads or "1 to 4"}
    args.file.write_text(json.dumps({"about": about, "cases": found}))
    print(f"{describe(about, found)}; {time.monotonic() - start:.0f} s, {failed} failed")
    return int(failed > 0)


def describe(about: dict[str, Any], cases: dict[str, dict[str, Any]]) -> str:
    arrays = [array for case in cases.values() for array in case["results"].values()]
    return (
        f"{about['fastlstm']} in {about['path']}: {about['isa']}, {about['cpu']}, "
        f"Python {about['python']}, NumPy {about['numpy']}, threads {about['threads']}: "
        f"{len(cases)} cases, {len(arrays)} arrays, {sum(a[1] for a in arrays):,} values"
    )


# --- diff ----------------------------------------------------------------------------------------


def relative_difference(a: list[Any], b: list[Any]) -> float:
    """About |a - b| over the larger of |a| and |b|; infinity where shapes or errors differ."""
    if a[0] == b[0]:
        return 0.0
    if a[1] != b[1] or a[1] == 0:
        return math.inf
    largest = max(abs(x - y) for x, y in zip(a[2:], b[2:], strict=True))
    return largest / max(a[2], b[2], sys.float_info.min)


def show_counts(title: str, counts: Counter[str], totals: Counter[str], unit: str) -> None:
    """The largest shares first."""
    print(f"\n{title}:")
    ordered = sorted(counts, key=lambda key: (-counts[key] / totals[key], -totals[key], key))
    for key in ordered[: 3 * SHOWN]:
        print(f"  {counts[key]:5} of {totals[key]:5} {unit}  {key}")


def diff(args: argparse.Namespace) -> int:
    records = [json.loads(path.read_text()) for path in (args.a, args.b)]
    for letter, one in zip("AB", records, strict=True):
        print(f"{letter}: {describe(one['about'], one['cases'])}")
    for key in ("isa", "cpu", "numpy"):
        if len({one["about"][key] for one in records}) > 1:
            print(f"Note: another {key}: bits may differ for that alone.")
    a, b = (one["cases"] for one in records)
    common = [name for name in a if name in b]
    missing = sorted((a.keys() | b.keys()) - set(common))
    by_result, of_result = Counter[str](), Counter[str]()
    by_feature, of_feature = Counter[str](), Counter[str]()
    lines, arrays, values, unequal, largest = [], 0, 0, 0, 0.0
    for name in common:
        old, new = a[name]["results"], b[name]["results"]
        differing = {}
        for key in old | new:
            group = key.partition(" #")[0]
            of_result[group] += 1
            if key not in old or key not in new:
                differing[key] = math.inf
            else:
                arrays, values = arrays + 1, values + old[key][1]
                unequal += old[key][0] != new[key][0]
                difference = relative_difference(old[key], new[key])
                largest = max(largest, difference)
                if old[key][0] != new[key][0] and not difference <= args.close:
                    differing[key] = difference
            by_result[group] += key in differing
        for feature in a[name]["features"]:
            of_feature[feature] += 1
            by_feature[feature] += bool(differing)
        if differing:
            shown = [f"{key} {value:.1e}" for key, value in list(differing.items())[:4]]
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            lines.append(f"  {name}: {', '.join(shown)}{more}")
    print(f"\nCompared: {len(common)} cases, {arrays} arrays, {values:,} values.")
    print(f"Other bits: {unequal} arrays; largest relative difference about {largest:.1e}.")
    if missing:
        print(f"\nIn one record alone: {len(missing)} cases, the first: {missing[0]}")
    if lines:
        limit = f" by more than {args.close:g}" if args.close else ""
        print(f"\n{len(lines)} cases differ{limit}, in {sum(by_result.values())} arrays:")
        print(*lines[:SHOWN], *(["  ..."] if len(lines) > SHOWN else []), sep="\n")
        show_counts("By result", +by_result, of_result, "arrays")
        show_counts("By feature", +by_feature, of_feature, "cases ")
    elif common and not missing:
        print("No difference." if not args.close else f"No difference above {args.close:g}.")
    return int(bool(lines or missing or not common))


# --- the command line ----------------------------------------------------------------------------


def main(argv: Iterable[str] | None = None) -> int:
    title, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="command")

    command = commands.add_parser("record", help="write digests of what this version computes")
    command.add_argument("file", type=Path, metavar="OUT.json")
    command.add_argument("--quick", action="store_true", help="a twelfth of the cases")
    command.add_argument("--threads", type=int, help="for all cases; by default 1 to 4, in turn")
    command.set_defaults(run=record)

    command = commands.add_parser("diff", help="compare two records; status 1: they differ")
    command.add_argument("a", type=Path, metavar="A.json")
    command.add_argument("b", type=Path, metavar="B.json")
    command.add_argument(
        "--close", type=float, default=0.0, metavar="X", help="allow relative differences up to X"
    )
    command.set_defaults(run=diff)

    version_speed.add_commands(commands)
    args = parser.parse_args(None if argv is None else list(argv))
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
