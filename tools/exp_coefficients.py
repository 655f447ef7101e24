"""Compute the polynomial of csrc/simd/math.hpp: run it to print the coefficients.

expm1(r) = r + r^2 s(r) on |r| <= ln(2)/2; s is the polynomial that minimises the largest relative
error of the right-hand side, found with the Remez exchange in 60 decimal digits (needs mpmath).
"""

from __future__ import annotations

import mpmath as mp

mp.mp.dps = 60


def target(r: mp.mpf) -> mp.mpf:
    """The function that s approximates: (expm1(r) - r) / r^2."""
    if abs(r) < mp.mpf(10) ** -15:
        return mp.mpf(1) / 2 + r / 6
    return (mp.expm1(r) - r) / r**2


def weight(r: mp.mpf) -> mp.mpf:
    """Turns an error of s into a relative error of expm1; never negative: errors must alternate."""
    if r == 0:
        return mp.mpf(0)
    return r**2 / abs(mp.expm1(r))


def remez(degree: int) -> tuple[list[mp.mpf], mp.mpf]:
    """Minimax coefficients of s, lowest power first, and the largest relative error."""
    bound = mp.log(2) / 2
    n = degree + 2
    nodes = [bound * mp.cos(mp.pi * (2 * k + 1) / (2 * n)) for k in range(n)]
    for _ in range(12):
        rows, right = [], []
        for k, r in enumerate(nodes):
            w = weight(r)
            rows.append([w * r**j for j in range(degree + 1)] + [mp.mpf((-1) ** k)])
            right.append(w * target(r))
        solution = mp.lu_solve(mp.matrix(rows), mp.matrix(right))
        coefficients = list(solution[: degree + 1])

        def error(r: mp.mpf, c: list[mp.mpf] = coefficients) -> mp.mpf:
            return weight(r) * (mp.polyval(c[::-1], r) - target(r))

        # The next nodes are the places where the error is largest, one between two sign changes.
        grid = [bound * mp.cos(mp.pi * k / 2000) for k in range(2001)]
        values = [error(r) for r in grid]
        peaks: list[tuple[mp.mpf, mp.mpf]] = []
        for r, value in zip(grid, values, strict=True):
            if peaks and mp.sign(value) == mp.sign(peaks[-1][1]):
                if abs(value) > abs(peaks[-1][1]):
                    peaks[-1] = (r, value)
            elif value != 0:
                peaks.append((r, value))
        while len(peaks) > n:  # drop the smaller end
            peaks.pop(0 if abs(peaks[0][1]) < abs(peaks[-1][1]) else -1)
        if len(peaks) < n:
            break
        nodes = [r for r, _ in peaks]
    return coefficients, max(abs(v) for v in values)


def main() -> None:
    for name, degree in (("float", 5), ("double", 10)):
        coefficients, error = remez(degree)
        bits = mp.nstr(mp.log(error, 2), 4)
        print(f"{name}: degree {degree} of s, largest relative error 2^{bits}")
        for c in coefficients:
            print("   ", float(c).hex(), mp.nstr(c, 20))


if __name__ == "__main__":
    main()
