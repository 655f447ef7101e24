"""Results on disk, tables, plots, the report, and comparing two runs."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from fastlstm_bench import markdown, tables
from fastlstm_bench.compare import changes, compare, drift
from fastlstm_bench.report import write_report
from fastlstm_bench.results import Run

from .conftest import make_run

PUBLISHED = sorted(Path(__file__).parents[2].glob("benchmarks/results/[0-9]*.json"))


def printed(run: Run) -> str:
    """Everything that is printed of a run."""
    parts = [markdown.document(run), tables.summary_table(run), *tables.standing(run)]
    for group in run.groups():
        parts += [tables.group_table(run, group), tables.latency_table(group)]
    return "\n".join(parts)


def test_a_run_survives_its_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    run.results[-1].fail("disagrees", "output is off")
    run.results[-2].sat_out = "took 9 s"
    run.results[-2].until_idle = 0.00512346
    run.results[0].errors = {"output": 1.23456789e-7, "h_n": float("inf")}
    run.write(path)
    again = Run.read(path)
    assert list(tmp_path.iterdir()) == [path]
    assert printed(again) == printed(run)
    for got, want in zip(again.results, run.results, strict=True):
        assert got.rounds == pytest.approx(want.rounds, rel=0, abs=0.051e-9)
        assert got.errors == pytest.approx(want.errors, rel=1e-4)
        assert got.until_idle == pytest.approx(want.until_idle, rel=1e-4)
        points = dict(want.distribution)
        assert dict(got.distribution) == {q: pytest.approx(points[q], rel=1e-3) for q in points}
        for field in ("case", "threads", "system", "status", "reason", "calls", "sat_out"):
            assert getattr(got, field) == getattr(want, field)
    again.results = run.results
    assert again == run


def test_a_run_is_written_where_links_lead(run: Run, tmp_path: Path) -> None:
    """And nothing else is written over."""
    (tmp_path / "a.partial").write_text("another's")
    (tmp_path / "folder").mkdir()
    (tmp_path / "a.json").symlink_to(Path("folder") / "b.json")
    run.write(tmp_path / "a.json")
    assert (tmp_path / "a.json").is_symlink()
    assert printed(Run.read(tmp_path / "folder" / "b.json")) == printed(run)
    assert (tmp_path / "a.partial").read_text() == "another's"


def test_times_of_a_clock_are_kept_in_full(run: Run, tmp_path: Path) -> None:
    # The median of an even number of calls ends in half a nanosecond; 9.895 us is where tables
    # round up or down by the last bit.
    times = [ns * 1e-9 for ns in (12345678.5, 9895, 641)]
    run.results[0].rounds = dict(enumerate(times))
    run.write(tmp_path / "results.json")
    assert list(Run.read(tmp_path / "results.json").results[0].rounds.values()) == times


def test_the_file_is_small_and_has_a_line_for_each_result(run: Run, tmp_path: Path) -> None:
    run.write(tmp_path / "results.json")
    text = (tmp_path / "results.json").read_text()
    record = json.loads(text)
    assert record["schema"] == 2
    assert list(record["cases"]) == [group.case.name for group in run.groups()]
    line = next(line for line in text.splitlines() if "lstm-inference" in line and "torch" in line)
    assert json.loads(line.rstrip(",")) in record["results"]
    assert len(line) < 260
    assert not any(word in line for word in ("derived", "distribution", "quantiles", "reason"))


def test_files_of_the_first_form_are_read(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    old = run.to_json() | {"schema": 1, "results": []}
    for result in run.results:
        record = dataclasses.asdict(result)
        record["case"] = {"name": result.case.name, **record["case"]}
        record["derived"] = {"gflops": 1.0}
        old["results"].append(record)
    path.write_text(json.dumps(old))
    assert Run.read(path) == run


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_published_runs_can_be_read(path: Path) -> None:
    run = Run.read(path)
    assert any(group.ratio() for group in run.groups())
    assert "LSTM" in markdown.document(run)
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("content", ["", "[]", '{"schema": 0}', "{"])
def test_foreign_files_are_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other\.json: not"):
        Run.read(path)


def test_best_peer_is_the_fastest_but_fastlstm_and_the_reference(run: Run) -> None:
    for group in run.groups():
        best = group.best_peer
        assert best is not None
        assert best.system == "torch"
        ratio = group.ratio()
        assert ratio is not None
        assert ratio.median == pytest.approx(2.0, rel=0.02)


def test_tables_hold_every_system_and_the_reasons(run: Run) -> None:
    run.results[0].fail("disagrees", "output is off")
    shown = "\n".join(tables.group_table(run, group) for group in run.groups())
    assert shown.count("torch") == 3
    assert "fastlstm disagrees: output is off" in shown
    assert "2.00x" in tables.summary_table(run)


def test_the_standing_names_what_is_slower() -> None:
    run = make_run(fastlstm=4e-3)
    lines = tables.standing(run)
    assert "inference, 1 thread: 0.50x" in lines[2]
    assert sum("slower: " in line for line in lines) == 3


def with_modules(added: float) -> Run:
    """PyTorch's modules of ours beside the layers, which take 0.1 ms, `added` seconds more."""
    run = make_run(1e-4)
    for layer in [result for result in run.results if result.system == "fastlstm"]:
        modules = dataclasses.replace(layer, system="fastlstm-torch")
        modules.rounds = {turn: time + added for turn, time in layer.rounds.items()}
        run.results.append(modules)
    return run


