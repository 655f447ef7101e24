// All that was tuned, in one place: what a kind of machine does best, by measurement. No bit of any
// result depends on these; what bits depend on is at the end, the same for all machines.
// `fastlstm info --all` prints the table. Tiles have theirs in kernels/tile.hpp, where they are
// constants for the compiler.
#pragma once

#include <string>
#include <vector>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// A kind of machine. Others than Intel's, Zen among them, read the L3 cache almost as fast as a
/// core's L2 cache (Zen 4 98 and 117 GB/s; Emerald Rapids 29 and 135).
enum class Machine { kFastL3, kSlowL3 };

// The measurements, by the names below. LSTM, float32, unless said; "two threads and one" are times
// in us of a call, T = 100, B = 1.
//
// products_per_thread: about 20 us of work.
// products_per_meeting: of a step and thread. Zen 4, times as fast on two threads: H = 48 1.1, H =
//   64 1.4, H = 128 1.6. Emerald Rapids, two threads and one: H = 48 92 and 53, H = 64 84 and 96;
//   GRU H = 64 82 and 78, H = 80 100 and 110; RNN H = 128 116 and 90.
// products_per_meeting_backward: Emerald Rapids, training, two threads and one: H = 64 391 and 326,
//   H = 80 535 and 526, H = 96 652 and 662, H = 128 885 and 927.
// products_rather_than_owners: where threads could own layers instead, which need not meet at each
//   step but need all of their layers' weights in their caches. Zen 4, two layers on two threads,
//   times as fast as one with owners and with shared units: H = 48 1.54 and 1.18, H = 64 1.63 and
//   1.44, H = 128 1.55 and 1.7, H = 256, B = 8 1.4 and 1.8.
// rows_per_thread: threads that own rows never meet, but each reads all the weights. Zen 4, two
//   threads, LSTM and GRU, H = 64 to 1024: it pays from so many rows a thread on (H = 128, B = 8:
//   1.09 times as fast as sharing units), from fewer where a layer's weights fit into the L2 cache
//   (H = 64, B = 4: 1.12), and never where they fill the L3 cache (H = 1024, B = 128: 0.95).
// steps_per_owner: so that the blocks of steps at the start and the end, when some threads have
//   nothing to do, are a small part.
// blocks_per_owner: many, since it waits for as many blocks as there are layers below, but not of
//   so few rows that projecting their inputs suffers.
// alternate_rows: what passes between layers then stays in the caches.
// few_inputs: the sums that a pass of its own writes and the steps read again are as many bytes as
//   such a W has. LSTM, I = 1, T = 64, one thread of a Zen 4, ns a step with that pass and without:
//   H = 80 1149 and 944, H = 96 1582 and 1328.
// projected_rows: each weight is then read from the L2 cache for many rows, and what they give
//   stays there until the recurrence reads it.
// ahead_*: fewer weights come from the L1 cache (a layer of H = 32 took 4 % longer), and more have
//   no place for inputs' weights in the L3 cache (H = 1024). Where that is slow, they must not push
//   R out of the L2 cache (Emerald Rapids, GFLOP/s with and without: H = 128 82 and 82, 256 61 and
//   83, 512 23 and 26, and two threads 52 and 81).
// rows_down: every other step of so few rows begins with what the L2 cache still holds of the step
//   before. Emerald Rapids (2 MB), H = 512, GFLOP/s without and with: B = 1 26 and 36, B = 8 115
//   and 128. With B = 32 the products hide the way from the L3 cache (H = 256 lost 2 to 4 %).
// gradients_in_L2: with what they meet there. Where a block's gradients of gates are more, what
//   reads them by rows comes first (H = 512 +4 % of training, H = 1024 on two threads +10 %).
// products_per_stretch: about a tenth of a second on one slow core.
// products_per_spinner, products_per_sleeper: about 3 us of work, and 80 us.
// products_to_release: 10 us of work; letting go of the interpreter lock costs more than less.
// spins_before_yield: a few microseconds.
// pauses_before_sleep: tens of microseconds, longer than the gap between a busy caller's calls.
// pauses_before_nap: more than 2 ms. Yielding alone would wait for ever where the other has a lower
//   real-time priority and the same CPU.
// not_brief_us: a brief wait is microseconds; who waits longer waits for a thread that the system
//   has taken off its CPU. That is expected to go on for crowd_factor times as long as was waited:
//   a brief disturbance costs little of the threads' use, and where the CPUs stay crowded, the
//   calls that find it out (a time slice lost at each step, 0.4 s of 100 steps measured) are few.

