// A step on tiles with weights and inputs of its own, and its check against formulas.
#pragma once

#include <vector>

#include "kernel_tests.hpp"

/// A step's weights as matrices and as panels, and its inputs, for a cell of G gates.
template <class T>
struct TileStep {
  using Kernel = void (*)(const fastlstm::CellStepTile<T>&) noexcept;
  TileStep(const fastlstm::KernelTable<T>& table_, Kernel kernel_, Index G_, Index rows_, Index H_,
           Index I_, Index P_)
      : table(table_),
        kernel(kernel_),
        G(G_),
        V(G == 3 ? 3 : 4),
        rows(rows_),
        H(H_),
        I(I_),
        P(P_),
        units(V / G * table.lanes),
        width(V * table.lanes),
        blocks((H + units - 1) / units),
        padded(blocks * units),
        random(static_cast<unsigned>(rows * 1000 + H)),
        W(random.values<T>(G * H * I, -1, 1)),
        R(random.values<T>(G * H * P, -1, 1)),
        b(random.values<T>(G * H, -1, 1)),
        b_h(random.values<T>(padded, -1, 1)),
        W_panel(packed(W, I)),
        R_panel(packed(R, P)),
        b_panel(packed(b, 1)),
        x(random, rows, I),
        h_prev(random.values<T>(rows * ld_h_prev(), -1, 1)),
        h_past_R(random.values<T>(rows * ld_h_prev(), -1, 1)),
        c_prev(random.values<T>(rows * padded, -2, 2)) {}

  Index ld_h_prev() const { return std::max(P, padded) + 1; }

  /// Column j of block n is gate j / units of unit n * units + j % units; weights of units that do
  /// not exist are zero.
  Guarded<T> packed(const std::vector<T>& matrix, Index K) const {
    Guarded<T> panel(blocks * K * width);
    for (Index at = 0; at < blocks * K * width; ++at) {
      const Index column = at % width, k = at / width % K, block = at / width / K;
      const Index gate = column / units, unit = block * units + column % units;
      panel[at] = unit < H ? matrix[static_cast<std::size_t>((gate * H + unit) * K + k)] : T(0);
    }
    return panel;
  }

  struct Result {
    Guarded<T> c, h, gates, saved_c;
    Rows<T> output;
    void check_guards() const {
      for (const Guarded<T>* array : {&c, &h, &gates, &saved_c}) array->check_guards();
      output.check_guards();
    }
  };

  /// The kernel on all rows or one, with x or with its projection, with all outputs or fewest; h is
  /// written to rows of the caller's, too, where all are, and in steps that go down.
  /// ahead: null, or of one row whose input is projected.
  Result run(Index first_row, Index n, bool fused, bool save, Index first_block, Index end_block,
             bool down = false, fastlstm::ProjectAhead<T>* ahead = nullptr) {
    Result r{Guarded<T>(std::vector<T>(c_prev.begin() + first_row * padded,
                                       c_prev.begin() + (first_row + n) * padded)),
             Guarded<T>(n * padded), Guarded<T>(save ? n * 4 * H : 0), Guarded<T>(save ? n * H : 0),
             Rows<T>(random, n, H)};
    Guarded<T> projected(n * blocks * width);
    table.project_rows({n, 0, blocks, V, I, x.pointers.data() + first_row, W_panel.data(),
                        b_panel.data(), projected.data(), blocks * width});
    fastlstm::CellStepTile<T> s{};
    s.rows = n;
    s.first_block = first_block;
    s.end_block = end_block;
    s.H = H;
    s.I = I;
    s.P = P;
    s.x = fused ? x.pointers.data() + first_row : nullptr;
    s.W = W_panel.data();
    s.bias = b_panel.data();
    s.bias_h = b_h.data();
    s.projected = fused ? nullptr : projected.data();
    s.ld_projected = blocks * width;
    s.h_prev = h_prev.data() + first_row * ld_h_prev();
    s.h_past_R = h_past_R.data() + first_row * ld_h_prev();
    s.ld_h_prev = ld_h_prev();
    s.R = R_panel.data();
    s.memory[0] = r.c.data();
    s.ld_memory = padded;
    s.h = r.h.data();
    s.ld_h = padded;
    s.output = save || down ? r.output.pointers.data() : nullptr;
    s.gates = save ? r.gates.data() : nullptr;
    s.ld_gates = 4 * H;
    s.saved_memory = save ? r.saved_c.data() : nullptr;
    s.ld_saved_memory = H;
    Guarded<T> sums(fastlstm::step_sums(n, end_block - first_block, width));
    s.sums = sums.data();
    s.down = down;
    s.ahead = ahead;
    fastlstm::StepOptions<T> of_rows = options;
    if (options.keep_c != nullptr) of_rows.keep_c += first_row * options.ld_keep_c;
    s.options = has_options ? &of_rows : nullptr;
    kernel(s);
    sums.check_guards();
    r.check_guards();
    return r;
  }

