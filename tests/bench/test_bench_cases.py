"""The grid, and the numbers made from it."""

from __future__ import annotations

import numpy as np
import pytest
from fastlstm_bench.cases import BLOCKS, CELLS, JOBS, SUITES, Case, Job, select
from fastlstm_bench.problem import CLASSES, IGNORED, VOCABULARY, make_lengths, make_problem


@pytest.mark.parametrize("suite", SUITES)
def test_names_are_unique(suite: str) -> None:
    names = [case.name for case in SUITES[suite]]
    assert len(set(names)) == len(names) > 0


def test_full_has_every_point_for_every_cell_and_task() -> None:
    full = set(SUITES["full"])
    for cell in CELLS:
        assert Case("step", cell, 1, 1, 480, layers=3) in full
        assert Case("step", cell, 1, 512, 128) in full
        for task in ("inference", "training"):
            assert Case(task, cell, 20, 128, 1024) in full
            assert Case(task, cell, 2000, 8, 256, layers=2) in full
            assert Case(task, cell, 100, 32, 256, lengths=True) in full
            assert Case(task, cell, 50, 64, 512, dtype="float64") in full
        assert Case("optimiser", cell, 50, 64, 512) in full


def test_exhaustive_contains_full_and_quick_is_small() -> None:
    assert set(SUITES["full"]) < set(SUITES["exhaustive"])
    assert len(SUITES["quick"]) <= 15


def test_name_says_all_that_differs() -> None:
    case = Case("training", "gru", 5, 2, 3, 2, bidirectional=True, lengths=True, dtype="float64")
    assert case.name == "gru-training-T5-B2-H3-2layers-bidirectional-lengths-float64"
    assert Case("step", "lstm", 1, 1, 64).name == "lstm-step-B1-H64"
    model = Case("optimiser", "gru", 5, 2, 3, use="model")
    assert model.name == "gru-model-optimiser-T5-B2-H3"


def test_the_suite_torch_has_layers_cells_and_models() -> None:
    kinds = {case.kind for case in SUITES["torch"]}
    assert kinds == {
        *("inference", "training", "cells-inference", "cells-training"),
        *("model-inference", "model-optimiser"),
    }
    # A loop of cells has one layer and all steps; a model's steps end in a loss.
    for case in SUITES["torch"]:
        assert case.use != "cells" or (case.layers == 1 and not case.variant)
        assert case.use != "model" or case.task != "training"


def test_the_suite_jobs_has_every_job_and_block() -> None:
    cases = SUITES["jobs"]
    for use in JOBS:
        assert {case.task for case in cases if case.use == use} == {"optimiser", "inference"}
    assert {case.use for case in cases} == {*JOBS, *BLOCKS}
    for case in cases:
        assert (case.task == "training") == (case.use in BLOCKS)
        assert case.B == 1 or case.task != "inference"
    names = [case.name for case in select("jobs", ["crf"])]
    assert names[0] == "crf-training-T50-B32-H9-lengths"
    language = "lstm-language-optimiser-T35-B20-H200-V11000-lengths"
    assert [case.name for case in select("jobs", ["language-optimiser"])] == [language]


@pytest.mark.parametrize("use", JOBS)
def test_a_batch_of_a_job(use: Job) -> None:
    problem = make_problem(Case("optimiser", "lstm", 20, 4, 3, 1, True, True, use=use, V=6))
    assert problem.lengths is not None
    for row, length in enumerate(problem.lengths):
        assert not problem.x[length:, row].any()
    assert problem.layer_lengths is problem.lengths
    assert problem.as_padded().layer_lengths is None
    assert problem.as_padded().lengths is problem.lengths
    if "words.weight" in problem.params:
        assert not problem.params["words.weight"][0].any()
        assert problem.x.max() < len(problem.params["words.weight"])


def test_select_by_part_and_by_pattern() -> None:
    steps = select("quick", ["step"])
    assert steps
    assert all(case.task == "step" for case in steps)
    assert [c.name for c in select("quick", ["lstm-*-B1-H64"])] == ["lstm-step-B1-H64"]
    assert len(select("quick", ["step", "gru"])) > len(steps)


