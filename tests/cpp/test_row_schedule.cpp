// The order of rows: sorting by length, packing, and the way back.
#include <algorithm>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "runtime/tuning.hpp"
#include "schedule/row_schedule.hpp"
#include "schedule/step_blocks.hpp"

using namespace fastlstm;

namespace {

using Lengths = std::vector<Index>;

RowSchedule schedule(Index T, const Lengths& lengths) {
  return RowSchedule(T, static_cast<Index>(lengths.size()), lengths.data());
}

const std::vector<std::pair<Index, Lengths>> kCases = {
    {1, {1}},       {1, {0}},    {3, {3, 3}}, {4, {4, 1, 3}}, {5, {0, 5, 0, 2, 2}},
    {4, {2, 1, 2}}, {3, {0, 0}},
};

}  // namespace

TEST(example_of_the_header) {
  const RowSchedule rows = schedule(4, {4, 1, 3});
  CHECK_EQUAL(rows.rows(), 8);
  CHECK_EQUAL(rows.steps(), 4);
  const Index place[] = {0, 2, 1}, offset[] = {0, 3, 5, 7, 8}, live[] = {3, 2, 2, 1};
  for (Index b = 0; b < 3; ++b) CHECK_EQUAL(rows.place(b), place[b]);
  for (Index t = 0; t <= 4; ++t) CHECK_EQUAL(rows.offset(t), offset[t]);
  for (Index t = 0; t < 4; ++t) CHECK_EQUAL(rows.live(t), live[t]);
}

TEST(equal_lengths_keep_their_order) {
  const RowSchedule rows = schedule(5, {2, 5, 2, 5, 2});
  const Index place[] = {1, 3, 0, 2, 4};
  for (Index b = 0; b < 5; ++b) CHECK_EQUAL(rows.place(b), place[b]);
}

TEST(live_rows_are_those_not_ended) {
  for (const auto& given : kCases) {
    const Index T = given.first;
    const Lengths& lengths = given.second;
    NOTE("T = " << T << ", B = " << lengths.size());
    const RowSchedule rows = schedule(T, lengths);
    CHECK_EQUAL(rows.all_steps(), T);
    CHECK_EQUAL(rows.B(), static_cast<Index>(lengths.size()));
    CHECK_EQUAL(rows.steps(), *std::max_element(lengths.begin(), lengths.end()));
    for (Index t = 0; t < rows.steps(); ++t) {
      Lengths live;
      for (Index b = 0; b < rows.live(t); ++b) live.push_back(rows.place(b));
      for (Index b = 0; b < rows.B(); ++b) {
        const bool found = std::count(live.begin(), live.end(), b) == 1;
        CHECK_EQUAL(found, lengths[static_cast<std::size_t>(b)] > t);
      }
    }
  }
}

TEST(no_lengths_are_full_lengths) {
  const RowSchedule none(3, 2, nullptr), full = schedule(3, {3, 3});
  for (const RowSchedule& rows : {none, full}) {
    CHECK_EQUAL(rows.rows(), 6);
    CHECK_EQUAL(rows.steps(), 3);
    CHECK(rows.is_packed(SequenceView<float>{nullptr, 2 * 7, 7}, 7));
    CHECK(!rows.is_packed(SequenceView<float>{nullptr, 7, 3 * 7}, 7));  // batch first
  }
  CHECK(!schedule(3, {3, 2}).is_packed(SequenceView<float>{nullptr, 2 * 7, 7}, 7));
  // The last steps are those of row 1 alone, wherever row 0 has been.
  const RowSchedule last = schedule(3, {1, 3}).steps_of(1, 3);
  CHECK_EQUAL(last.B(), 1);
  CHECK(!last.is_packed(SequenceView<float>{nullptr, 2 * 7, 7}, 7));
  CHECK(!schedule(2, {1, 2}).steps_of(1, 2).is_packed(SequenceView<float>{nullptr, 7, 7}, 7));
  // One sequence is packed in either order, one step too.
  CHECK(RowSchedule(3, 1, nullptr).is_packed(SequenceView<float>{nullptr, 7, 3 * 7}, 7));
  CHECK(RowSchedule(1, 2, nullptr).is_packed(SequenceView<float>{nullptr, 7, 7}, 7));
}