  Exact from_x(Index row, Index gate, Index j) const {
    const Index at = gate * H + j;
    Exact s = b[static_cast<std::size_t>(at)];
    for (Index k = 0; k < I; ++k) {
      s += Exact(x.at(row, k)) * W[static_cast<std::size_t>(at * I + k)];
    }
    return s;
  }
  Exact from_h(Index row, Index gate, Index j) const {
    Exact s = 0;
    for (Index k = 0; k < P; ++k) {
      s += Exact(h(row, k)) * R[static_cast<std::size_t>((gate * H + j) * P + k)];
    }
    return s;
  }
  Exact sum(Index row, Index gate, Index j) const {
    return from_x(row, gate, j) + from_h(row, gate, j);
  }
  T h(Index row, Index k) const { return h_prev[row * ld_h_prev() + k]; }
  T c(Index row, Index k) const { return c_prev[static_cast<std::size_t>(row * padded + k)]; }

  const fastlstm::KernelTable<T>& table;
  const Kernel kernel;
  Index G, V, rows, H, I, P, units, width, blocks, padded;
  Random random;
  std::vector<T> W, R, b;
  Guarded<T> b_h, W_panel, R_panel, b_panel;
  Rows<T> x;
  Guarded<T> h_prev, h_past_R;
  std::vector<T> c_prev;
  bool has_options = false;
  fastlstm::StepOptions<T> options{};
};

/// What a step makes of one unit: h, c of an LSTM, and what training saves.
struct Unit {
  Exact h, c;
  std::vector<Exact> saved;
};

/// exact(step, row, j): the Unit wanted.
template <class T, class Unit_>
void check_step_tile(TileStep<T>& step, Unit_ exact) {
  const Index rows = step.rows, H = step.H, I = step.I, P = step.P;
  NOTE("rows = " << rows << ", H = " << H << ", I = " << I << ", P = " << P);
  const auto whole = step.run(0, rows, true, true, 0, step.blocks);
  const Exact tolerance = 4 * kEpsilon<T> * static_cast<T>(4 + I + P);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const Unit want = exact(step, row, j);
      CHECK_CLOSE(whole.h[row * step.padded + j], want.h, tolerance);
      for (std::size_t k = 0; k < want.saved.size(); ++k) {
        const Index gate = static_cast<Index>(k);
        CHECK_CLOSE(whole.gates[row * 4 * H + gate * H + j], want.saved[k], tolerance);
      }
      CHECK_EQUAL(whole.output.at(row, j), whole.h[row * step.padded + j]);
      if (step.G != 4) continue;
      CHECK_CLOSE(whole.c[row * step.padded + j], want.c, tolerance);
      CHECK_EQUAL(whole.saved_c[row * H + j], whole.c[row * step.padded + j]);
    }
  }
  // The same bits from the last block to the first, with the inputs projected before, without the
  // outputs for training, for a row by itself, and for some blocks by themselves.
  for (const bool fused : {false, true}) {
    const auto down = step.run(0, rows, fused, true, 0, step.blocks, true);
    CHECK(same_bits(down.c, whole.c));
    CHECK(same_bits(down.h, whole.h));
    CHECK(same_bits(down.gates, whole.gates));
  }
  const auto projected = step.run(0, rows, false, false, 0, step.blocks);
  CHECK(same_bits(projected.c, whole.c));
  CHECK(same_bits(projected.h, whole.h));
  for (Index row = 0; row < rows; ++row) {
    for (const bool fused : {false, true}) {
      for (const bool down : {false, true}) {
        const auto alone = step.run(row, 1, fused, false, 0, step.blocks, down);
        CHECK(std::equal(alone.h.data(), alone.h.data() + step.padded,
                         &whole.h.data()[row * step.padded]));
        CHECK(std::equal(alone.c.data(), alone.c.data() + step.padded,
                         &whole.c.data()[row * step.padded]));
        for (Index j = 0; down && j < H; ++j) CHECK_EQUAL(alone.output.at(0, j), alone.h[j]);
      }
    }
  }
  const Index cut = step.blocks / 2;
  const auto right = step.run(0, rows, true, false, cut, step.blocks);
  for (Index at = 0; at < rows * step.padded; ++at) {
    const bool computed = at % step.padded / step.units >= cut;
    if (computed) CHECK_EQUAL(right.h[at], whole.h[at]);
    CHECK_EQUAL(right.c[at], computed ? whole.c[at] : step.c_prev[static_cast<std::size_t>(at)]);
  }
}

/// For heights and widths around those of tiles, and for many inputs.
template <class T, class Unit_>
void check_step_tiles(const fastlstm::KernelTable<T>& table, typename TileStep<T>::Kernel kernel,
                      Index G, Unit_ exact) {
  const auto check_at = [&](Index rows, Index H, Index I) {
    TileStep<T> step(table, kernel, G, rows, H, I, H);
    check_step_tile(step, exact);
  };
  for (const Index rows : kRows) {
    for (const Index H : kSizes) check_at(rows, H, 3);
    check_at(rows, 9, 600);
  }
  TileStep<T> large(table, kernel, G, 1, 150, 3, 600);  // blocks beyond the L1 cache
  check_step_tile(large, exact);
}
