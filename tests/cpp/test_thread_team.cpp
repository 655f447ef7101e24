// The thread team and the plans for it.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.hpp"
#include "rnn/thread_plan.hpp"
#include "runtime/thread_team.hpp"

using namespace fastlstm;

TEST(every_rank_runs_once) {
  for (const int n : {1, 2, 5, 3, 1, 8, 2}) {  // the team grows, and leaves workers out
    NOTE("n = " << n);
    for (int round = 0; round < 200; ++round) {
      std::vector<int> runs(static_cast<std::size_t>(n),
                            0);  // no atomics: a region ends with a join
      CHECK(run_on_team(n, [&](int rank) noexcept { ++runs[static_cast<std::size_t>(rank)]; }));
      CHECK(runs == std::vector<int>(runs.size(), 1));
    }
  }
}

TEST(workers_wake_after_a_pause) {
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // they sleep by then
    std::atomic<int> runs{0};
    run_on_team(4, [&](int) noexcept { ++runs; });
    CHECK_EQUAL(runs.load(), 4);
  }
}

TEST(a_barrier_separates_phases) {
  constexpr int kThreads = 4, kPhases = 500;
  SpinBarrier barrier(kThreads);
  int written[kThreads] = {};
  std::atomic<bool> wrong{false};
  run_on_team(kThreads, [&](int rank) noexcept {
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

TEST(one_call_at_a_time_has_the_team) {
  run_on_team(2, [](int rank) noexcept {
    if (rank != 0) return;
    bool other = true;
    std::thread([&] { other = run_on_team(2, [](int) noexcept {}); }).join();
    if (other) std::terminate();
  });
  // Many callers: each region runs on the team or not at all.
  std::atomic<int> regions{0}, runs{0};
  std::vector<std::thread> callers;
  for (int k = 0; k < 4; ++k) {
    callers.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        if (run_on_team(3, [&](int) noexcept { ++runs; })) ++regions;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK_EQUAL(runs.load(), 3 * regions.load());
}

// ThreadSanitizer does not follow a process with threads into its fork.
#if !defined(__SANITIZE_THREAD__)
TEST(a_forked_child_has_a_team_of_its_own) {
  run_on_team(4, [](int) noexcept {});
  const pid_t child = fork();
  if (child == 0) {
    std::atomic<int> runs{0};
    alarm(20);  // instead of waiting for ever for workers that are not there
    run_on_team(4, [&](int) noexcept { ++runs; });
    _exit(runs == 4 ? 0 : 1);
  }
  int status = -1;
  CHECK_EQUAL(waitpid(child, &status, 0), child);
  CHECK_EQUAL(status, 0);
  std::atomic<int> runs{0};
  run_on_team(4, [&](int) noexcept { ++runs; });
  CHECK_EQUAL(runs.load(), 4);
}
#endif

TEST(plans_use_no_more_threads_than_allowed) {
  for (const Index H : {1, 20, 300}) {
    for (const Index B : {0, 1, 3, 8, 100}) {
      for (const bool bidirectional : {false, true}) {
        for (int threads = 1; threads <= 9; ++threads) {
          NOTE("H = " << H << ", B = " << B << ", threads = " << threads);
          const LstmConfig config{10, H, 2, 0, bidirectional};
          const ThreadPlan plan = plan_threads(config, RowSchedule(50, B, nullptr), threads, 3);
          CHECK(plan.rows >= 1 && plan.directions >= 1 && plan.units >= 1);
          CHECK(plan.threads() <= threads);
          CHECK(plan.rows == 1 || plan.rows <= B);
          CHECK(plan.directions <= config.directions());
        }
      }
    }
  }
}

TEST(little_work_stays_on_one_thread) {
  CHECK_EQUAL(plan_threads({4, 8}, RowSchedule(1, 1, nullptr), 8, 6).threads(), 1);
}