def test_modules_are_compared_with_peers_where_they_take_part() -> None:
    for before, group in zip(make_run(1e-4).groups(), with_modules(1e-4).groups(), strict=True):
        assert before.subject == "fastlstm"
        assert group.subject == "fastlstm-torch"
        assert group.best_peer is not None
        assert before.best_peer is not None
        assert group.best_peer.system == before.best_peer.system == "torch"
        ratio, layers, was = group.ratio(), group.ratio("fastlstm"), before.ratio()
        assert ratio is not None
        assert layers == was is not None
        assert ratio.median == pytest.approx(10, rel=0.02)


def test_what_modules_add_is_said_of_short_calls() -> None:
    lines = tables.standing(with_modules(8.25e-6))
    assert "lstm-step-B1-H64, 1 thread: fastlstm-torch takes +8.2 us a call over fastlstm" in lines
    assert tables.overheads(make_run(1e-4)) == []
    long = with_modules(8.25e-6)
    for result in long.results:
        result.rounds = {turn: 10 * time for turn, time in result.rounds.items()}
    assert tables.overheads(long) == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.2345, "1.23 s"), (0.0012, "1.2 ms"), (1.5e-6, "1.5 us"), (2e-8, "20 ns"), (None, "-")],
)
def test_times_have_units(value: float | None, shown: str) -> None:
    assert tables.seconds(value) == shown


def test_report_is_one_file_without_links(run: Run, tmp_path: Path) -> None:
    png = tmp_path / "plot.png"
    png.write_bytes(b"\x89PNG not really")
    run.warnings.append("limits look <odd>")
    write_report(run, [png], tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!data:)|https?://|@import|url\(", html)
    assert 'src="data:image/png;base64,' in html
    assert "Made &lt;up&gt; CPU" in html
    assert "limits look &lt;odd&gt;" in html
    assert "<up>" not in html
    assert html.count("lstm-inference-T100-B32-H256, 1 thread") == 1
    assert "unsupported: inference only" in html
    for tag in ("table", "details", "pre", "tr", "td"):
        assert len(re.findall(rf"<{tag}[ >]", html)) == html.count(f"</{tag}>")


def test_plots_are_drawn(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm_bench.plots import save_plots

    names = {path.stem for path in save_plots(run, tmp_path)}
    assert names == {"ratio-step-1", "ratio-inference-1", "ratio-training-1"} | {
        "latency-1",
        "roofline-1",
    }
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in names)


