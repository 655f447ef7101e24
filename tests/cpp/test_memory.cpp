// Memory: what passes say that they take is what they allocate, and what a tape leaves behind.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "passes/direction_backward.hpp"
#include "passes/forward.hpp"
#include "passes/memory_plan.hpp"
#include "passes/saved.hpp"
#include "passes/segments.hpp"
#include "runtime/crowding.hpp"
#include "runtime/fixed_vector.hpp"

namespace {

/// Bytes that were asked for: all, and those of buffers, which stand at cache lines.
struct Allocated {
  std::size_t all = 0, buffers = 0;
};
Allocated now, peak;

constexpr std::size_t kLine = 64;

/// The size stands before the memory, in as much as keeps it aligned.
void* allocate(std::size_t bytes, std::size_t alignment) {
  const std::size_t whole = (bytes + alignment + alignment - 1) / alignment * alignment;
  void* const memory = std::aligned_alloc(alignment, whole);
  if (memory == nullptr) throw std::bad_alloc();
  *static_cast<std::size_t*>(memory) = bytes;
  now.all += bytes;
  if (alignment == kLine) now.buffers += bytes;
  peak.all = std::max(peak.all, now.all);
  peak.buffers = std::max(peak.buffers, now.buffers);
  return static_cast<char*>(memory) + alignment;
}

[[gnu::noinline]] void release(void* p, std::size_t alignment) noexcept {
  if (p == nullptr) return;
  void* const memory = static_cast<char*>(p) - alignment;
  const std::size_t bytes = *static_cast<std::size_t*>(memory);
  now.all -= bytes;
  if (alignment == kLine) now.buffers -= bytes;
  std::free(memory);
}

constexpr std::size_t kUsual = alignof(std::max_align_t);

}  // namespace

void* operator new(std::size_t bytes) { return allocate(bytes, kUsual); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, kUsual);
}
void operator delete(void* p) noexcept { release(p, kUsual); }
void operator delete(void* p, std::size_t) noexcept { release(p, kUsual); }
void operator delete(void* p, const std::nothrow_t&) noexcept { release(p, kUsual); }
void operator delete(void* p, std::align_val_t alignment) noexcept {
  release(p, static_cast<std::size_t>(alignment));
}
void operator delete(void* p, std::size_t, std::align_val_t alignment) noexcept {
  release(p, static_cast<std::size_t>(alignment));
}

using namespace fastlstm;

namespace {

// Nobody looks at results here.
BlasTable idle_blas() {
  BlasTable table;
  table.sgemm = [](char*, char*, int*, int*, int*, float*, float*, int*, float*, int*, float*,
                   float*, int*) {};
  table.dgemm = [](char*, char*, int*, int*, int*, double*, double*, int*, double*, int*, double*,
                   double*, int*) {};
  return table;
}

const bool blas_given = (set_blas(idle_blas()), true);

/// The most that body has at one time, besides what was there.
template <class Body>
Allocated most_of(Body body) {
  const Allocated before = now;
  peak = now;
  body();
  return {peak.all - before.all, peak.buffers - before.buffers};
}

Index index(std::size_t n) { return static_cast<Index>(n); }

struct Case {
  std::string name;
  StackConfig config;
  Regularisation regularisation;
};

constexpr Index kI = 40, kH = 70, kB = 12, kSteps = 30;

/// What is not counted: objects, barriers and small vectors, 5032 bytes at most.
constexpr Index kVectors = 6 << 10;

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const CellFacts& cell : kCells) {
    StackConfig config{kI, kH, 2};
    config.cell = cell.kind;
    const std::string name = cell.name;
    all.push_back({name, config, {}});
    all.push_back({name + ", dropouts", config, {0.3, 1, 0.2, 0.1}});
    config.options.zoneout_h = 0.1;
    all.push_back({name + ", zoneout of h", config, {0, 1, 0, 0, true}});
    config.num_layers = 3;
    config.bidirectional = true;
    all.push_back({name + ", two directions", config, {0.3, 1, 0.2}});
    config.merge = Merge::kMul;
    config.num_layers = 1;
    all.push_back({name + ", merged", config, {0, 1, 0.2}});
  }
  const auto add = [&](const char* name, auto change) {
    StackConfig config{kI, kH, 2};
    change(config);
    all.push_back({name, config, {}});
    config.options.zoneout_c = 0.1;
    all.push_back({std::string(name) + ", regularised", config, {0.3, 1, 0.2, 0.1, true}});
  };
  add("projection", [](StackConfig& c) { c.proj_size = 50; });
  add("peepholes", [](StackConfig& c) { c.options.peepholes = true; });
  add("functions", [](StackConfig& c) { c.options.candidate = {ActivationKind::kSoftsign}; });
  add("layer normalisation", [](StackConfig& c) { c.options.layer_norm = true; });
  add("layer normalisation, projection, reverse", [](StackConfig& c) {
    c.options.layer_norm = c.reverse = true;
    c.proj_size = 50;
  });
  return all;
}