TEST(no_lengths_are_full_lengths_in_every_part) {
  const auto check_same = [](const RowSchedule& none, const RowSchedule& full) {
    CHECK(none.uniform());
    CHECK_EQUAL(none.B(), full.B());
    CHECK_EQUAL(none.steps(), full.steps());
    CHECK_EQUAL(none.all_steps(), full.all_steps());
    CHECK_EQUAL(none.rows(), full.rows());
    for (Index t = 0; t < full.steps(); ++t) {
      CHECK_EQUAL(none.live(t), full.live(t));
      for (Index b = 0; b < full.B(); ++b) {
        CHECK_EQUAL(none.place(b), full.place(b));
        CHECK_EQUAL(none.length(b), full.length(b));
        CHECK_EQUAL(none.packed_row(t, b), full.packed_row(t, b));
        CHECK_EQUAL(none.unique_row(t, b), full.unique_row(t, b));
      }
    }
    const SequenceView<float> time_major{nullptr, full.B() * 7, 7};
    CHECK_EQUAL(none.is_packed(time_major, 7), full.is_packed(time_major, 7));
    for (const bool backward : {false, true}) {
      Lengths blocks[2];
      for (const bool of_full : {false, true}) {
        for_each_step_block(of_full ? full : none, backward, 4, [&](const StepBlock& block) {
          blocks[of_full].insert(blocks[of_full].end(),
                                 {block.first, block.end, block.first_row, block.rows});
        });
      }
      CHECK(blocks[0] == blocks[1]);
    }
  };
  for (const Index T : {1, 2, 7}) {
    for (const Index B : {1, 2, 5}) {
      const Lengths lengths(static_cast<std::size_t>(B), T);
      const RowSchedule none(T, B, nullptr), full = schedule(T, lengths);
      check_same(none, full);
      for (const Index stride : {1, 2, 3}) {
        for (Index first = 0; first < stride; ++first) {
          NOTE("T = " << T << ", B = " << B << ", rows " << first << ", + " << stride);
          const RowSchedule share(none, first, stride), of_full(full, first, stride);
          check_same(share, of_full);
          check_same(RowSchedule(share, 1, 2), RowSchedule(of_full, 1, 2));
          check_same(share.steps_of(T / 2, T), of_full.steps_of(T / 2, T));
        }
      }
      const RowSchedule part = none.steps_of(T / 3, T), of_full = full.steps_of(T / 3, T);
      check_same(part, of_full);
      check_same(RowSchedule(part, 1, 2), RowSchedule(of_full, 1, 2));
      check_same(none.steps_of(0, T / 2), full.steps_of(0, T / 2));
    }
  }
}

TEST(empty_batches_and_sequences) {
  const RowSchedule no_rows(3, 0, nullptr), no_steps(0, 3, nullptr), neither;
  for (const RowSchedule& rows : {no_rows, no_steps, neither}) {
    CHECK_EQUAL(rows.rows(), 0);
    CHECK_EQUAL(rows.steps(), 0);
  }
}

TEST(packing_and_back) {
  constexpr Index kWidth = 3, kLd = 5;
  for (const auto& given : kCases) {
    const Index T = given.first;
    const Lengths& lengths = given.second;
    for (const bool batch_first : {false, true}) {
      NOTE("T = " << T << ", B = " << lengths.size() << ", batch_first = " << batch_first);
      const RowSchedule rows = schedule(T, lengths);
      const Index B = rows.B();
      // The value of an element says where it stands.
      Guarded<double> x(T * B * kWidth), packed(rows.rows() * kWidth), back(T * B * kWidth);
      const Index stride_t = batch_first ? kWidth : B * kWidth;
      const Index stride_b = batch_first ? T * kWidth : kWidth;
      for (Index k = 0; k < T * B * kWidth; ++k) x[k] = static_cast<double>(k + 1);
      pack_rows<double>(rows, {x.data(), stride_t, stride_b}, kWidth, packed.data());
      packed.check_guards();
      for (Index t = 0; t < rows.steps(); ++t) {
        for (Index b = 0; b < rows.live(t); ++b) {
          for (Index k = 0; k < kWidth; ++k) {
            const Index from = t * stride_t + rows.place(b) * stride_b + k;
            CHECK_EQUAL(packed[(rows.offset(t) + b) * kWidth + k], x[from]);
          }
        }
      }
      // Among other columns.
      Guarded<double> wide(rows.rows() * kLd);
      for (Index k = 0; k < rows.rows() * kWidth; ++k) {
        wide[k / kWidth * kLd + k % kWidth] = packed[k];
      }
      unpack_rows<double>(rows, wide.data(), kLd, kWidth, {back.data(), stride_t, stride_b});
      back.check_guards();
      for (Index t = 0; t < T; ++t) {
        for (Index b = 0; b < B; ++b) {
          for (Index k = 0; k < kWidth; ++k) {
            const Index at = t * stride_t + b * stride_b + k;
            CHECK_EQUAL(back[at], lengths[static_cast<std::size_t>(b)] > t ? x[at] : 0);
          }
        }
      }
    }
  }
}

