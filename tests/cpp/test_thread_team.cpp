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
#include "runtime/thread_team.hpp"
#include "schedule/thread_plan.hpp"

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
      barrier.wait();
      for (const int value : written) {
        if (value != phase) wrong = true;
      }
      barrier.wait();
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

TEST(plans_use_no_more_threads_than_allowed) {
  for (const Index H : {1, 20, 300}) {
    for (const Index B : {0, 1, 3, 8, 100}) {
      for (const bool bidirectional : {false, true}) {
        for (int threads = 1; threads <= 9; ++threads) {
          NOTE("H = " << H << ", B = " << B << ", threads = " << threads);
          set_num_threads(threads);
          const StackConfig config{10, H, 2, 0, bidirectional};
          const ThreadPlan plan = plan_threads(config, RowSchedule(50, B, nullptr), true);
          CHECK(plan.rows >= 1 && plan.directions >= 1 && plan.layers >= 1 && plan.units >= 1);
          CHECK(plan.threads() <= threads);
          CHECK(plan.rows == 1 || plan.rows <= B);
          CHECK(plan.directions <= config.directions());
        }
      }
    }
  }
}

TEST(threads_own_layers_where_steps_are_too_small_to_share_units) {
  set_num_threads(4);
  const auto plan = [](Index layers, Index T, bool alternate, Index H = 64) {
    return plan_threads({H, H, layers}, RowSchedule(T, 1, nullptr), alternate);
  };
  CHECK_EQUAL(plan(2, 200, true).layers, 2);
  CHECK_EQUAL(plan(8, 100, true).layers, 4);
  CHECK_EQUAL(plan(3, 200, true).layers, 1);
  CHECK_EQUAL(plan(2, 50, true).layers, 1);
  CHECK_EQUAL(plan(2, 200, false).layers, 1);
  CHECK_EQUAL(plan(2, 200, true, 256).layers, 1);
  CHECK_EQUAL(plan(2, 200, true, 256).units, 4);
}

TEST(threads_own_rows_where_there_are_enough) {
  set_num_threads(2);
  const auto plan = [](Index H, Index B, bool bidirectional = false) {
    return plan_threads({H, H, 1, 0, bidirectional}, RowSchedule(100, B, nullptr), true);
  };
  CHECK_EQUAL(plan(64, 4).rows, 2);
  CHECK_EQUAL(plan(256, 4).units, 2);
  CHECK_EQUAL(plan(256, 8).rows, 2);
  CHECK_EQUAL(plan(1024, 128).units, 2);
  CHECK_EQUAL(plan(256, 8, true).directions, 2);
  CHECK_EQUAL(plan(256, 48, true).rows, 2);
}

TEST(little_work_stays_on_one_thread) {
  set_num_threads(8);
  CHECK_EQUAL(plan_threads({4, 8}, RowSchedule(1, 1, nullptr), true).threads(), 1);
  CHECK_EQUAL(threads_worth(1), 1);
  CHECK_EQUAL(threads_worth(1e12), 8);
}

TEST(threads_do_not_meet_at_each_step_while_the_cpus_are_crowded) {
  set_num_threads(2);
  StackConfig config;
  config.input_size = config.hidden_size = 256;
  const RowSchedule rows(100, 1, nullptr);
  CHECK_EQUAL(plan_threads(config, rows, true).units, 2);
  SpinBarrier barrier(2);
  TeamLease(2).run([&](int rank) noexcept {
    if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    barrier.wait_briefly();
  });
  CHECK(cpus_are_crowded());
  CHECK_EQUAL(plan_threads(config, rows, true).threads(), 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK(cpus_are_crowded());
  std::this_thread::sleep_for(std::chrono::milliseconds(1950));  // the longest that it lasts
  CHECK(!cpus_are_crowded());
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
      barrier.wait();  // where some know of it before the others
      if (rank != 0) ended = interrupted(0);
      barrier.wait();
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