/// A call's arrays, and its layers.
template <class T>
struct Call {
  explicit Call(const StackConfig& config_, bool batch_first = false, Index steps = kSteps)
      : config(config_) {
    Random random(3);
    const auto draw = [&](Index n) {
      arrays.push_back(random.values<T>(n, -0.1, 0.1));
      return arrays.back().data();
    };
    arrays.reserve(1000);  // they stay where they are
    for (Index b = 0; b < kB; ++b) lengths.push_back(steps - b % 5);
    for (Index k = 0; k < config.cells(); ++k) {
      CellParams<const T>& given = params.emplace_back();
      CellParams<T>& wanted = d_params.emplace_back();
      for (const auto& parameter : parameters_of<const T>(config, k / config.directions())) {
        given.*parameter.field = draw(parameter.size());
      }
      for (const auto& parameter : parameters_of<T>(config, k / config.directions())) {
        wanted.*parameter.field = draw(parameter.size());
      }
    }
    const auto sequence = [&](Index width) -> SequenceView<T> {
      T* const data = draw(steps * kB * width);
      if (batch_first) return {data, width, steps * width};
      return {data, kB * width, width};
    };
    forward.steps = steps;
    forward.B = kB;
    forward.lengths = lengths.data();
    const SequenceView<T> x = sequence(config.input_size);
    forward.x = {x.data, x.stride_t, x.stride_b};
    forward.output = sequence(config.merged_size());
    const SequenceView<T> d_output = sequence(config.merged_size());
    backward.d_output = {d_output.data, d_output.stride_t, d_output.stride_b};
    backward.d_x = sequence(config.input_size);
    const std::vector<StatePart> parts = config.state_parts();
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const Index n = config.cells() * kB * parts[p].width;
      forward.state_0[p] = draw(n);
      forward.state_n[p] = draw(n);
      backward.d_state_n[p] = draw(n);
      backward.d_state_0[p] = draw(n);
    }
    backward.d_params = d_params.data();
  }

  Stack<T> stack() const { return Stack<T>(config, params.data()); }

  Layers<T> layers() const {
    Layers<T> all(config);
    for (Index k = 0; k < config.cells(); ++k) {
      all.set_params(k, params[static_cast<std::size_t>(k)]);
    }
    return all;
  }

  StackConfig config;
  std::vector<std::vector<T>> arrays;
  std::vector<Index> lengths;
  std::vector<CellParams<const T>> params;
  std::vector<CellParams<T>> d_params;
  ForwardCall<T> forward;
  BackwardCall<T> backward;
};

/// The buffers that are allocated are those that were counted, and there is little else.
void check_bytes(const Allocated& got, Count counted) {
  NOTE("all " << got.all << ", buffers " << got.buffers << ", counted " << counted.get());
  CHECK_EQUAL(index(got.buffers), counted.get());
  CHECK(index(got.all) <= counted.get() + kVectors);
}