/// X(name, value where the L3 cache is fast, where it is slow, what it is).
#define FASTLSTM_TUNING(X)                                                                       \
  X(products_per_thread, 5e5, 5e5, "multiply-adds of a call that pay for waking a thread")       \
  X(products_per_meeting, 9e3, 2e4, "multiply-adds of a step and thread that pay for meeting")   \
  X(products_per_meeting_backward, 8e3, 16e3, "the same of the backward pass")                   \
  X(products_rather_than_owners, 2e4, 2e4, "the same where threads could own layers")            \
  X(rows_per_thread, 4, 4, "rows from which a thread owns rows")                                 \
  X(rows_per_thread_of_small, 2, 2, "the same of a layer with small_weights")                    \
  X(small_weights, 1.5e5, 1.5e5, "weights of a layer that fit into the L2 cache")                \
  X(large_weights, 8e6, 8e6, "weights from which threads own no rows")                           \
  X(rows_rather_than_directions, 24, 24, "rows a thread has to own them in both directions")     \
  X(steps_per_owner, 16, 16, "steps for each thread that owns layers")                           \
  X(blocks_per_owner, 4, 4, "blocks of steps for each thread that owns layers")                  \
  X(alternate_rows, 384, 384, "rows that a layer computes before the next one follows")          \
  X(projected_rows, 48, 48, "rows of inputs that are projected at once")                         \
  X(few_inputs, 4, 4, "inputs up to which they are not projected ahead of the steps")            \
  X(ahead_least_weights, 2e4, 2e4, "weights from which inputs are projected ahead")              \
  X(ahead_most_weights, 4e6, 4e6, "weights up to which they are")                                \
  X(ahead_most_bytes, 1e18, 1 << 20, "the same in bytes")                                        \
  X(rows_down, 24, 24, "rows up to which every other step reads panels from the end")            \
  X(gradients_in_L2, 3 << 19, 3 << 19, "bytes of gradients that the L2 cache has room for")      \
  X(products_per_stretch, 1e9, 1e9, "multiply-adds between two looks for an interruption")       \
  X(products_per_part, 2.5e8, 2.5e8, "the same within a long step")                              \
  X(products_before_look, 2e9, 2e9, "a thread's before the first look while others work")        \
  X(products_per_spinner, 8e4, 8e4, "multiply-adds of a stream's step worth a spinning thread")  \
  X(products_per_sleeper, 2e6, 2e6, "the same for one that sleeps")                              \
  X(spinning_us, 20, 20, "microseconds after a stream's step in which workers still spin")       \
  X(products_to_release, 2.5e5, 2.5e5, "multiply-adds worth letting go of the interpreter lock") \
  X(spins_before_yield, 200, 200, "spins before a waiting thread gives its CPU away")            \
  X(pauses_before_sleep, 300, 300, "pauses before a worker without work sleeps")                 \
  X(pauses_before_nap, 5000, 5000, "pauses before a thread that waits for another naps")         \
  X(nap_us, 50, 50, "microseconds of a nap")                                                     \
  X(not_brief_us, 300, 300, "microseconds of a wait at a step from which CPUs are crowded")      \
  X(crowd_factor, 10, 10, "times as long as was waited that they count as crowded")              \
  X(crowd_most_ms, 2000, 2000, "milliseconds that they do at most")                              \
  X(pieces_per_thread, 4, 4, "pieces of 16384 values that are worth a thread to an optimiser")

struct Tuning {
#define FASTLSTM_FIELD(name, fast, slow, meaning) double name;
  FASTLSTM_TUNING(FASTLSTM_FIELD)
#undef FASTLSTM_FIELD
};

/// This machine's kind, by the CPU's maker, and its table.
Machine machine() noexcept;
const Tuning& tuning() noexcept;

struct TuningEntry {
  const char* name;
  double value;
  const char* meaning;
};
std::vector<TuningEntry> tuning_table();

// What bits depend on: how sums are grouped. The same for all machines and numbers of threads.

/// Rows of a block of steps of the backward pass at least, whose gradients are summed together.
/// With 1024 it took 2 to 5 % longer from H = 128 on (B = 32), and 4 % less at H = 64.
constexpr Index kBackwardRows = 256;
/// The most rows that go through the steps of a block together: independent of all others there,
/// and so a task for a thread.
constexpr Index kMostStepRows = 32;
/// Rows of a piece of a product on BLAS.
constexpr Index kPieceRows = 256;
/// Columns of a weight's gradient up to which our own kernel computes it with vectors below 64
/// bytes: AVX2 on Zen 4 reaches 101 to 109 GFLOP/s up to 128 columns (OpenBLAS 89 to 98), 85 to 91
/// from 256 on (96 to 105). Vectors of 64 bytes always do better than BLAS: 113 of 115.
constexpr Index kOuterColumns = 128;
/// Values of a piece of an array, in sums over all of it.
constexpr Index kPieceValues = 16384;

}  // namespace fastlstm
