#include "runtime/spin_barrier.hpp"

#include <algorithm>
#include <chrono>
#include <thread>

#include "runtime/compiler.hpp"
#include "runtime/crowding.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/tuning.hpp"

namespace fastlstm {

namespace {

using Clock = std::chrono::steady_clock;

/// Whether a word that counts phases, and goes round, has come to this one.
bool reached(unsigned word, unsigned phase) { return static_cast<int>(word - phase) >= 0; }

}  // namespace

bool Backoff::spins() const noexcept { return count_ < tuned<int>(&Tuning::spins_before_yield); }

bool Backoff::naps() const noexcept { return count_ >= tuned<int>(&Tuning::pauses_before_nap); }

void Backoff::pause() noexcept {
  if (naps()) {
    std::this_thread::sleep_for(tuned<std::chrono::microseconds>(&Tuning::nap_us));
    return;
  }
  if (spins()) {
    cpu_relax();
  } else {
    std::this_thread::yield();
  }
  ++count_;
}

/// How long a thread waits at one meeting, and who is late when that is no longer brief.
class SpinBarrier::Patience {
 public:
  Patience(SpinBarrier& barrier, int rank)
      : barrier_(barrier),
        rank_(rank),
        phase_(barrier.place(rank).arrived.load(std::memory_order_relaxed) + 1) {}

  void pause(Backoff& backoff) noexcept {
    if (backoff.spins()) return backoff.pause();
    const Clock::time_point before = Clock::now();
    if (start_ == Clock::time_point::max()) start_ = before;
    if (late_ == 0 && before - start_ >= brief()) count_late();
    const bool sleeps = backoff.naps();
    backoff.pause();
    if (sleeps) return;
    const Clock::duration took = Clock::now() - before;
    if (took > kYieldToNobody) given_away_ += took;
  }

  /// One of those that waited says how many were late: the first. Where two have one CPU, neither
  /// is late for long, but each gives it to the other at every meeting.
  void end() noexcept {
    if (start_ == Clock::time_point::max()) return;
    if (late_ > 0 && rank_ == first_to_wait_) {
      note_late_threads(barrier_.size_, late_, Clock::now() - start_);
    }
    Clock::duration& sum = barrier_.place(rank_).given_away;
    sum += given_away_;
    if (sum < brief()) return;
    note_late_threads(barrier_.size_, 1, sum);
    sum = Clock::duration::zero();
  }

 private:
  /// The system comes back sooner where no other thread waits for the CPU.
  static constexpr std::chrono::microseconds kYieldToNobody{2};

  static Clock::duration brief() { return tuned<std::chrono::microseconds>(&Tuning::not_brief_us); }

  void count_late() noexcept {
    for (int other = barrier_.size_ - 1; other >= 0; --other) {
      if (reached(barrier_.place(other).arrived, phase_)) {
        first_to_wait_ = other;
      } else {
        ++late_;
      }
    }
  }

  SpinBarrier& barrier_;
  const int rank_;
  const unsigned phase_;
  Clock::time_point start_ = Clock::time_point::max();  // of what is not spinning
  Clock::duration given_away_{};                        // of this thread's CPU, to others
  int late_ = 0;                                        // once it is not brief: how many
  int first_to_wait_ = 0;
};

SpinBarrier::SpinBarrier(int size, int most)
    : size_(size),
      most_(most > 1 ? most : 0),  // one meets nobody
      places_(new Place[static_cast<std::size_t>(most_)]),
      releases_(new Release[static_cast<std::size_t>((most_ + kGroup - 1) / kGroup)]) {}

void SpinBarrier::set_size(int size) noexcept {
  if (size == size_) return;
  size_ = size;
  // Threads that did not meet with the others begin where they are.
  for (int rank = 0; rank < most_; ++rank) {
    place(rank).arrived.store(0, std::memory_order_relaxed);
    place(rank).gathered.store(0, std::memory_order_relaxed);
    releases_[static_cast<std::size_t>(rank / kGroup)].phase.store(0, std::memory_order_relaxed);
  }
}

void SpinBarrier::wait(int rank) noexcept {
  if (size_ > 1) meet(rank, nullptr);
}

void SpinBarrier::wait_briefly(int rank) noexcept {
  if (size_ == 1) return;
  Patience patience(*this, rank);
  meet(rank, &patience);
  patience.end();
}

void SpinBarrier::await(const std::atomic<unsigned>& word, unsigned phase,
                        Patience* patience) noexcept {
  for (Backoff backoff; !reached(word.load(std::memory_order_acquire), phase);) {
    if (orphaned()) return;
    patience != nullptr ? patience->pause(backoff) : backoff.pause();
  }
}

void SpinBarrier::meet(int rank, Patience* patience) noexcept {
  const unsigned phase = place(rank).arrived.load(std::memory_order_relaxed) + 1;
  place(rank).arrived.store(phase, std::memory_order_release);
  if (size_ <= kMostInACircle) {
    for (int other = 0; other < size_; ++other) {
      if (other != rank) await(place(other).arrived, phase, patience);
    }
    return;
  }
  const int first = rank / kGroup * kGroup;
  Release& of_group = releases_[static_cast<std::size_t>(rank / kGroup)];
  if (rank != first) return await(of_group.phase, phase, patience);
  for (int other = first + 1; other < std::min(size_, first + kGroup); ++other) {
    await(place(other).arrived, phase, patience);
  }
  if (rank == 0) {
    for (int other = kGroup; other < size_; other += kGroup) {
      await(place(other).gathered, phase, patience);
    }
  } else {
    place(rank).gathered.store(phase, std::memory_order_release);
    await(releases_[0].phase, phase, patience);
  }
  of_group.phase.store(phase, std::memory_order_release);
}

}  // namespace fastlstm
