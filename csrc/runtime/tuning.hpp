// All that was tuned, in one place: what a kind of machine does best, by measurement. No bit of any
// result depends on these; what bits depend on is at the end, the same for all machines.
// `fastlstm info --all` prints the table. Tiles have theirs in kernels/tile.hpp, where they are
// constants for the compiler.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fastlstm/types.hpp"

namespace fastlstm {

/// A kind of machine. Others than Intel's, Zen among them, read the L3 cache almost as fast as a
/// core's L2 cache (Zen 4 98 and 117 GB/s; Emerald Rapids 29 and 135). Zen 5 multiplies vectors of
/// 64 bytes in one piece, twice as fast.
enum class Machine { kFastL3, kZen5, kSlowL3 };

// The measurements, by the names below. LSTM, float32, unless said; "two threads and one" are times
// in us of a call, T = 100, B = 1.
//
// products_per_thread: about 20 us of work.
// The costs where L3 is fast are of a Zen 4, the next of a Zen 5 (two cores of virtual machines
//   both), those where it is slow of a Sapphire Rapids whose 16 CPUs, as a virtual machine shows
//   them, gave 8.7 times what one did: that is what thread_slows_products says.
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
//   83, 512 23 and 26, and two threads 52 and 81; Zen 5, us a step: H = 160 2.7 and 2.9, 192 4.4
//   and 3.9, 256 10.8 and 8.4, 512 48 and 41; RNN, H = 320 2.5 and 2.8, 384 4.2 and 3.7).
// rows_down: every other step of so few rows begins with what the L2 cache still holds of the step
//   before. Emerald Rapids (2 MB), H = 512, GFLOP/s without and with: B = 1 26 and 36, B = 8 115
//   and 128. With B = 32 the products hide the way from the L3 cache (H = 256 lost 2 to 4 %).
// gradients_in_L2: with what they meet there. Where a block's gradients of gates are more, what
//   reads them by rows comes first (H = 512 +4 % of training, H = 1024 on two threads +10 %).
// products_per_stretch: about a tenth of a second on one slow core.
// products_to_release: 10 us of work; letting go of the interpreter lock costs more than less.
// spins_before_yield: a few microseconds.
// pauses_before_sleep: tens of microseconds, longer than the gap between a busy caller's calls.
// pauses_before_nap: more than 2 ms. Yielding alone would wait for ever where the other has a lower
//   real-time priority and the same CPU.
// not_brief_us: a brief wait is microseconds; who waits longer waits for a thread that the system
//   has taken off its CPU.
// crowd_factor, crowd_most_factor: a time slice lost costs the late threads' use for as long as a
//   few of them, where that was all; where CPUs stay crowded, trials that find it out (a slice lost
//   at each step, 0.4 s of 100 steps measured) take 1/32 of the time and less.

/// What the model of cost is made of (schedule/cost_model.hpp): X(name, value where the L3 cache is
/// fast, the same of a Zen 5, where it is slow, what it is). `fastlstm tune` measures them.
#define FASTLSTM_COSTS(X)                                                                          \
  X(products_per_us, 55e3, 128e3, 78e3, "multiply-adds of a thread in a microsecond, in float32")  \
  X(bfloat16_weights_speed, 1, 1.04, 1, "times as fast as those: with weights of bfloat16,")       \
  X(int8_weights_speed, 1, 1, 1, "with weights of int8,")                                          \
  X(bfloat16_speed, 2, 2, 2, "of bfloat16,")                                                       \
  X(int8_speed, 3.4, 3.6, 3.4, "of int8")                                                          \
  X(thread_slows_products, 0.01, 0.002, 0.056,                                                     \
    "part by which each further thread slows the others")                                          \
  X(L1_bytes_per_us, 230e3, 460e3, 250e3, "bytes that a thread reads in a microsecond: L1 cache,") \
  X(L2_bytes_per_us, 116e3, 275e3, 115e3, "L2 cache,")                                             \
  X(L3_bytes_per_us, 98e3, 126e3, 25e3, "L3 cache,")                                               \
  X(memory_bytes_per_us, 20e3, 40e3, 12e3, "memory")                                               \
  X(thread_slows_L3, 0.05, 0.005, 0.1, "part by which each further reader slows the others: L3,")  \
  X(thread_slows_memory, 0.5, 0.5, 0.2, "memory")                                                  \
  X(overlap, 0.85, 0.85, 0.85, "part of the shorter of products and bytes that costs nothing")     \
  X(rows_to_overlap, 2, 2, 8, "rows from which it is that much; down to half of them, nothing")    \
  X(step_us, 0.06, 0.1, 0.1, "microseconds of a step of one row besides its products")             \
  X(gates_us, 6e-4, 1e-3, 5e-4, "the same for each row and unit")                                  \
  X(gates_us_backward, 1.2e-3, 1.2e-3, 1e-3, "the same of the backward pass")                      \
  X(gradients_slower, 1.1, 1.1, 1.1, "times as long as other products that those of weights take") \
  X(meeting_us, 0.12, 0.08, 1, "microseconds of a meeting of two threads")                         \
  X(meeting_us_per_thread, 0.05, 0.05, 0.08, "the same for each further one")                      \
  X(wake_us, 4, 6, 6, "microseconds to begin and end what two threads do together")                \
  X(exchange_bytes_per_us, 5e3, 5e3, 1e4,                                                          \
    "bytes of h that threads read of each other in a microsecond")                                 \
  X(wake_us_per_thread, 0.5, 0.5, 0.5, "the same for each further one")

/// The rest of what is tuned, in the same way.
#define FASTLSTM_TUNING(X)                                                                       \
  FASTLSTM_COSTS(X)                                                                              \
  X(products_per_thread, 5e5, 5e5, 5e5, "multiply-adds of a call that pay for waking a thread")  \
  X(steps_per_owner, 16, 16, 16, "steps for each thread that owns layers")                       \
  X(blocks_per_owner, 4, 4, 4, "blocks of steps for each thread that owns layers")               \
  X(alternate_rows, 384, 384, 384, "rows that a layer computes before the next one follows")     \
  X(projected_rows, 48, 48, 48, "rows of inputs that are projected at once")                     \
  X(few_inputs, 4, 4, 4, "inputs up to which they are not projected ahead of the steps")         \
  X(ahead_least_weights, 2e4, 2e4, 2e4, "weights from which inputs are projected ahead")         \
  X(ahead_most_weights, 4e6, 4e6, 4e6, "weights up to which they are")                           \
  X(ahead_most_bytes, 1e18, 8.3e5, 1 << 20, "the same in bytes, of a thread's share")            \
  X(rows_down, 24, 24, 24, "rows up to which every other step reads panels from the end")        \
  X(gradients_in_L2, 3 << 19, 3 << 19, 3 << 19,                                                  \
    "bytes of gradients that the L2 cache has room for")                                         \
  X(products_per_stretch, 1e9, 1e9, 1e9, "multiply-adds between two looks for an interruption")  \
  X(products_per_part, 2.5e8, 2.5e8, 2.5e8, "the same within a long step")                       \
  X(products_before_look, 2e9, 2e9, 2e9, "a thread's before the first look while others work")   \
  X(spinning_us, 20, 20, 20, "microseconds after a stream's step in which workers still spin")   \
  X(products_to_release, 2.5e5, 2.5e5, 2.5e5,                                                    \
    "multiply-adds worth letting go of the interpreter lock")                                    \
  X(spins_before_yield, 200, 200, 200, "spins before a waiting thread gives its CPU away")       \
  X(pauses_before_sleep, 300, 300, 300, "pauses before a worker without work sleeps")            \
  X(pauses_before_nap, 5000, 5000, 5000, "pauses before a thread that waits for another naps")   \
  X(nap_us, 50, 50, 50, "microseconds of a nap")                                                 \
  X(not_brief_us, 300, 300, 300, "microseconds of a wait at a step from which a thread is late") \
  X(crowd_factor, 4, 4, 4, "times as long as was waited for that late threads are given up")     \
  X(crowd_most_factor, 32, 32, 32, "the same at most, where they were late again and again")     \
  X(crowd_most_ms, 2000, 2000, 2000, "milliseconds that they are at most")                       \
  X(pieces_per_thread, 4, 4, 4, "pieces of 16384 values that are worth a thread to an optimiser")

struct Tuning {
#define FASTLSTM_FIELD(name, fast, zen5, slow, meaning) double name;
  FASTLSTM_TUNING(FASTLSTM_FIELD)
#undef FASTLSTM_FIELD
};

/// This machine's kind, by the CPU's maker, and its table.
Machine machine() noexcept;
const Tuning& tuning() noexcept;
/// The table of another kind.
const Tuning& tuning_of(Machine kind) noexcept;
/// Changes costs in the table of this machine, for calls from now on, to what was measured on it.
/// Throws std::invalid_argument for a name that is no cost's, and for a value that none can have.
void set_costs(const std::vector<std::pair<std::string, double>>& costs);

/// The table's value as a number, or a time, of these.
template <class N>
N tuned(double Tuning::* field) noexcept {
  return N(static_cast<std::int64_t>(tuning().*field));
}

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
