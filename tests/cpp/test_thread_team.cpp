// The thread team and the plans for it.
#if !defined(_WIN32)
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.hpp"
#include "fastlstm/runtime.hpp"
#include "runtime/crowding.hpp"
#include "runtime/spin_barrier.hpp"
#include "runtime/system.hpp"
#include "runtime/thread_team.hpp"

using namespace fastlstm;

namespace {

/// How many threads a lease for n of them runs something on.
int runs_on(int n) {
  std::atomic<int> runs{0};
  TeamLease(n).run([&](int) noexcept { ++runs; });
  return runs;
}

}  // namespace

TEST(every_rank_runs_once) {
  for (const int n : {1, 2, 5, 3, 1, 8, 2}) {  // the team grows, and leaves workers out
    NOTE("n = " << n);
    for (int round = 0; round < 50; ++round) {
      TeamLease lease(n);
      CHECK(lease.granted());
      CHECK_EQUAL(lease.threads(), n);
      for (int region = 0; region < 4; ++region) {
        std::vector<int> runs(static_cast<std::size_t>(n), 0);  // no atomics: a region is a join
        lease.run([&](int rank) noexcept { ++runs[static_cast<std::size_t>(rank)]; });
        CHECK_EQUAL(std::count(runs.begin(), runs.end(), 1), n);
      }
    }
  }
}

#if defined(__GLIBC__) && !defined(__SANITIZE_THREAD__)  // which makes stacks larger
TEST(workers_have_stacks_of_a_known_size) {
  std::size_t sizes[2] = {};
  TeamLease(2).run([&](int rank) noexcept {
    pthread_attr_t attributes;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstacksize(&attributes, &sizes[rank]);
    pthread_attr_destroy(&attributes);
  });
  CHECK_EQUAL(sizes[1], std::size_t{256} << 10);
}
#endif

TEST(every_task_runs_once) {
  for (const int n : {1, 3}) {
    TeamLease lease(n);
    for (const Index tasks : {0, 1, 2, 100}) {
      NOTE("n = " << n << ", tasks = " << tasks);
      std::vector<int> runs(static_cast<std::size_t>(tasks), 0);
      lease.run_tasks(tasks, [&](Index k, int) noexcept { ++runs[static_cast<std::size_t>(k)]; });
      CHECK_EQUAL(std::count(runs.begin(), runs.end(), 1), tasks);
    }
  }
}

TEST(workers_wake_after_a_pause) {
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // they sleep by then
    CHECK_EQUAL(runs_on(4), 4);
  }
}

TEST(a_barrier_separates_phases) {
  constexpr int kThreads = 4, kPhases = 500;
  SpinBarrier barrier(kThreads);
  int written[kThreads] = {};
  std::atomic<bool> wrong{false};
  TeamLease(kThreads).run([&](int rank) noexcept {
    for (int phase = 1; phase <= kPhases; ++phase) {
      written[rank] = phase;
      barrier.wait(rank);
      for (const int value : written) {
        if (value != phase) wrong = true;
      }
      barrier.wait(rank);
    }
  });
  CHECK(!wrong);
}

