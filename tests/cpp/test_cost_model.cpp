// The model of cost, and the plans that it makes: for this machine, and for others that are only
// numbers here.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "check.hpp"
#include "fastlstm/plan.hpp"
#include "fastlstm/runtime.hpp"
#include "runtime/crowding.hpp"
#include "schedule/thread_plan.hpp"

using namespace fastlstm;

namespace {

/// 16 CPUs of a Sapphire Rapids as a virtual machine has them: 2 MB of L2 each, no SMT that it
/// shows.
const Hardware kSapphireRapids{32 << 10, 2 << 20, 300 << 20, 16};
const Hardware kZen4{32 << 10, 1 << 20, 32 << 20, 2};

struct Shape {
  Index steps, B, H;
  CellKind cell = CellKind::kLstm;
  Index layers = 1;
  bool bidirectional = false;

  StackConfig config() const {
    StackConfig c;
    c.input_size = c.hidden_size = H;
    c.num_layers = layers;
    c.cell = cell;
    c.bidirectional = bidirectional;
    return c;
  }
};

std::ostream& operator<<(std::ostream& out, const ThreadPlan& plan) {
  return out << plan.rows << " x " << plan.directions << " x " << plan.layers << " x "
             << plan.units;
}

/// Plans and times on a machine.
class Simulated {
 public:
  Simulated(Machine kind, const Hardware& hardware)
      : hardware_(hardware), model_(tuning_of(kind), hardware_) {}

  ThreadPlan plan(const Shape& shape, int threads) const {
    const StackConfig config = shape.config();
    const RowSchedule rows(shape.steps, shape.B, nullptr);
    return best_plan(model_, CallShape(config, rows, 4, true), threads, threads);
  }
  double us(const Shape& shape, const ThreadPlan& plan) const {
    const StackConfig config = shape.config();
    const RowSchedule rows(shape.steps, shape.B, nullptr);
    return model_.forward(CallShape(config, rows, 4, true), plan).total();
  }
  BackwardPlan backward_plan(const Shape& shape, int threads) const {
    const StackConfig config = shape.config();
    const RowSchedule rows(shape.steps, shape.B, nullptr);
    return best_backward_plan(model_, CallShape(config, rows, 4, false), 0, {shape.B, false, false},
                              threads, threads);
  }
  double backward_us(const Shape& shape, const BackwardPlan& plan) const {
    const StackConfig config = shape.config();
    const RowSchedule rows(shape.steps, shape.B, nullptr);
    return model_.backward(CallShape(config, rows, 4, false), 0, plan).total();
  }

 private:
  const Hardware hardware_;
  const CostModel model_;
};

const std::vector<Shape> kShapes = {{1, 1, 256},
                                    {100, 1, 64},
                                    {100, 1, 128},
                                    {100, 1, 256},
                                    {100, 1, 512},
                                    {100, 1, 1024},
                                    {100, 8, 128},
                                    {100, 8, 256},
                                    {100, 32, 256},
                                    {50, 64, 512},
                                    {50, 128, 512},
                                    {20, 512, 256},
                                    {20, 128, 1024},
                                    {100, 1, 512, CellKind::kGru},
                                    {20, 128, 1024, CellKind::kGru},
                                    {100, 4, 64, CellKind::kLstm, 4},
                                    {50, 8, 128, CellKind::kLstm, 1, true}};

}  // namespace

TEST(divisions_that_make_the_largest_share_smaller) {
  const auto divisions = [](Index items, int most) {
    std::vector<int> all;
    for_each_division(items, most, [&](int k) { all.push_back(k); });
    return all;
  };
  CHECK(divisions(8, 16) == std::vector<int>({1, 2, 3, 4, 8}));
  CHECK(divisions(1, 16) == std::vector<int>({1}));
  CHECK(divisions(0, 16) == std::vector<int>({1}));
  CHECK(divisions(1000, 5) == std::vector<int>({1, 2, 3, 4, 5}));
}