def test_select_by_types() -> None:
    both = select("variants", ["lstm-inference"], ["int8", "float64"])
    assert {case.dtype for case in both} == {"int8", "float64"}
    # Small weights are for what float32 layers do in inference, with all its forms.
    small = [case for case in both if case.dtype == "int8"]
    assert [case.name.removesuffix("-int8") for case in small] == [
        case.name for case in select("variants", ["lstm-inference"], ["float32"])
    ]
    assert all(case.element == "float32" and case.itemsize == 1 for case in small)
    for suite in SUITES:
        for case in select(suite, (), ["bfloat16"]):
            assert case.use == "layer"
            assert not case.trains
    with pytest.raises(ValueError, match=r"expected some of float32, .*, got 'int4'"):
        select("quick", (), ["int4"])


def test_small_weights_are_given_in_float32() -> None:
    case = Case("inference", "lstm", 6, 3, 5, dtype="int8")
    problem = make_problem(case)
    assert {value.dtype.name for value in (problem.x, *problem.params.values())} == {"float32"}


def test_select_refuses_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="expected one of quick"):
        select("quik")
    with pytest.raises(ValueError, match="'H65'"):
        select("quick", ["step", "H65"])


def test_problem_has_pytorchs_names_and_shapes_and_is_always_the_same() -> None:
    case = Case("training", "gru", 6, 3, 5, layers=2, bidirectional=True, lengths=True)
    problem, again = make_problem(case), make_problem(case)
    assert {name: value.shape for name, value in problem.params.items()} == {
        f"{kind}_l{layer}{end}": shape
        for layer, I in ((0, 5), (1, 10))
        for end in ("", "_reverse")
        for kind, shape in (
            ("weight_ih", (15, I)),
            ("weight_hh", (15, 5)),
            ("bias_ih", (15,)),
            ("bias_hh", (15,)),
        )
    }
    assert problem.x.shape == (6, 3, 5)
    assert problem.d_output.shape == (6, 3, 10)
    assert all(value.dtype == np.float32 for value in problem.params.values())
    assert all(np.array_equal(problem.params[n], again.params[n]) for n in problem.params)
    assert np.array_equal(problem.x, again.x)
    other = make_problem(Case("training", "gru", 6, 3, 5))
    assert not np.array_equal(problem.x, other.x)


def test_lengths_are_from_a_fifth_of_T_to_T_and_one_is_T() -> None:
    lengths = make_lengths(Case("inference", "lstm", 100, 500, 1, lengths=True))
    assert lengths is not None
    assert lengths.min() >= 20
    assert lengths.max() == 100
    assert lengths.mean() == pytest.approx(60, abs=5)
    assert make_lengths(Case("inference", "lstm", 100, 500, 1)) is None


def test_no_gradient_comes_from_padding() -> None:
    problem = make_problem(Case("training", "rnn", 10, 4, 2, lengths=True))
    assert problem.lengths is not None
    for row, length in enumerate(problem.lengths):
        assert np.all(problem.d_output[length:, row] == 0)
        assert np.all(problem.d_output[:length, row] != 0)


def test_a_model_reads_symbols_and_has_targets_where_there_are_steps() -> None:
    case = Case("optimiser", "lstm", 10, 4, 3, 1, True, lengths=True, use="model")
    problem = make_problem(case)
    assert problem.lengths is not None
    assert problem.targets is not None
    assert problem.x.shape == problem.targets.shape == (10, 4)
    assert 0 <= problem.x.min() <= problem.x.max() < VOCABULARY
    assert problem.params["embedding.weight"].shape == (VOCABULARY, 3)
    assert problem.params["head.weight"].shape == (CLASSES, 6)
    for row, length in enumerate(problem.lengths):
        assert np.all(problem.targets[length:, row] == IGNORED)
        assert np.all(problem.targets[:length, row] >= 0)