template <class T>
void check_passes() {
  set_num_threads(1);
  for (const Case& c : cases()) {
    NOTE(c.name);
    const Call<T> call(c.config);
    const StackConfig& config = c.config;
    const Index D = config.directions(), P = config.output_size(), H = config.hidden_size;
    const RowSchedule rows(kSteps, kB, call.lengths.data());

    Room counts(Room::Use::kCounts);
    const Layers<T> layers = call.layers();
    Saved<T>(layers, rows, true, counts);
    std::unique_ptr<Saved<T>> saved;
    RowSchedule of_saved = rows;
    Layers<T> same_layers = layers;
    check_bytes(most_of([&] {
                  saved = std::make_unique<Saved<T>>(std::move(same_layers), std::move(of_saved),
                                                     c.regularisation, true);
                }),
                counts.bytes());
    saved->save_state(call.forward.state_0);
    check_bytes(
        most_of([&] { forward_layers(saved->layers, call.forward, saved->rows, saved.get()); }),
        forward_bytes(layers, rows, c.regularisation));

    Allocated backward;
    for (Index k = 0; k < config.cells(); ++k) {
      const Index I = config.layer_input_size(k / D);
      Buffer<T> dropped, d_x(rows.rows(), I), d_h(kB, P), d_memory(kB, config.memory_size());
      Buffer<T> d_h_past_R(kB, H), d_output(rows.rows(), D * P);
      for (Buffer<T>* zeros : {&d_x, &d_h, &d_memory, &d_h_past_R, &d_output}) zeros->fill_zero();
      DirectionBackward<T> run{layers, k, rows, c.regularisation};
      run.plan = plan_direction(layers, k, rows, kB);
      run.call_B = kB;
      run.x = layer_input(*saved, k / D, rows, 0, dropped);
      run.steps.h_0 = saved->h_0_of(k);
      run.steps.memory_0 = saved->memory_0_of(k);
      run.steps.output = saved->output(k / D) + k % D * P;
      run.steps.ld_output = D * P;
      run.steps.gates = saved->gates(k);
      run.steps.memory = saved->memory(k);
      run.steps.d_output = d_output.data() + k % D * P;
      run.steps.d_h = d_h.data();
      run.steps.d_memory = d_memory.data();
      if (layers.cell->keeps_h_apart()) run.steps.d_h_past_R = d_h_past_R.data();
      run.d_x = d_x.data();
      run.add_to_d_x = k % D > 0;
      run.d_params = call.d_params[static_cast<std::size_t>(k)];
      TeamLease team(1);
      direction_backward(run, team);  // packs weights, which stay
      const Allocated of_cell = most_of([&] { direction_backward(run, team); });
      backward.all = std::max(backward.all, of_cell.all);
      backward.buffers = std::max(backward.buffers, of_cell.buffers);
    }
    check_bytes(backward, direction_backward_bytes(layers, rows, c.regularisation));
  }
}

/// The most that a training call within a limit and its backward pass have at one time, when the
/// weights are packed, which stay.
template <class T>
Index most_of_training(const Stack<T>& stack, const Call<T>& call,
                       const Regularisation& regularisation, Index limit) {
  const Call<T> few(call.config, false, 5);
  const Index no_limit = std::numeric_limits<Index>::max();  // but none that leaves memory behind
  stack.forward_train(few.forward, regularisation, no_limit).backward(few.backward);
  return index(most_of([&] {
                 stack.forward_train(call.forward, regularisation, limit).backward(call.backward);
               }).all);
}

}  // namespace

TEST(counting) {
  Room counts(Room::Use::kCounts), allocates;
  Buffer<float> empty, full;
  counts.add(empty, 3, 5);
  allocates.add(full, 3, 5);
  CHECK(counts.counts() && !allocates.counts());
  CHECK_EQUAL(empty.size(), 0);
  CHECK_EQUAL(full.size(), 15);
  for (const Room& room : {counts, allocates}) CHECK_EQUAL(room.bytes().get(), 60);
  allocates.add(full, 0, 5);  // of nothing
  CHECK_EQUAL(full.size(), 15);
  CHECK_EQUAL(allocates.bytes().get(), 60);

  constexpr Index kHuge = std::numeric_limits<Index>::max();
  CHECK_EQUAL((Count(kHuge - 1) + 1).get(), kHuge);
  CHECK_EQUAL(most(Count(3), Count(2)).get(), 3);
  CHECK_THROWS(Count(kHuge) + 1, std::bad_alloc);
  CHECK_THROWS(Count(kHuge / 2 + 1) * 2, std::bad_alloc);
  CHECK_THROWS(counts.add(empty, kHuge / 4 + 1), std::bad_alloc);
}

TEST(passes_take_what_they_say_float32) { check_passes<float>(); }