TEST(plans_use_no_more_threads_than_allowed) {
  const Simulated machine(Machine::kSlowL3, kSapphireRapids);
  for (const Shape& shape : kShapes) {
    for (int threads = 1; threads <= 16; ++threads) {
      const ThreadPlan plan = machine.plan(shape, threads);
      NOTE("T = " << shape.steps << ", B = " << shape.B << ", H = " << shape.H
                  << ", threads = " << threads << ": " << plan);
      CHECK(plan.rows >= 1 && plan.directions >= 1 && plan.layers >= 1 && plan.units >= 1);
      CHECK(plan.threads() <= threads);
      CHECK(plan.rows <= shape.B);
      CHECK(shape.layers % plan.layers == 0);
      CHECK(plan.directions <= (shape.bidirectional ? 2 : 1));
      const BackwardPlan backward = machine.backward_plan(shape, threads);
      CHECK(backward.threads <= threads);
      CHECK(backward.groups * backward.units <= backward.threads);
    }
  }
}

// Without a cliff: what fewer threads can do, more can do as well.
TEST(more_allowed_threads_never_take_longer) {
  const Hardware many{32 << 10, 1 << 20, 256 << 20, 64};
  for (const Machine kind : {Machine::kSlowL3, Machine::kZen5, Machine::kFastL3}) {
    for (const Hardware& hardware : {kSapphireRapids, many}) {
      const Simulated machine(kind, hardware);
      for (const Shape& shape : kShapes) {
        double least = 1e300, least_backward = 1e300;
        for (int threads = 1; threads <= hardware.cpus; ++threads) {
          const ThreadPlan plan = machine.plan(shape, threads);
          NOTE("T = " << shape.steps << ", B = " << shape.B << ", H = " << shape.H
                      << ", threads = " << threads << ": " << plan);
          const double us = machine.us(shape, plan);
          CHECK(us <= 1.1 * least);
          least = std::min(least, us);
          const double back = machine.backward_us(shape, machine.backward_plan(shape, threads));
          CHECK(back <= 1.1 * least_backward);
          least_backward = std::min(least_backward, back);
        }
      }
    }
  }
}

// The rows of issue "Many cores", whose 16 CPUs were slower than 4 of them.
TEST(plans_for_sixteen_cores) {
  const Simulated machine(Machine::kSlowL3, kSapphireRapids);
  const auto plan = [&](const Shape& shape) { return machine.plan(shape, 16); };
  const auto speedup = [&](const Shape& shape) {
    return machine.us(shape, {}) / machine.us(shape, plan(shape));
  };
  // Rows and units at once: with rows alone every thread reads all weights from L3.
  for (const Shape& shape : {Shape{50, 64, 512}, Shape{50, 64, 512, CellKind::kGru},
                             Shape{20, 128, 1024}, Shape{20, 128, 1024, CellKind::kGru}}) {
    NOTE("H = " << shape.H << ": " << plan(shape));
    CHECK(plan(shape).units > 1);
    CHECK(machine.us(shape, plan(shape)) < 0.95 * machine.us(shape, {16, 1, 1, 1}));
  }
  CHECK(plan({50, 64, 512}).rows > 1);
  CHECK(machine.us({50, 64, 512}, plan({50, 64, 512})) <
        0.6 * machine.us({50, 64, 512}, {16, 1, 1, 1}));
  // No cliff: fewer threads than there are, where all of them do not pay.
  for (const Shape& shape : {Shape{100, 1, 128}, Shape{100, 1, 128, CellKind::kGru}}) {
    NOTE(plan(shape));
    CHECK(plan(shape).units > 1);
    CHECK(speedup(shape) > 1.2);
  }
  // Where a step is large enough to be shared, it is.
  for (const Shape& shape : {Shape{100, 1, 512}, Shape{100, 1, 512, CellKind::kGru},
                             Shape{100, 1, 1024}, Shape{100, 1, 1024, CellKind::kGru}}) {
    NOTE("H = " << shape.H << ": " << plan(shape));
    CHECK(plan(shape).units >= 8);
    CHECK(speedup(shape) > 8);
  }
  for (const Shape& shape : {Shape{100, 32, 256}, Shape{50, 128, 512}, Shape{20, 512, 256}}) {
    NOTE("B = " << shape.B << ": " << plan(shape));
    CHECK(plan(shape).threads() >= 12);
    CHECK(speedup(shape) > 6);
  }
  // Steps back: with few rows groups share columns.
  CHECK(machine.backward_plan({100, 1, 512}, 16).units > 4);
  const BackwardPlan batch = machine.backward_plan({50, 32, 512}, 16);
  CHECK(batch.units > 1 && batch.groups > 1);
}