TEST(states_sort_and_back) {
  constexpr Index kWidth = 2, kLd = 5;  // what stands beside it stays
  constexpr float kBeside = -7;
  for (const auto& given : kCases) {
    const Index T = given.first;
    const Lengths& lengths = given.second;
    const RowSchedule rows = schedule(T, lengths);
    const Index B = rows.B();
    Guarded<float> state(B * kWidth), back(B * kWidth);
    Guarded<float> sorted(std::vector<float>(static_cast<std::size_t>(B * kLd), kBeside));
    for (Index k = 0; k < B * kWidth; ++k) state[k] = static_cast<float>(k + 1);
    sort_state<float>(rows, state.data(), kWidth, sorted.data(), kLd);
    for (Index k = 0; k < B * kLd; ++k) {
      const Index b = k / kLd, j = k % kLd;
      CHECK_EQUAL(sorted[k], j < kWidth ? state[rows.place(b) * kWidth + j] : kBeside);
    }
    unsort_state<float>(rows, sorted.data(), kLd, kWidth, back.data());
    CHECK(std::equal(back.data(), back.data() + back.size(), state.data()));
    sort_state<float>(rows, nullptr, kWidth, sorted.data(), kLd);
    for (Index k = 0; k < B * kLd; ++k) CHECK_EQUAL(sorted[k], k % kLd < kWidth ? 0 : kBeside);
    sorted.check_guards();
    back.check_guards();
  }
}

TEST(shares_divide_the_rows) {
  for (const auto& given : kCases) {
    const Index T = given.first;
    const Lengths& lengths = given.second;
    const RowSchedule all = schedule(T, lengths);
    for (const Index stride : {1, 2, 3}) {
      NOTE("T = " << T << ", B = " << lengths.size() << ", stride = " << stride);
      std::vector<Index> taken(static_cast<std::size_t>(all.rows()), 0);
      Index rows = 0;
      for (Index first = 0; first < stride; ++first) {
        const RowSchedule share(all, first, stride);
        rows += share.B();
        CHECK_EQUAL(share.all_steps(), T);
        for (Index b = 0; b < share.B(); ++b) {
          CHECK_EQUAL(share.place(b), all.place(first + b * stride));
          CHECK_EQUAL(share.length(b), lengths[static_cast<std::size_t>(share.place(b))]);
          for (Index t = 0; t < share.length(b); ++t) {
            CHECK(b < share.live(t));
            const Index row = share.packed_row(t, b);
            CHECK_EQUAL(row, all.packed_row(t, first + b * stride));
            ++taken[static_cast<std::size_t>(row)];
          }
        }
      }
      CHECK_EQUAL(rows, all.B());
      CHECK(taken == std::vector<Index>(taken.size(), 1));
    }
  }
}

TEST(views_find_rows) {
  constexpr Index kWidth = 5;
  const RowSchedule rows = schedule(4, {4, 1, 3});
  float data[4 * 3 * kWidth];
  const RowView<float> callers(SequenceView<float>{data, kWidth, 4 * kWidth});  // batch first
  const RowView<float> packed(data, kWidth);
  const RowView<float> sorted(data, kWidth, rows.B(), 2);  // from t = 2 on
  const RowView<const float> to_read = packed;
  for (Index t = 0; t < rows.steps(); ++t) {
    for (Index b = 0; b < rows.live(t); ++b) {
      CHECK_EQUAL(callers.row(rows, t, b) - data, (rows.place(b) * 4 + t) * kWidth);
      CHECK_EQUAL(packed.row(rows, t, b) - data, (rows.offset(t) + b) * kWidth);
      CHECK_EQUAL(to_read.from_column(2).row(rows, t, b) - data, (rows.offset(t) + b) * kWidth + 2);
      if (t >= 2) CHECK_EQUAL(sorted.row(rows, t, b) - data, ((t - 2) * rows.B() + b) * kWidth);
    }
  }
}

TEST(blocks_cover_every_step_once) {
  const std::vector<RowSchedule> schedules = {
      RowSchedule(1, 1, nullptr),       RowSchedule(5000, 1, nullptr),
      RowSchedule(3, 2000, nullptr),    RowSchedule(1024, 1, nullptr),
      schedule(900, {900, 30, 700, 1}), schedule(3, {0, 0}),
  };
  for (const RowSchedule& rows : schedules) {
    for (const bool backward : {false, true}) {
      for (const Index least : {Index{1}, Index{48}, kBackwardRows}) {
        NOTE("steps = " << rows.steps() << ", B = " << rows.B() << ", backward = " << backward
                        << ", least = " << least);
        std::vector<Index> steps;
        for_each_step_block(rows, backward, least, [&](const StepBlock& block) {
          const Index left = rows.steps() - static_cast<Index>(steps.size());
          CHECK(block.rows >= least || block.end - block.first == left);
          CHECK(block.rows <= most_block_rows(rows, least));
          CHECK_EQUAL(block.first_row, rows.offset(block.first));
          CHECK_EQUAL(block.rows, rows.offset(block.end) - block.first_row);
          for_each_step(block, backward, [&](Index t) { steps.push_back(t); });
        });
        CHECK_EQUAL(static_cast<Index>(steps.size()), rows.steps());
        for (Index k = 0; k < rows.steps(); ++k) {
          CHECK_EQUAL(steps[static_cast<std::size_t>(k)], backward ? rows.steps() - 1 - k : k);
        }
      }
    }
  }
}