TEST(passes_take_what_they_say_float64) { check_passes<double>(); }

namespace {

/// Has calls planned for one thread for up to two seconds, as after another that got no CPU.
void lose_threads() {
  constexpr std::chrono::milliseconds kCall{1000};
  CpuWatch watch(true);
  watch.note(kCall, kCall);
  watch.note(kCall, kCall / 10);
  watch.end();
}

}  // namespace

// Predictions are not below what is taken but for small vectors, and not far above.
TEST(training_takes_what_is_predicted) {
  for (const Case& c : cases()) {
    for (const int threads : {1, 2}) {
      const bool batch_first = threads > 1;
      NOTE(c.name << ", threads = " << threads << ", batch first " << batch_first);
      set_num_threads(threads);
      const Call<double> call(c.config, batch_first);
      const Stack<double> stack = call.stack();
      const auto predicted = [&](Index limit) {
        return stack
            .training_memory(kSteps, kB, call.lengths.data(), batch_first, c.regularisation, limit)
            .bytes;
      };
      forget_late_threads();
      const Index whole = predicted(0);
      lose_threads();
      CHECK_EQUAL(predicted(0), whole);  // the call may have them again
      forget_late_threads();
      const Index taken = most_of_training(stack, call, c.regularisation, whole);
      NOTE("taken " << taken << ", predicted " << whole);
      CHECK(taken <= whole + kVectors);
      CHECK(taken > whole / 10 * 8);
    }
  }
  set_num_threads(1);
}

// Of several segments of steps.
TEST(training_takes_no_more_than_its_limit) {
  constexpr Index kLong = 250;
  set_num_threads(1);
  for (const Case& c : cases()) {
    NOTE(c.name);
    const Call<float> call(c.config, true, kLong);
    const Stack<float> stack = call.stack();
    const auto predicted = [&](Index limit) {
      return stack.training_memory(kLong, kB, call.lengths.data(), true, c.regularisation, limit)
          .bytes;
    };
    const Index limit = predicted(0) / 10 * 9;
    const Index taken = most_of_training(stack, call, c.regularisation, limit);
    NOTE("taken " << taken << ", predicted " << predicted(limit) << ", limit " << limit);
    CHECK(predicted(limit) <= limit);
    CHECK(taken <= predicted(limit) + kVectors);
  }
}

TEST(a_prediction_that_no_integer_holds_is_no_memory) {
  const Layers<float> layers({1, std::numeric_limits<std::int32_t>::max() / 8});
  const RowSchedule rows(1 << 16, 1 << 16, nullptr);
  CHECK_THROWS(plan_memory(layers, rows, {}, true, 0), std::bad_alloc);
}

// The second of two calls takes over the large arrays of the first.
TEST(a_tape_leaves_its_memory_to_the_next) {
  set_num_threads(1);
  const Call<float> call({kI, kH, 2}), shorter({kI, kH, 2});
  ForwardCall<float> few = shorter.forward;
  few.steps = 7;
  few.lengths = nullptr;
  const Stack<float> stack = call.stack();
  const auto taken = [&](const ForwardCall<float>& forward, Index limit) {
    return index(most_of([&] { stack.forward_train(forward, {}, limit); }).all);
  };
  // x, outputs, gates and c of all layers.
  Index rows = 0;
  for (const Index length : call.lengths) rows += length;
  const Index arrays = rows * (kI + 2 * 6 * kH) * static_cast<Index>(sizeof(float));
  const Index left = arrays + static_cast<Index>(sizeof(SavedArrays<float>));
  const Index fresh = taken(call.forward, 0);
  const std::vector<float> output = call.arrays[static_cast<std::size_t>(
      std::find_if(call.arrays.begin(), call.arrays.end(),
                   [&](const auto& array) { return array.data() == call.forward.output.data; }) -
      call.arrays.begin())];
  CHECK(fresh >= arrays);
  CHECK_EQUAL(taken(call.forward, 0), fresh - left);
  CHECK(std::equal(output.begin(), output.end(), call.forward.output.data));
  CHECK(taken(few, 0) < arrays / 4);
  CHECK_EQUAL(taken(call.forward, 0), fresh - left);  // still as large
  // One tape at a time has them.
  {
    const Tape<float> tape = stack.forward_train(call.forward, {});
    CHECK_EQUAL(taken(call.forward, 0), fresh);
  }
  CHECK_EQUAL(taken(call.forward, 0), fresh - left);
  // A call under a limit releases them first, and leaves none.
  const std::size_t before = now.all;
  const Index whole = stack.training_memory(few.steps, kB, nullptr, false, {}, 0).bytes;
  {
    const Tape<float> tape = stack.forward_train(few, {}, whole);
    CHECK(index(before - now.all) > left / 2);
  }
  CHECK_EQUAL(index(before - now.all), left);
  CHECK_EQUAL(taken(call.forward, 0), fresh);
}

