// The LSTM's step on tiles.
#include "lstm_unit.hpp"
#include "tile_step.hpp"

using namespace fastlstm;

namespace {

template <class T>
Unit exact_lstm(const TileStep<T>& step, Index row, Index j) {
  const Exact i = exact_sigmoid(step.sum(row, 0, j)), f = exact_sigmoid(step.sum(row, 1, j));
  const Exact g = exact_tanh(step.sum(row, 2, j)), o = exact_sigmoid(step.sum(row, 3, j));
  const Exact c = f * step.c(row, j) + i * g;
  return {o * exact_tanh(c), c, {i, f, g, o}};
}

}  // namespace

KERNEL_TEST(lstm_step_tile) {
  check_step_tiles(table, table.lstm_step_tile, 4, exact_lstm<T>);
  for (const Index rows : kRows) {  // many inputs from h, as a wide projection has
    TileStep<T> step(table, table.lstm_step_tile, 4, rows, 9, 2, 600);
    check_step_tile(step, exact_lstm<T>);
  }
}

namespace {

/// A step of one row without products: bias holds the sums, i f g o, [4H].
template <class T>
TileStep<T> step_on_sums(const KernelTable<T>& table, const std::vector<T>& sums,
                         const std::vector<T>& c) {
  const Index H = static_cast<Index>(c.size());
  TileStep<T> step(table, table.lstm_step_tile, 4, 1, H, 1, 1);
  step.W_panel = Guarded<T>(static_cast<Index>(step.W_panel.size()));
  step.R_panel = Guarded<T>(static_cast<Index>(step.R_panel.size()));
  std::fill_n(step.W_panel.data(), step.W_panel.size(), T(0));
  std::fill_n(step.R_panel.data(), step.R_panel.size(), T(0));
  step.b_panel = step.packed(sums, 1);
  std::copy(c.begin(), c.end(), step.c_prev.begin());
  return step;
}

/// The same four sums for every unit.
template <class T>
void check_limits(const KernelTable<T>& table, T i, T f, T g, T o, T c_prev, T want_c, T want_h) {
  constexpr Index H = 21;
  NOTE("i f g o c' = " << i << " " << f << " " << g << " " << o << " " << c_prev);
  std::vector<T> sums;
  for (const T value : {i, f, g, o}) sums.insert(sums.end(), H, value);
  TileStep<T> step = step_on_sums(table, sums, std::vector<T>(H, c_prev));
  const auto result = step.run(0, 1, true, false, 0, step.blocks);
  for (Index j = 0; j < H; ++j) {
    CHECK_EQUAL(result.c[j], want_c);
    CHECK_EQUAL(result.h[j], want_h);
  }
}

}  // namespace

TABLE_TEST(lstm_step_at_limits) {
  constexpr T inf = kInfinity<T>;
  check_limits<T>(table, -inf, inf, 0, -inf, T(3), T(3), 0);  // keeps c, shows nothing
  check_limits<T>(table, -inf, -inf, 0, inf, T(3), 0, 0);     // forgets
  check_limits<T>(table, -inf, inf, 0, inf, inf, inf, 1);     // an infinite c saturates h
  check_limits<T>(table, inf, -inf, -inf, -inf, T(3), T(-1), T(-0.0));
}

// A NaN reaches its own unit and no other.
TABLE_TEST(lstm_step_of_nan) {
  constexpr Index H = 21;
  for (Index at = 0; at < 5 * H; ++at) {
    NOTE("NaN at " << at);
    std::vector<T> values(5 * H, T(0.5));
    values[static_cast<std::size_t>(at)] = kNaN<T>;
    const auto c = values.begin() + 4 * H;
    TileStep<T> step = step_on_sums<T>(table, {values.begin(), c}, {c, values.end()});
    const auto result = step.run(0, 1, true, true, 0, step.blocks);
    const bool output_gate = at >= 3 * H && at < 4 * H;
    for (Index j = 0; j < H; ++j) {
      const bool here = j == at % H;
      CHECK_EQUAL(std::isnan(result.h[j]), here);
      CHECK_EQUAL(std::isnan(result.c[j]), here && !output_gate);
    }
  }
}

// Against the equations of one unit.
TABLE_TEST(lstm_step_tile_with_options) {
  for (const Choice& choice : kChoices) {
    NOTE("choice " << &choice - kChoices);
    for (const Index rows : {1, 3, 7}) {
      for (const Index H : kSizes) {
        TileStep<T> step(table, table.lstm_step_tile, 4, rows, H, 3, H);
        const Index ld = step.padded + 1;
        const Guarded<T> peephole(step.random.template values<T>(3 * ld, -1, 1));
        const Guarded<T> keep(step.random.template values<T>(rows * ld, 0, 1));
        step.has_options = true;
        step.options = options_of(choice, peephole.data(), ld, keep.data(), ld);
        check_step_tile(step, [](const TileStep<T>& s, Index row, Index j) {
          const Exact sums[] = {s.sum(row, 0, j), s.sum(row, 1, j), s.sum(row, 2, j),
                                s.sum(row, 3, j)};
          const OneUnit::Step made = unit_of(s.options, row, j).step(s.options, sums, s.c(row, j));
          return Unit{made.h, made.c, OneUnit::saved(s.options, made)};
        });
      }
    }
  }
}