// The times that were measured there, of plans that were in use: us by threads.
TEST(predictions_for_sixteen_cores) {
  const Simulated machine(Machine::kSlowL3, kSapphireRapids);
  struct Measured {
    Shape shape;
    ThreadPlan plan;
    double us;
  };
  const std::vector<Measured> all = {
      {{100, 1, 128}, {1, 1, 1, 1}, 325.9},      {{100, 1, 128}, {1, 1, 1, 2}, 297.9},
      {{100, 1, 128}, {1, 1, 1, 4}, 218.7},      {{100, 1, 256}, {1, 1, 1, 1}, 1281.9},
      {{100, 1, 256}, {1, 1, 1, 2}, 765.1},      {{100, 1, 256}, {1, 1, 1, 4}, 522.3},
      {{100, 1, 256}, {1, 1, 1, 8}, 371.2},      {{100, 1, 256}, {1, 1, 1, 16}, 439.7},
      {{100, 1, 512}, {1, 1, 1, 4}, 1734.3},     {{100, 1, 512}, {1, 1, 1, 8}, 977.3},
      {{100, 1, 512}, {1, 1, 1, 16}, 766},       {{100, 1, 1024}, {1, 1, 1, 1}, 62749.4},
      {{100, 1, 1024}, {1, 1, 1, 2}, 32819.5},   {{100, 8, 256}, {1, 1, 1, 1}, 5777.4},
      {{100, 32, 256}, {1, 1, 1, 1}, 22837.1},   {{100, 32, 256}, {2, 1, 1, 1}, 11665.3},
      {{100, 32, 256}, {8, 1, 1, 1}, 4319.2},    {{50, 64, 512}, {1, 1, 1, 1}, 87393.3},
      {{50, 64, 512}, {2, 1, 1, 1}, 44403.7},    {{50, 64, 512}, {8, 1, 1, 1}, 16991.6},
      {{50, 64, 512}, {16, 1, 1, 1}, 21453.6},   {{50, 128, 512}, {1, 1, 1, 1}, 171462.6},
      {{50, 128, 512}, {2, 1, 1, 1}, 90925.5},   {{50, 128, 512}, {16, 1, 1, 1}, 24954.9},
      {{20, 512, 256}, {1, 1, 1, 1}, 74499.5},   {{20, 512, 256}, {2, 1, 1, 1}, 39454.7},
      {{20, 512, 256}, {8, 1, 1, 1}, 13954.3},   {{20, 512, 256}, {16, 1, 1, 1}, 9663.9},
      {{20, 128, 1024}, {1, 1, 1, 1}, 269204.3}, {{20, 128, 1024}, {1, 1, 1, 2}, 136702.2},
      {{20, 128, 1024}, {1, 1, 1, 8}, 47543.3},  {{20, 128, 1024}, {1, 1, 1, 16}, 38890},
  };
  std::size_t near = 0;
  for (const Measured& m : all) {
    const double error = machine.us(m.shape, m.plan) / m.us - 1;
    if (std::abs(error) < 0.2) ++near;
  }
  NOTE(near << " of " << all.size() << " within 20 %");
  CHECK(10 * near >= 9 * all.size());
}

TEST(plans_for_two_cores) {
  const Simulated machine(Machine::kFastL3, kZen4);
  const auto plan = [&](const Shape& shape) { return machine.plan(shape, 2); };
  CHECK_EQUAL(plan({100, 1, 256}).units, 2);
  CHECK_EQUAL(plan({50, 32, 512}).threads(), 2);
  CHECK_EQUAL(plan({100, 32, 64}).rows, 2);
  CHECK_EQUAL(plan({100, 48, 256, CellKind::kLstm, 1, true}).threads(), 2);
  CHECK_EQUAL(plan({1, 1, 8}).threads(), 1);
}

