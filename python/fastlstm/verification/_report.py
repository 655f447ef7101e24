"""What a comparison found, to print and to read."""

from __future__ import annotations

from dataclasses import dataclass

from ._locate import Difference


@dataclass(frozen=True)
class Check:
    """The comparison of one kind of inputs."""

    name: str
    T: int
    B: int
    error: float
    """The largest absolute difference of an output or final state."""
    relative_error: float
    """The same as a part of the largest value of its array."""
    part_of_allowed: float
    """The largest difference as a part of what is allowed there; above 1 it is not rounding."""

    @property
    def ok(self) -> bool:
        """Whether all differences are rounding."""
        return self.part_of_allowed <= 1


@dataclass(frozen=True)
class Report:
    """What :func:`fastlstm.verify` found; printed, it is a table and a conclusion."""

    layer: str
    source: str
    checks: tuple[Check, ...]
    """One for each kind of inputs."""
    first_difference: Difference | None
    """In the first kind of inputs that shows one; None: there is none."""
    not_looked_at: tuple[str, ...] = ()
    """What of the source did not take part: a line for each thing."""

    @property
    def ok(self) -> bool:
        """Whether both are the same but for rounding."""
        return all(check.ok for check in self.checks)

    @property
    def worst(self) -> Check:
        """The check with the largest part of what is allowed."""
        return max(self.checks, key=lambda check: check.part_of_allowed)

    def __str__(self) -> str:
        lines = [self.layer, f"compared with {self.source}", ""]
        lines.append(
            f"{'inputs':16}{'T':>5}{'B':>3}{'error':>10}{'relative':>10}{'of allowed':>12}"
        )
        for c in self.checks:
            part = f"{100 * c.part_of_allowed:.0f} %" if c.part_of_allowed < 10 else "> 999 %"
            numbers = f"{c.error:>10.1e}{c.relative_error:>10.1e}{part:>12}"
            lines.append(f"{c.name:16}{c.T:>5}{c.B:>3}{numbers}{'' if c.ok else '  DIFFERS'}")
        lines.append("")
        lines += [f"Not looked at: {thing}." for thing in self.not_looked_at]
        if self.first_difference is None:
            lines.append("The same, up to rounding.")
        else:
            lines += _describe(self.first_difference)
        return "\n".join(lines)


def _describe(d: Difference) -> list[str]:
    gates = "" if not d.gates else f", gate{'s' if len(d.gates) > 1 else ''} {', '.join(d.gates)}"
    if d.cause is None and len(d.gates) > 1:
        gates = f", one or more of the gates {', '.join(d.gates)}"
    lines = [
        f"They differ. First with inputs {d.inputs!r}: step {d.step} of row {d.row}, "
        f"layer {d.layer}, direction {d.direction}, unit {d.unit}{gates}.",
        f"{d.shown_by} is {d.ours:.8g} here and {d.theirs:.8g} in the source; units that differ "
        f"in this step: {d.units}.",
    ]
    if not d.gates and d.cause is None:
        lines.append("Each step by itself is the same.")
    if d.cause is None:
        lines.append("What would make them the same was not found.")
    else:
        lines.append(f"What would make them the same: {d.cause}.")
    return lines
