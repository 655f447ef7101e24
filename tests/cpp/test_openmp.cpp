// Regions on OpenMP's threads, with a runtime of the test's own in its place.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "check.hpp"
#include "fastlstm/runtime.hpp"
#include "runtime/openmp.hpp"
#include "runtime/thread_team.hpp"

using namespace fastlstm;

namespace {

std::atomic<int> g_threads{0};  // that a region gets
std::atomic<int> g_regions{0};
thread_local int t_rank = 0;
thread_local int t_size = 1;

void parallel(void (*body)(void*), void* context, unsigned /*threads*/, unsigned /*flags*/) {
  ++g_regions;
  const int size = g_threads;
  const auto take_part = [=](int rank) {
    t_rank = rank;
    t_size = size;
    body(context);
    t_rank = 0;
    t_size = 1;
  };
  std::vector<std::thread> others;
  for (int rank = 1; rank < size; ++rank) others.emplace_back(take_part, rank);
  take_part(0);
  for (std::thread& other : others) other.join();
}

/// While it lives, calls of this thread are to run on OpenMP's threads, of which there are so many.
class WithOpenMp {
 public:
  explicit WithOpenMp(int threads) {
    g_threads = threads;
    g_regions = 0;
    set_openmp({&parallel, [] { return t_rank; }, [] { return t_size; },
                [] { return static_cast<int>(t_size > 1); }});
    set_thread_local_openmp(true);
  }
  ~WithOpenMp() { set_thread_local_openmp(false); }
  WithOpenMp(const WithOpenMp&) = delete;
  WithOpenMp& operator=(const WithOpenMp&) = delete;
};

/// Whether a lease for n threads runs every rank once, and no other.
bool runs_every_rank(int n) {
  TeamLease lease(n);
  CHECK(lease.granted());
  std::vector<int> runs(8, 0);
  lease.run([&](int rank) noexcept { ++runs[static_cast<std::size_t>(rank)]; });
  return std::count(runs.begin(), runs.end(), 1) == n;
}

}  // namespace

TEST(regions_run_on_openmps_threads) {
  const WithOpenMp openmp(4);
  for (const int n : {2, 4, 3}) {  // those that are left over do nothing
    CHECK(openmp_is_at_hand());
    CHECK(runs_every_rank(n));
  }
  CHECK_EQUAL(g_regions.load(), 3);
  CHECK(runs_every_rank(1));
  CHECK_EQUAL(g_regions.load(), 3);  // one thread is the caller's
}

TEST(each_caller_has_openmps_threads) {
  const WithOpenMp openmp(2);
  TeamLease lease(2);
  TeamLease other(2);
  CHECK(lease.granted());
  CHECK(other.granted());
}

TEST(only_calls_that_ask_for_them_run_on_them) {
  const WithOpenMp openmp(2);
  CHECK(set_thread_local_openmp(false));
  CHECK(runs_every_rank(2));
  CHECK_EQUAL(g_regions.load(), 0);
  CHECK(!set_thread_local_openmp(true));
  std::thread([] { CHECK(!openmp_is_at_hand()); }).join();
}

TEST(where_openmp_has_fewer_threads_the_team_does_it) {
  const WithOpenMp openmp(2);
  CHECK(runs_every_rank(3));
  CHECK_EQUAL(g_regions.load(), 1);
  CHECK(!openmp_is_at_hand());
  CHECK(runs_every_rank(3));
  CHECK_EQUAL(g_regions.load(), 1);  // it is not asked again
}

TEST(within_a_region_of_openmp_the_team_does_it) {
  const WithOpenMp openmp(2);
  parallel(
      [](void*) {
        set_thread_local_openmp(true);
        CHECK(!openmp_is_at_hand());
      },
      nullptr, 0, 0);
}