def test_plots_of_a_run_without_limits_or_peers(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm_bench.plots import save_plots

    run.limits.clear()
    run.results = [r for r in run.results if r.system == "fastlstm" and r.case.task != "step"]
    assert save_plots(run, tmp_path) == []


def test_readme_plot_is_drawn_from_the_newest_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm_bench.readme_plot import main

    for name in ("2026-01-02-a.json", "2026-02-01-b.json", "callgrind.json"):
        run.write(tmp_path / name)
    out = tmp_path / "readme.png"
    assert main(["--results", str(tmp_path), "--out", str(out)]) == 0
    assert "2026-02-01-b.json" in capsys.readouterr().out
    assert out.stat().st_size > 5000


def test_readme_plot_shows_a_slow_peer_and_needs_the_cell(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from fastlstm_bench.readme_plot import draw

    for result in run.results:
        if result.system == "onnxruntime":
            result.rounds = {r: 1000 * s for r, s in result.rounds.items()}
    draw(run, "lstm", tmp_path / "lstm.png")
    assert (tmp_path / "lstm.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="no rnn next to a peer"):
        draw(run, "rnn", tmp_path / "rnn.png")


def test_too_few_rounds_have_no_spread_and_say_why(run: Run) -> None:
    slow = next(r for r in run.results if r.system == "onnxruntime" and r.timed)
    assert tables.spread(slow) != "-"
    slow.rounds = {0: 1.0}
    slow.sat_out = "9.0 times slower than the best"
    assert tables.spread(slow) == "-"
    shown = "\n".join(tables.group_table(run, group) for group in run.groups())
    assert "onnxruntime: 1 round, 9.0 times slower than the best" in shown


def markdown_run() -> Run:
    """Twice the best peer's speed on one thread, half of it on two; training at 2 and 8."""
    run = make_run(1e-3)
    for result in make_run(4e-3).results:
        result.threads = 2
        run.results.append(result)
    run.limits[2] = run.limits[1]
    for r in list(run.results):
        if r.case.task == "training" and r.threads == 1:
            case = dataclasses.replace(r.case, lengths=True)
            faster = r.system == "fastlstm"
            times = {n: s / 4 if faster else s for n, s in r.rounds.items()}
            run.results.append(dataclasses.replace(r, case=case, rounds=times))
    return run


def test_markdown_has_a_line_for_each_point() -> None:
    run = markdown_run()
    shown = markdown.document(run)
    assert "Made <up> CPU, 2026-01-02: fastlstm 1, torch 2." in shown
    heads = [line for line in shown.splitlines() if line.startswith("###")]
    assert heads == ["### LSTM, step", "### LSTM, inference", "### GRU, training"]
    groups = [g for g in run.groups() if g.case.task == "inference"]
    head, _, line = markdown.points_table(run, groups).splitlines()
    assert head.count("|") == line.count("|") == 10
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    # Made-up times lie far above the made-up peak.
    assert cells[:5] == ["T = 100, B = 32, H = 256", "1 ms", "2 ms torch", "2.00x", "3355 %"]
    assert cells[5:] == ["4 ms", "2 ms torch", "**0.50x**", "839 %"]


def test_markdown_leaves_a_place_for_what_was_not_timed() -> None:
    run = markdown_run()
    groups = [g for g in run.groups() if g.case.task == "training"]
    *_, line = markdown.points_table(run, groups).splitlines()
    assert line.startswith("| T = 50, B = 8, H = 128, uneven lengths | 250 us | 2 ms torch | 8.0")
    assert line.endswith("| - | - | - | - |")


def test_markdown_means_are_geometric_by_task_and_cell() -> None:
    lines = markdown.means_table(markdown_run()).splitlines()
    assert lines[0] == "|  | cases | 1 thread | 2 threads |"
    found = {tuple(cells[1:3]): cells[3:5] for cells in (re.split(r" *\| *", x) for x in lines)}
    assert found["LSTM step", "all"] == ["2.00x (1)", "0.50x (1, 1 below 1)"]
    assert found["GRU training", "all"] == ["4.00x (2)", "0.50x (1, 1 below 1)"]
    assert found["GRU training", "uneven lengths"] == ["8.01x (1)", "-"]
    assert len(lines) == 2 + 4


def test_markdown_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run().write(tmp_path / "a.json")
    assert markdown.main([str(tmp_path / "a.json"), "--task", "step", "--cell", "lstm"]) == 0
    shown = capsys.readouterr().out
    assert "### LSTM, step" in shown
    assert "### LSTM, inference" not in shown
    with pytest.raises(SystemExit):
        markdown.main([str(tmp_path / "b.json")])


def changed(before: Run, after: Run) -> set[tuple[str, bool]]:
    return {(c.after.system, c.log_change < 0) for c in changes(before, after) if c.real}


def test_a_real_change_is_seen() -> None:
    assert changed(make_run(1e-3), make_run(0.9e-3)) == {("fastlstm", True)}
    assert changed(make_run(1e-3), make_run(1.1e-3)) == {("fastlstm", False)}


def test_a_change_within_noise_is_not() -> None:
    assert changed(make_run(1e-3, noise=0.2), make_run(1.1e-3, noise=0.2)) == set()
    assert changed(make_run(1e-3), make_run(1.02e-3)) == set()


def test_a_slower_machine_is_not_a_slower_library() -> None:
    before, after = make_run(1e-3), make_run(1e-3, machine=1.5)
    assert drift(before, after)[1] == pytest.approx(0.405, abs=0.001)
    assert changed(before, after) == set()
    assert "+50.0 %" in compare(before, after)


def test_updated_peers_do_not_count_as_drift() -> None:
    before, after = make_run(1e-3), make_run(1e-3, machine=1.5)
    after.systems = {name: {"version": "new"} for name in after.systems}
    assert drift(before, after) == {}
    assert "torch: was" in compare(before, after)


def test_compare_says_what_broke() -> None:
    before, after = make_run(), make_run()
    after.results[0].fail("disagrees", "output is off by 1")
    after.machine["cpu"] = "Another"
    shown = compare(before, after)
    assert "No longer timed: fastlstm, lstm-step-B1-H64: output is off by 1" in shown
    assert "machine, cpu: was Made <up> CPU, is Another" in shown