TEST(one_lease_at_a_time_has_the_team) {
  {
    TeamLease lease(2);
    TeamLease other(2);
    CHECK(lease.granted());
    CHECK(!other.granted());
    CHECK_EQUAL(other.threads(), 1);
    int runs = 0;
    other.run([&](int) noexcept { ++runs; });
    CHECK_EQUAL(runs, 1);
    CHECK(TeamLease(1).granted());
  }
  CHECK(TeamLease(2).granted());
  // Many callers at once.
  std::atomic<int> wanted{0}, runs{0};
  std::vector<std::thread> callers;
  for (int k = 0; k < 4; ++k) {
    callers.emplace_back([&] {
      for (int round = 0; round < 300; ++round) {
        TeamLease lease(3);
        wanted += lease.threads();
        lease.run([&](int) noexcept { ++runs; });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQUAL(runs.load(), wanted.load());
}

// ThreadSanitizer does not follow a process with threads into its fork.
#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)
TEST(a_forked_child_has_a_team_of_its_own) {
  if (std::getenv("FASTLSTM_TEST_NO_FORK") != nullptr) return;  // CMakeLists.txt says when
  TeamLease held(4);  // the child does not inherit the lease either
  held.run([](int) noexcept {});
  const pid_t child = fork();
  if (child == 0) {
    alarm(200);  // instead of waiting for ever for workers that are not there
    _exit(runs_on(4) == 4 ? 0 : 1);
  }
  int status = -1;
  CHECK_EQUAL(waitpid(child, &status, 0), child);
  CHECK_EQUAL(status, 0);
}
#endif

TEST(threads_meet_whatever_their_number) {
  for (const int n : {1, 2, 3, 4, 5, 8, 9, 16, 17, 40, 64, 66}) {
    NOTE("n = " << n);
    SpinBarrier barrier(1, n);
    barrier.set_size(n);
    const int phases = n > 16 ? 4 : 50;
    std::vector<int> written(static_cast<std::size_t>(n), 0);  // no atomics: a meeting orders them
    std::atomic<bool> wrong{false};
    TeamLease(n).run([&](int rank) noexcept {
      for (int phase = 1; phase <= phases; ++phase) {
        written[static_cast<std::size_t>(rank)] = phase;
        phase % 2 == 0 ? barrier.wait(rank) : barrier.wait_briefly(rank);
        for (const int value : written) {
          if (value != phase) wrong = true;
        }
        barrier.wait(rank);
      }
    });
    CHECK(!wrong);
    barrier.set_size(1);
    barrier.wait(0);
  }
  forget_late_threads();
}

namespace {

/// A meeting of n threads to which the last `late` of them come after so many ms.
void meet_late(int n, int late, int ms) {
  SpinBarrier barrier(n);
  TeamLease(n).run([&](int rank) noexcept {
    if (rank >= n - late) std::this_thread::sleep_for(std::chrono::milliseconds(ms));
    barrier.wait_briefly(rank);
  });
}

}  // namespace

TEST(threads_that_are_late_are_given_up_for_a_while) {
  forget_late_threads();
  CHECK_EQUAL(threads_that_may_meet(16), 16);
  const auto start = std::chrono::steady_clock::now();
  note_late_threads(16, 1, std::chrono::milliseconds(40));
  const int one_less = threads_that_may_meet(16), of_few = threads_that_may_meet(4);
  note_late_threads(15, 3, std::chrono::milliseconds(40));  // known: the same disturbance
  const int four_less = threads_that_may_meet(16);
  if (std::chrono::steady_clock::now() - start < std::chrono::milliseconds(100)) {
    CHECK_EQUAL(one_less, 15);
    CHECK_EQUAL(of_few, 4);
    CHECK_EQUAL(four_less, 12);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(330));  // 4 times as long as was waited
  CHECK_EQUAL(threads_that_may_meet(16), 16);
  // Late again soon: twice as long. And never less than one thread.
  note_late_threads(2, 2, std::chrono::milliseconds(40));
  CHECK_EQUAL(threads_that_may_meet(16), 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(330));
  CHECK_EQUAL(threads_that_may_meet(16), 16);
  forget_late_threads();
}

TEST(threads_that_were_held_up_are_given_up_where_that_is_faster) {
  const auto may_share = [](const std::vector<double>& parts, int ms) {
    forget_late_threads();
    CpuWatch watch(true);
    const std::chrono::nanoseconds all = std::chrono::milliseconds(ms);
    for (const double part : parts) {
      watch.note(all, std::chrono::nanoseconds(static_cast<std::int64_t>(part * 1e6 * ms)));
    }
    watch.end();
    return threads_that_may_share(16);
  };
  std::vector<double> one_slow(16, 1.0), two_slow(16, 1.0), all_slow(16, 0.5);
  one_slow[3] = two_slow[0] = two_slow[9] = 0.5;
  CHECK_EQUAL(may_share(one_slow, 1000), 15);
  CHECK_EQUAL(may_share(two_slow, 1000), 14);
  CHECK_EQUAL(may_share(all_slow, 1000), 16);  // fewer would have no more
  CHECK_EQUAL(may_share({1, 0.5}, 1000), 16);  // one with a CPU is no faster than two halves
  CHECK_EQUAL(may_share({1, 0.1}, 1000), 1);
  CHECK_EQUAL(may_share({1, 1, 0.9}, 1000), 16);  // nor are two
  CHECK_EQUAL(may_share({1, 1, 0.3, 1}, 0), 16);  // brief
  CHECK_EQUAL(may_share({1, 1, 0.3, 1}, 1000), 3);
  CHECK_EQUAL(threads_that_may_meet(16), 16);
  forget_late_threads();
}

TEST(a_thread_that_sleeps_has_no_cpu) {
  if (thread_cpu_time() == std::chrono::nanoseconds::zero()) return;  // the system does not say
  const auto may_share_after_sleep_of = [](int sleepers, double products) {
    forget_late_threads();
    TeamLease(3, products).run_parts([&](int rank) noexcept {
      if (rank > 0 && rank <= sleepers) {
        std::this_thread::sleep_for(std::chrono::milliseconds(300));
      } else {
        const std::chrono::nanoseconds start = thread_cpu_time();
        while (thread_cpu_time() - start < std::chrono::milliseconds(5)) continue;
      }
    });
    return threads_that_may_share(3);
  };
  CHECK(may_share_after_sleep_of(1, 1e12) < 3);  // 2, where the others have a CPU each
  CHECK(may_share_after_sleep_of(2, 1e12) < 3);
  CHECK_EQUAL(may_share_after_sleep_of(2, 0), 3);  // not looked at
  forget_late_threads();
}

TEST(a_meeting_tells_who_was_late) {
  // The caller's thread waits, or another where it is the late one.
  for (const int n : {2, 4, 6, 20}) {
    for (const int late : {1, 2, n}) {
      if (late == n && n != 2) continue;
      NOTE("n = " << n << ", late = " << late);
      forget_late_threads();
      if (late == n) {  // both: nobody waits long
        meet_late(n, late, 1);
        continue;
      }
      // What is told holds for a while, which may be over where all wait for CPUs.
      int may = n;
      for (int tries = 0; tries < 5 && may > n - late; ++tries) {
        forget_late_threads();
        meet_late(n, late, 60);
        may = threads_that_may_meet(n);
        CHECK(may >= 1);
      }
      CHECK(may <= n - late);  // others may lack a CPU here
    }
  }
  forget_late_threads();
}

namespace {

/// Works until the region is interrupted, with meetings between which the caller's thread, rank 0,
/// does not look: all then know the same.
void work(int n) {
  TeamLease lease(n);
  SpinBarrier barrier(lease.threads());
  lease.run([&](int rank) noexcept {
    for (bool ended = false; !ended;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      ended = interrupted(1e9);
      barrier.wait(rank);  // where some know of it before the others
      if (rank != 0) ended = interrupted(0);
      barrier.wait(rank);
    }
  });
}

}  // namespace

TEST(an_interruption_ends_a_region) {
  struct Interruption {};
  set_interrupt_check([] { throw Interruption(); });
  for (const int n : {1, 2, 3}) {
    NOTE("n = " << n);
    CHECK_THROWS(work(n), Interruption);
    CHECK_EQUAL(runs_on(n), n);  // the team is free again
  }
  set_interrupt_check(nullptr);
}

// What interrupts a region may make another, which is not interrupted with it.
TEST(a_region_within_an_interruption) {
  static std::atomic<int> runs{0};
  struct Interruption {};
  set_interrupt_check([] {
    runs += runs_on(2);
    CHECK(interrupted(0) == false);
    throw Interruption();
  });
  CHECK_THROWS(work(2), Interruption);
  CHECK_EQUAL(runs.load(), 1);  // the team is taken
  set_interrupt_check(nullptr);
}

#if !defined(_WIN32) && !defined(__SANITIZE_THREAD__)  // which dies of a fork with threads
TEST(a_fork_in_the_middle_of_a_region) {
  if (std::getenv("FASTLSTM_TEST_NO_FORK") != nullptr) return;
  static pid_t child = -1;
  static int forks = 0;
  set_interrupt_check([] {
    if (forks++ == 0) child = fork();
    if (child != 0 && forks > 2) throw 1;  // the parent goes on for a while
  });
  bool thrown = false, ended = false;
  try {
    work(2);
  } catch (const std::runtime_error&) {
    thrown = true;
  } catch (int) {
    ended = true;
  }
  if (child == 0) _exit(thrown && runs_on(2) == 2 ? 0 : 1);
  CHECK(ended);
  int status = -1;
  CHECK_EQUAL(waitpid(child, &status, 0), child);
  CHECK_EQUAL(status, 0);
  set_interrupt_check(nullptr);
}
#endif
