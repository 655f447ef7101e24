#include "schedule/cost_model.hpp"

#include <algorithm>

#include "runtime/targets.hpp"
#include "schedule/shares.hpp"

namespace fastlstm {

namespace {

double largest_part(Index items, int n) {
  const Index largest = pieces(items, n);
  return static_cast<double>(largest) / static_cast<double>(std::max<Index>(items, 1));
}

double weight_bytes_of(const StackConfig& config, Index value_bytes) {
  if (!is_small(config.arithmetic)) return static_cast<double>(value_bytes);
  return is_int8(config.arithmetic) ? 1 : 2;
}

}  // namespace

double Cost::total() const {
  double sum = products + gates + meetings + waking - hidden;
  for (const double of_level : bytes) sum += of_level;
  return sum;
}

std::vector<std::pair<const char*, double>> Cost::parts() const {
  double all_bytes = 0;
  for (const double of_level : bytes) all_bytes += of_level;
  const bool of_bytes = all_bytes < products;
  const double left = of_bytes && all_bytes > 0 ? 1 - hidden / all_bytes : 1;
  return {{"products", of_bytes ? products : products - hidden},
          {"L1", left * bytes[0]},
          {"L2", left * bytes[1]},
          {"L3", left * bytes[2]},
          {"memory", left * bytes[3]},
          {"gates", gates},
          {"meetings", meetings},
          {"waking", waking}};
}

const char* Cost::bound() const {
  const auto all = parts();
  const auto less = [](const auto& a, const auto& b) { return a.second < b.second; };
  return std::max_element(all.begin(), all.end(), less)->first;
}

Cost& Cost::add(const Cost& other, double times) {
  products += times * other.products;
  for (int level = 0; level < 4; ++level) bytes[level] += times * other.bytes[level];
  gates += times * other.gates;
  meetings += times * other.meetings;
  waking += times * other.waking;
  hidden += times * other.hidden;
  return *this;
}

CallShape::CallShape(const StackConfig& config_, const RowSchedule& rows, Index value_bytes_,
                     bool alternate_)
    : config(config_),
      value_bytes(value_bytes_),
      alternate(alternate_),
      weight_bytes(weight_bytes_of(config_, value_bytes_)),
      B(rows.B()),
      steps(static_cast<double>(rows.steps())),
      live(rows.steps() > 0 ? static_cast<double>(rows.rows()) / steps : 0) {
  // Cells whose gates are not side by side in a panel have it in blocks of four vectors.
  const bool matrix = config.gates() == 1 || config.cell == CellKind::kGruResetBefore;
  const Index lanes = value_bytes == 4 ? kernels<float>().lanes : kernels<double>().lanes;
  const Index line = 64 / value_bytes;
  unit_parts = pieces(config.hidden_size, matrix ? std::max(line, 4 * lanes) : line);
}

double CostModel::products_per_us(const CallShape& call, double rows) const {
  const Tuning& t = tuning_;
  // Of one row, converting weights and loading groups of them are not hidden by products (Zen 4,
  // H = 256 to 1024: 0.66 to 0.75 of the speed with 8 rows; widening bfloat16 0.9).
  const double part = rows <= 1 ? 0.7 : 1;
  // A matrix unit loads 64 bytes of weights in a cycle, and uses them for all rows of a tile. Not
  // measured: from what its manual says, and half of that where it multiplies.
  const Arithmetic arithmetic = call.config.arithmetic;
  if (is_small(arithmetic) && panel_kernels<float>(arithmetic).tiled) {
    return t.products_per_us * (arithmetic == Arithmetic::kInt8 ? 2 : 1) * std::min(8.0, rows);
  }
  switch (arithmetic) {
    case Arithmetic::kFull:
      return t.products_per_us * 4 / static_cast<double>(call.value_bytes);
    case Arithmetic::kBfloat16Weights:
      return t.products_per_us * t.bfloat16_weights_speed;
    case Arithmetic::kInt8Weights:
      return t.products_per_us * t.int8_weights_speed * part;
    case Arithmetic::kBfloat16:  // without the instruction they are widened
      return t.products_per_us *
             (hardware_.has_pairs ? t.bfloat16_speed * part : t.bfloat16_weights_speed);
    case Arithmetic::kInt8:  // without it, by pairs of 16 bits
      return t.products_per_us * t.int8_speed * part / (hardware_.has_fours ? 1 : 2);
  }
  return t.products_per_us;
}

double CostModel::slower(double by, int threads) const {
  const double turns = std::max(1.0, static_cast<double>(threads) / hardware_.cpus);
  return turns * (1 + by * (std::min(threads, hardware_.cpus) - 1));
}

double CostModel::meeting(const Team& team) const {
  if (team.sharing == 1) return 0;
  constexpr double kTimeSlice = 3000;  // of a thread that has the CPU of one they wait for
  return tuning_.meeting_us + tuning_.meeting_us_per_thread * (team.sharing - 2) +
         (team.threads > hardware_.cpus ? kTimeSlice : 0);
}

double CostModel::waking(int threads) const {
  return threads == 1 ? 0 : tuning_.wake_us + tuning_.wake_us_per_thread * (threads - 2);
}

Cost CostModel::products(double products, double bytes, double kept, double rows, const Team& team,
                         double per_us_alone) const {
  Cost cost;
  cost.products = products * slower(tuning_.thread_slows_products, team.threads) / per_us_alone;
  // What does not fit is read anew in each step, but where steps read there and back.
  constexpr double kForWeights = 0.8;  // of a cache
  double of_level[4] = {};
  if (kept <= kForWeights * hardware_.L1) {
    of_level[0] = bytes;
  } else {
    const bool turns = rows <= tuning_.rows_down;
    const double fits = std::min(1.0, kForWeights * hardware_.L2 / kept);
    const double in_L2 = fits == 1 || turns ? fits : 0;
    of_level[1] = in_L2 * bytes;
    // In L3 those of all who share a step are.
    const double in_L3 = std::min(1.0, kForWeights * hardware_.L3 / (kept * team.sharing));
    of_level[2] = in_L3 * (1 - in_L2) * bytes;
    of_level[3] = (1 - in_L3) * (1 - in_L2) * bytes;
  }
  const double per_us[] = {tuning_.L1_bytes_per_us, tuning_.L2_bytes_per_us,
                           tuning_.L3_bytes_per_us, tuning_.memory_bytes_per_us};
  const double slows[] = {0, tuning_.thread_slows_products, tuning_.thread_slows_L3,
                          tuning_.thread_slows_memory};
  double all = 0;
  for (int level = 0; level < 4; ++level) {
    cost.bytes[level] = of_level[level] * slower(slows[level], team.threads) / per_us[level];
    all += cost.bytes[level];
  }
  // A few rows fill no tile: their weights come and go before they are used (100,8,256 on two
  // threads by rows took as long as products and bytes together). One row reads ahead.
  const double half = tuning_.rows_to_overlap / 2;
  const double overlaps = rows <= 1 ? 1 : std::clamp((rows - half) / half, 0.0, 1.0);
  cost.hidden = tuning_.overlap * overlaps * std::min(all, cost.products);
  return cost;
}

Cost CostModel::forward_step(const CallShape& call, Index layer, double rows, double share,
                             const Team& team) const {
  const StackConfig& c = call.config;
  const double values = call.weight_bytes, per_us = products_per_us(call, rows);
  const double outputs = static_cast<double>(c.gates() * c.hidden_size) * share;
  const auto P = static_cast<double>(c.output_size());
  const auto I = static_cast<double>(c.layer_input_size(layer));
  const bool fused = I <= tuning_.few_inputs;
  // Of steps whose inputs are projected at once: each has a part of their weights.
  const double at_once = fused ? 1 : std::max(1.0, tuning_.projected_rows / rows);
  const double W = outputs * I * values, R = outputs * P * values;
  Cost cost;
  if (fused) {
    cost = products(rows * outputs * (P + I), R + W, R + W, rows, team, per_us);
  } else {
    const double projected = rows * at_once;
    cost = products(rows * outputs * P, R, R, rows, team, per_us);
    cost += products(rows * outputs * I, W / at_once, W, projected, team,
                     products_per_us(call, projected));
  }
  // An LSTM has five functions of each unit, which the others' are parts of.
  const double functions = c.gates() == 4 ? 1 : c.gates() == 3 ? 0.6 : 0.2;
  const double units = outputs / static_cast<double>(c.gates());
  cost.gates = tuning_.step_us + tuning_.gates_us * functions * rows * units;
  int meetings = 1;
  if (c.cell == CellKind::kGruResetBefore) meetings = 2;
  if (c.options.layer_norm) meetings = 3;
  if (c.proj_size > 0) {
    ++meetings;
    const double hr = static_cast<double>(c.hidden_size) * P * share;
    cost += products(rows * hr, hr * values, hr * values, rows, team, per_us);
  }
  cost.meetings = meetings * meeting(team);
  if (team.sharing > 1) {  // at which they read each other's part of h
    const double read = rows * P * static_cast<double>(call.value_bytes) * (1 - 1.0 / team.sharing);
    cost.meetings += read / tuning_.exchange_bytes_per_us;
  }
  return cost;
}

Cost CostModel::forward(const CallShape& call, const ThreadPlan& plan) const {
  const StackConfig& c = call.config;
  const double rows = std::max(1.0, call.live * largest_part(call.B, plan.rows));
  const double share = largest_part(call.unit_parts, plan.units);
  const Team team{plan.threads(), plan.units};
  Cost step = forward_step(call, 0, rows, share, team);
  if (c.num_layers > 1) {
    step.add(forward_step(call, 1, rows, share, team), static_cast<double>(c.num_layers - 1));
  }
  const Index in_turn = c.directions() / plan.directions;
  double steps = call.steps * static_cast<double>(in_turn);
  Cost cost;
  cost.waking = waking(plan.threads());
  if (plan.layers > 1) {
    const double blocks = tuning_.blocks_per_owner * plan.layers;
    steps *= (blocks + plan.layers - 1) / blocks / plan.layers;
    cost.meetings = blocks * meeting({plan.threads(), plan.threads_of_rows()});
  }
  return cost.add(step, steps);
}

Cost CostModel::backward(const CallShape& call, Index layer, const BackwardPlan& plan) const {
  const StackConfig& c = call.config;
  const auto values = static_cast<double>(call.value_bytes);
  const double GH = static_cast<double>(c.gates() * c.hidden_size);
  const auto P = static_cast<double>(c.output_size());
  const auto I = static_cast<double>(c.layer_input_size(layer));
  const int used = plan.groups * plan.units;
  const Index tasks = std::max<Index>(1, pieces(call.B, plan.step_rows));
  const double in_turn = static_cast<double>(pieces(tasks, plan.groups));
  const double rows = call.live / static_cast<double>(tasks);
  const double share = largest_part(call.unit_parts, plan.units);
  const Team team{used, plan.units};
  const double R = GH * P * share * values;
  const double per_us = products_per_us(call, rows);
  Cost step = products(rows * GH * P * share, R, R, rows, team, per_us);
  // The gates' gradients, which one thread of a group computes.
  step.gates =
      tuning_.step_us + tuning_.gates_us_backward * rows * static_cast<double>(c.hidden_size);
  step.meetings = (c.cell == CellKind::kGruResetBefore ? 4 : 2) * meeting(team);
  Cost cost;
  cost.add(step, in_turn * call.steps);
  const double all_rows = call.steps * call.live, n = plan.threads;
  const double at_once = static_cast<double>(kBackwardRows), blocks = all_rows / at_once + 1;
  const Team all{plan.threads};
  // Each block of steps reads and writes all gradients of weights.
  const double gradients = GH * (I + P), d_x = GH * I;
  cost += products(all_rows * (gradients + d_x) / n * tuning_.gradients_slower,
                   blocks * (2 * gradients + d_x) * values / n, gradients * values, at_once, all,
                   per_us);
  // Two regions for each block, whose workers still spin.
  cost.waking = waking(plan.threads);
  cost.meetings += 4 * blocks * meeting({plan.threads, plan.threads});
  return cost;
}

Cost CostModel::stream_step(const CallShape& call, int threads, bool asleep) const {
  const ThreadPlan plan{1, 1, 1, threads};
  Cost cost = forward(call, plan);
  if (threads == 1) return cost;
  // A region of threads that still spin, with what a step does around it.
  constexpr int kMeetings = 8;
  // Waking takes some 80 us of a sleeping thread, of which a call over a sequence sees little.
  constexpr double kSleepUs = 75;
  cost.waking = asleep ? kSleepUs : kMeetings * meeting({threads, threads});
  return cost;
}

}  // namespace fastlstm
