"""Shows whether another version of fastlstm computes the same bits, and as fast.

    PYTHON_A tools/compare_versions.py record A.json    # with the Python that has one version
    PYTHON_B tools/compare_versions.py record B.json    # and that of the other
    python tools/compare_versions.py diff A.json B.json
    python tools/compare_versions.py speed --a PYTHON_A --b PYTHON_B

It uses the public interface alone, so that the versions may differ in all that is inside.
FASTLSTM_ISA chooses the instruction set, as always. `diff` needs neither fastlstm nor NumPy.

A record has, for each array that some 1,700 cases compute (version_cases.py), a digest of its bits,
its norm, and some projections: sums of its values with random signs. Where bits may differ,
`diff --close 1e-5` looks at these: for a difference d of two arrays the square of its projection is
in the mean that of its norm, so the largest of them over the array's norm is about the relative
difference. A few long calls multiply rounding, those with layer_norm above all: how much, the
records of two instruction sets of one version tell.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import version_speed
from version_speed import about_this_process

QUICK_STEP = 11  # --quick: every so many cases, of the large a fifth of that
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
        largest = np.abs(values).max(initial=0.0) or 1.0
        values /= largest  # whose squares are numbers
        numbers = np.zeros(1 + PROJECTIONS)
        for start in range(0, values.size, period):
            part = values[start : start + period]
            numbers[0] += np.square(part).sum()
            numbers[1:] += [(row * part).sum() for row in signs[:, : part.size]]
        numbers[0] = np.sqrt(numbers[0])
        return [bits, array.size, *(largest * numbers).tolist()]

    return digest


def record(args: argparse.Namespace) -> int:
    import numpy as np
    import version_cases

    start, failed = time.monotonic(), 0
    cases = list(enumerate(version_cases.all_cases()))
    if args.quick:
        cases = [(n, c) for n, c in cases if c.family != "threads" or n % 5 == 0][::QUICK_STEP]
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


def relative_difference(a: list[Any] | None, b: list[Any] | None) -> float:
    """About |a - b| over the larger of |a| and |b|; infinity for what cannot be compared."""
    if a is None or b is None or a[1] != b[1] or a[1] == 0:
        return math.inf
    largest = max(abs(x - y) for x, y in zip(a[2:], b[2:], strict=True))
    return float(largest / max(a[2], b[2], sys.float_info.min))


def other_bits(old: dict[str, list[Any]], new: dict[str, list[Any]]) -> dict[str, float]:
    """By the names of results that have not the same bits: how far they are apart."""
    pairs = {key: (old.get(key), new.get(key)) for key in old | new}
    return {
        key: relative_difference(a, b)
        for key, (a, b) in pairs.items()
        if a is None or b is None or a[0] != b[0]
    }


def groups(results: Iterable[str]) -> list[str]:
    """The names without layer and direction, and the numbers of those that come again."""
    return [re.sub(r"(_l\d+(_reverse)?)?( #\d+)?$", "", key) for key in results]


def show_counts(title: str, counts: Counter[str], totals: Counter[str]) -> None:
    """The largest shares first, but for those of very few."""
    print(f"\n{title}:")
    ordered = sorted(counts, key=lambda key: (-counts[key] / (totals[key] + 5), key))
    for key in ordered[: 2 * SHOWN]:
        print(f"  {counts[key]:6} of {totals[key]:6}  {key}")


def diff(args: argparse.Namespace) -> int:
    records = [json.loads(path.read_text()) for path in (args.a, args.b)]
    for letter, one in zip("AB", records, strict=True):
        print(f"{letter}: {describe(one['about'], one['cases'])}")
    for key in ("isa", "cpu", "numpy"):
        if len({one["about"][key] for one in records}) > 1:
            print(f"Note: another {key}: bits may differ for that alone.")
    a, b = (one["cases"] for one in records)
    common = [name for name in a if name in b]
    by_result, of_result = Counter[str](), Counter[str]()
    by_feature, of_feature = Counter[str](), Counter[str]()
    lines, values, unequal, largest = [], 0, 0, 0.0
    for name in common:
        old, new = a[name]["results"], b[name]["results"]
        distances = other_bits(old, new)
        differing = {
            key: distance
            for key, distance in distances.items()
            if args.close is None or not distance <= args.close  # NaN is not close
        }
        values += sum(array[1] for array in old.values())
        unequal += len(distances)
        largest = max(largest, *distances.values(), 0.0)
        of_result.update(groups(old | new))
        of_feature.update(a[name]["features"])
        if differing:
            by_result.update(groups(differing))
            by_feature.update(a[name]["features"])
            shown = [f"{key} {value:.1e}" for key, value in list(differing.items())[:4]]
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            lines.append(f"  {name}: {', '.join(shown)}{more}")
    print(f"\nCompared: {len(common)} cases, {of_result.total()} arrays, {values:,} values.")
    print(f"Other bits: {unequal} arrays; largest relative difference about {largest:.1e}.")
    quick_a, quick_b = (one["about"]["quick"] for one in records)
    missing = sorted(a.keys() ^ b.keys())
    if quick_a != quick_b:  # the others are not looked for
        missing = sorted(a.keys() - b.keys() if quick_a else b.keys() - a.keys())
    if missing:
        print(f"In one record alone: {len(missing)} cases, the first: {missing[0]}")
    limit = "" if args.close is None else f" by more than {args.close:g}"
    print(f"Cases that differ{limit}: {len(lines) or 'none'}")
    if lines:
        print(*lines[:SHOWN], *(["  ..."] if len(lines) > SHOWN else []), sep="\n")
        show_counts("Arrays that differ, by result", by_result, of_result)
        show_counts("Cases that differ, by what they have", by_feature, of_feature)
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
    command.add_argument(
        "--quick", action="store_true", help="a twelfth of the cases, in some seconds"
    )
    command.add_argument("--threads", type=int, help="for all cases; by default 1 to 4, in turn")
    command.set_defaults(run=record)

    command = commands.add_parser("diff", help="compare two records; status 1: they differ")
    command.add_argument("a", type=Path, metavar="A.json")
    command.add_argument("b", type=Path, metavar="B.json")
    command.add_argument(
        "--close", type=float, metavar="X", help="allow relative differences up to X"
    )
    command.set_defaults(run=diff)

    version_speed.add_commands(commands)
    args = parser.parse_args(None if argv is None else list(argv))
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    sys.exit(main())
