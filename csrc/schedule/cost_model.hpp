// How long a call takes by each way of dividing it among threads: a model from few constants, those
// of tuning.hpp under "what the model of cost is made of". docs/threads.md explains it.
//
// A step of a thread is the products of its rows with its share of the weights, and the bytes of
// that share, which come from the cache level where they stay from step to step; of the two the
// longer counts whole and the other in part, as far as the CPU does not do both at once. To that
// come the gates, and a meeting with those that share the step. Threads slow each other down: they
// share a cache, or the power and, unseen on virtual machines, even a core.
#pragma once

#include <utility>
#include <vector>

#include "fastlstm/config.hpp"
#include "runtime/hardware.hpp"
#include "runtime/tuning.hpp"
#include "schedule/row_schedule.hpp"

namespace fastlstm {

/// rows x directions x layers x units threads. Groups of rows never wait for each other; the two
/// directions meet at the end of each layer; threads that own layers meet after each block of
/// steps, a layer one block behind the one below; threads that share the units of a direction or a
/// layer meet at each step.
struct ThreadPlan {
  int rows = 1;
  int directions = 1;  // 1: the two directions one after the other, or there is only one
  int layers = 1;      // 1: the layers one after the other
  int units = 1;

  int threads() const { return rows * threads_of_rows(); }
  int threads_of_rows() const { return directions * layers * units; }
  /// Whether some of them meet at each step, or each block of steps.
  bool meets() const { return layers > 1 || units > 1; }
};

/// The same of the steps of a layer and direction backward. Groups take tasks of rows, the threads
/// of a group share the columns of the products with R and meet twice at each step. The products of
/// the weights' gradients are divided among all threads.
struct BackwardPlan {
  int threads = 1;
  int groups = 1;
  int units = 1;
  Index step_rows = 1;  // of a task
};

/// What the time of a call goes to, in us.
struct Cost {
  double products = 0;
  double bytes[4] = {};  // from the L1, L2, L3 cache and from the memory
  double gates = 0;      // their functions, and what else a step does for each row and unit
  double meetings = 0;
  double waking = 0;
  double hidden = 0;  // what of products and bytes is done at the same time

  double total() const;
  /// By name: "products", "L1", "L2", "L3", "memory", "gates", "meetings", "waking". Of products
  /// and bytes, what is hidden is left out of the shorter.
  std::vector<std::pair<const char*, double>> parts() const;
  /// The name of the largest.
  const char* bound() const;
  Cost& operator+=(const Cost& other) { return add(other, 1); }
  Cost& add(const Cost& other, double times);
};

/// What the model reads of a call.
struct CallShape {
  CallShape(const StackConfig& config_, const RowSchedule& rows, Index value_bytes_,
            bool alternate_);

  const StackConfig& config;
  Index value_bytes;
  bool alternate;       // whether the layers may take turns in time
  double weight_bytes;  // of one
  Index B;
  double steps;
  double live;       // rows of a step, on average
  Index unit_parts;  // in which threads can share units: cache lines of h, or blocks of a panel
};

class CostModel {
 public:
  CostModel(const Tuning& tuning, const Hardware& hardware)
      : tuning_(tuning), hardware_(hardware) {}

  /// The forward pass of all layers.
  Cost forward(const CallShape& call, const ThreadPlan& plan) const;
  /// The backward pass of one cell of this layer.
  Cost backward(const CallShape& call, Index layer, const BackwardPlan& plan) const;
  /// A step of a stream by so many threads, which spin or sleep before it.
  Cost stream_step(const CallShape& call, int threads, bool asleep) const;

  int cpus() const { return hardware_.cpus; }

 private:
  struct Team {
    int threads;      // at work in all
    int sharing = 1;  // of them a step
  };
  double slower(double by, int threads) const;
  double meeting(const Team& team) const;
  double waking(int threads) const;
  /// Products of some rows, for which `bytes` of weights are read in each step: those of a core
  /// that come again in each are `kept`.
  Cost products(double products, double bytes, double kept, double rows, const Team& team,
                double per_us) const;
  double products_per_us(const CallShape& call, double rows) const;
  Cost forward_step(const CallShape& call, Index layer, double rows, double share,
                    const Team& team) const;

  const Tuning& tuning_;
  Hardware hardware_;
};

/// Calls body(k) for the numbers of threads, 1 <= k <= most, that divide items otherwise: the
/// largest share is smaller than with fewer.
template <class Body>
void for_each_division(Index items, int most, const Body& body) {
  for (Index k = 1; k <= most;) {
    body(static_cast<int>(k));
    const Index largest = (items + k - 1) / k;
    if (largest <= 1) return;
    k = (items + largest - 2) / (largest - 1);
  }
}

}  // namespace fastlstm