TEST(spare_arrays) {
  Spare<SavedArrays<float>> spare;
  CHECK_EQUAL(spare.take()->bytes(), 0);
  const auto sized = [](Index n) {
    auto arrays = std::make_unique<SavedArrays<float>>();
    arrays->gates.resize(n);
    return arrays;
  };
  spare.put(sized(100));
  CHECK_EQUAL(spare.take()->bytes(), 400);
  CHECK_EQUAL(spare.take()->bytes(), 0);  // taken
  spare.put(sized(100));
  spare.put(sized(200));
  CHECK_EQUAL(spare.take()->bytes(), 800);
  // What is larger is released at once, with what was there.
  spare.put(sized(100));
  spare.put(sized(spare.kMostBytes / 4 + 1));
  CHECK_EQUAL(spare.take()->bytes(), 0);
}

namespace {

struct Neighbour {
  explicit Neighbour(const Neighbour* before_) : before(before_) {
    if (alive == 3) throw std::runtime_error("a fourth");
    ++alive;
  }
  ~Neighbour() { --alive; }
  Neighbour(const Neighbour&) = delete;
  Neighbour& operator=(const Neighbour&) = delete;

  const Neighbour* before;
  static inline int alive = 0;
};

}  // namespace

TEST(a_fixed_vector_has_room_for_its_objects_alone) {
  const std::size_t before = now.all;
  {
    const FixedVector<Neighbour> none(0);
    CHECK(none.full() && none.begin() == none.end());
    CHECK_EQUAL(now.all, before);
    FixedVector<Neighbour> some(4);
    CHECK_EQUAL(now.all, before + 4 * sizeof(Neighbour));
    const Neighbour* last = nullptr;
    for (int k = 0; k < 3; ++k) last = &some.emplace_back(last);
    CHECK(last == &some.back() && some[2].before == &some[1] && some[1].before == &some.front());
    CHECK_THROWS(some.emplace_back(last), std::runtime_error);
    CHECK(some.size() == 3 && !some.full() && some.end() - some.begin() == 3);
    CHECK_EQUAL(now.all, before + 4 * sizeof(Neighbour));
  }
  CHECK_EQUAL(Neighbour::alive, 0);
  CHECK_EQUAL(now.all, before);
}

// W is packed for gradients of x, and R for gradients through time, when they are first asked for.
TEST(weights_are_packed_when_they_are_asked_for) {
  set_num_threads(1);
  const Call<double> call({kI, kH});
  const Stack<double> stack = call.stack();
  const Index size = static_cast<Index>(sizeof(double));
  const Index W = backward_columns<double>(kI) * 4 * kH * size;
  const Index R = backward_columns<double>(kH) * 4 * kH * size;
  const auto kept_by = [&](auto body) {
    const std::size_t before = now.buffers;
    body();
    return index(now.buffers - before);
  };
  CHECK_EQUAL(kept_by([&] { stack.forward(call.forward); }), 0);
  const Tape<double> tape = stack.forward_train(call.forward, {});
  BackwardCall<double> nothing, states = call.backward, all = call.backward;
  const CellParams<double> none;
  nothing.d_params = &none;
  states.d_x = {};
  CHECK_EQUAL(kept_by([&] { tape.backward(nothing); }), 0);
  CHECK_EQUAL(kept_by([&] { tape.backward(states); }), R);
  CHECK_EQUAL(kept_by([&] { tape.backward(all); }), W);
  CHECK_EQUAL(kept_by([&] { tape.backward(all); }), 0);
}