// Fewer bytes, and more products in a microsecond: what is worth few threads is worth fewer.
TEST(small_weights_take_less) {
  const RowSchedule batch(50, 32, nullptr), row(50, 1, nullptr);
  const auto us = [](const Hardware& hardware, const RowSchedule& rows, Arithmetic arithmetic) {
    StackConfig config;
    config.input_size = config.hidden_size = 512;
    config.arithmetic = arithmetic;
    const CostModel model(tuning_of(Machine::kFastL3), hardware);
    return model.forward(CallShape(config, rows, 4, true), {}).total();
  };
  Hardware able = kZen4;
  able.has_pairs = able.has_fours = true;
  CHECK(us(able, batch, Arithmetic::kBfloat16) < 0.7 * us(able, batch, Arithmetic::kFull));
  CHECK(us(able, batch, Arithmetic::kInt8) < 0.7 * us(able, batch, Arithmetic::kBfloat16));
  CHECK(us(kZen4, batch, Arithmetic::kBfloat16) > 1.5 * us(able, batch, Arithmetic::kBfloat16));
  CHECK(us(kZen4, batch, Arithmetic::kInt8) > 1.5 * us(able, batch, Arithmetic::kInt8));
  for (const Arithmetic small : {Arithmetic::kBfloat16Weights, Arithmetic::kInt8}) {
    CHECK(us(kZen4, row, small) < 0.9 * us(kZen4, row, Arithmetic::kFull));
  }
}

TEST(little_work_stays_on_one_thread) {
  plan_for_cpus(64);
  set_num_threads(8);
  StackConfig config;
  config.input_size = 4;
  config.hidden_size = 8;
  const RowSchedule rows(1, 1, nullptr);
  CHECK_EQUAL(plan_threads(CallShape(config, rows, 4, true)).threads(), 1);
  CHECK_EQUAL(threads_worth(1), 1);
  CHECK_EQUAL(threads_worth(1e12), 8);
  plan_for_cpus(3);
  CHECK_EQUAL(threads_worth(1e12), 3);
  plan_for_cpus(64);
}

TEST(threads_that_lack_a_cpu_do_not_meet) {
  set_num_threads(8);
  StackConfig config;
  config.input_size = config.hidden_size = 1024;
  const RowSchedule rows(100, 1, nullptr);
  const CallShape call(config, rows, 4, true);
  forget_late_threads();
  CHECK(plan_threads(call).units > 2);
  note_late_threads(8, 6, std::chrono::seconds(10));
  CHECK(plan_threads(call).units <= 2);
  note_late_threads(2, 1, std::chrono::seconds(10));
  CHECK_EQUAL(plan_threads(call).threads(), 1);
  forget_late_threads();
  CHECK(plan_threads(call).units > 2);
}

TEST(a_forced_plan_is_the_plan_as_far_as_it_goes) {
  StackConfig config;
  config.input_size = config.hidden_size = 16;
  config.num_layers = 2;
  const RowSchedule rows(5, 3, nullptr);
  const ThreadPlan forced{4, 2, 2, 3};
  force_plan(&forced);
  const ThreadPlan plan = plan_threads(CallShape(config, rows, 4, true));
  CHECK_EQUAL(plan.rows, 3);
  CHECK_EQUAL(plan.directions, 1);
  CHECK_EQUAL(plan.layers, 2);
  CHECK_EQUAL(plan.units, 3);
  CHECK_EQUAL(plan_threads(CallShape(config, rows, 4, false)).layers, 1);
  force_plan(nullptr);
  CHECK_EQUAL(plan_threads(CallShape(config, rows, 4, true)).threads(), 1);
}

TEST(what_a_plan_tells) {
  set_num_threads(4);
  StackConfig config;
  config.input_size = config.hidden_size = 512;
  config.bidirectional = true;
  const std::vector<PlannedWork> works = plan_call(config, 4, 50, 32, nullptr, true, 0);
  CHECK_EQUAL(works.size(), std::size_t{3});  // forward, and two cells backward
  for (const PlannedWork& work : works) {
    CHECK(work.threads >= 1 && work.threads <= 4);
    double sum = 0, largest = 0;
    for (const auto& [name, us] : work.parts) {
      sum += us;
      largest = std::max(largest, us);
      if (std::string(name) == work.bound) CHECK(us >= largest);
    }
    CHECK(std::abs(sum / work.microseconds - 1) < 1e-9);
  }
  CHECK_EQUAL(plan_call(config, 4, 50, 32, nullptr, false, 0).size(), std::size_t{1});
}
