// Later steps' input projections, done bit by bit within steps of one row.
#include "tile_step.hpp"

using namespace fastlstm;

namespace {

/// So many steps on the blocks from `first` on, of which the last does what is left. What they
/// project has the bits of project_rows, and they find what they would find alone.
template <class T>
void check_ahead(const KernelTable<T>& table, typename TileStep<T>::Kernel kernel, Index G,
                 Index steps, Index H, Index I, Index P) {
  NOTE("G = " << G << ", steps = " << steps << ", H = " << H << ", I = " << I << ", P = " << P);
  // The first row is the step's, the others are those of the steps later.
  TileStep<T> step(table, kernel, G, 1 + kAheadSteps, H, I, P);
  const Index ld = step.blocks * step.width, first = step.blocks / 3;
  const std::vector<T> before(static_cast<std::size_t>(kAheadSteps * ld), T(77));
  Guarded<T> want(before), out(before);
  table.project_rows({kAheadSteps, first, step.blocks, step.V, I, step.x.pointers.data() + 1,
                      step.W_panel.data(), step.b_panel.data(), want.data(), ld});
  const auto alone = step.run(0, 1, false, true, first, step.blocks);
  ProjectAhead<T> ahead{step.x.pointers.data() + 1, out.data(), ld, false, first, 0};
  for (Index k = 0; k < steps; ++k) {
    ahead.last_step = k + 1 == steps;
    const auto with = step.run(0, 1, false, true, first, step.blocks, false, &ahead);
    CHECK(same_bits(with.c, alone.c));
    CHECK(same_bits(with.gates, alone.gates));
    CHECK(std::equal(with.h.data() + first * step.units, with.h.data() + step.padded,
                     alone.h.data() + first * step.units));
  }
  out.check_guards();
  CHECK(same_bits(out, table.projects_ahead ? want : Guarded<T>(before)));
  CHECK_EQUAL(ahead.block, table.projects_ahead ? step.blocks : first);
}

}  // namespace

TABLE_TEST(project_ahead) {
  for (const Index steps : {1, 2, 3, 4}) {
    for (const Index H : kSizes) {
      for (const Index I : {1, 2, 17, 100}) {
        check_ahead(table, table.lstm_step_tile, 4, steps, H, I, H);
        check_ahead(table, table.gru_step_tile, 3, steps, H, I, H);
        check_ahead(table, table.rnn_tanh_step_tile, 1, steps, 4 * H, I, 4 * H);
      }
    }
    // More blocks than a step has sums of at a time.
    check_ahead(table, table.lstm_step_tile, 4, steps, 50 * table.lanes, 9, 8);
  }
}
