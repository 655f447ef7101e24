// Every kernel of every target that this CPU runs, against plain formulas in higher precision.
//
// The tests come from the list of kernels: each needs a check_NAME below, or this does not compile.
#include <cstdint>
#include <limits>
#include <vector>

#include "arrays.hpp"
#include "check.hpp"
#include "kernels/list.hpp"
#include "runtime/fp_mode.hpp"
#include "runtime/philox.hpp"
#include "runtime/targets.hpp"

namespace fastlstm::wide {
extern const KernelTable<float> float32_kernels;
extern const KernelTable<double> float64_kernels;
}  // namespace fastlstm::wide

using namespace fastlstm;

namespace {

using Exact = long double;

// Around the vector widths w = 2, 4, 8, 16: 1, w - 1, w, w + 1, 3w + 5.
const Index kSizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 29, 53};

template <class T>
constexpr T kInfinity = std::numeric_limits<T>::infinity();
template <class T>
constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
template <class T>
constexpr T kEpsilon = std::numeric_limits<T>::epsilon();

Exact exact_sigmoid(Exact x) { return 1 / (1 + std::exp(-x)); }
Exact exact_exp(Exact x) { return std::exp(x); }
Exact exact_tanh(Exact x) { return std::tanh(x); }

/// The distance from one float to the next at this value; denormals count as zero.
template <class T>
Exact ulp(Exact value) {
  const Exact magnitude = std::max(std::abs(value), Exact(std::numeric_limits<T>::min()));
  return std::ldexp(Exact(1), std::ilogb(magnitude) + 1 - std::numeric_limits<T>::digits);
}

// --- exp, sigmoid, tanh
// ---------------------------------------------------------------------------

/// Every k-th bit pattern, so that all exponents and both signs occur, and a dense middle.
template <class T>
std::vector<T> range_of_values() {
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits kStep = std::numeric_limits<Bits>::max() / 100003;
  std::vector<T> values;
  for (Bits k = 0; k < 100003; ++k) {
    const Bits bits = k * kStep;
    T value;
    std::memcpy(&value, &bits, sizeof value);
    values.push_back(value);
  }
  Random random(1);
  const std::vector<T> middle = random.values<T>(100000, -110, 110);
  values.insert(values.end(), middle.begin(), middle.end());
  return values;
}

template <class T>
void check_map(void (*kernel)(const MapValues<T>&) noexcept, Exact (*exact)(Exact),
               double most_ulp) {
  const std::vector<T> x = range_of_values<T>();
  std::vector<T> y(x.size());
  kernel({static_cast<Index>(x.size()), x.data(), y.data()});
  for (std::size_t k = 0; k < x.size(); ++k) {
    NOTE("x = " << x[k]);
    const Exact want = exact(x[k]);
    if (std::isnan(want)) {
      CHECK(std::isnan(y[k]));
    } else if (std::abs(want) > Exact(std::numeric_limits<T>::max())) {
      CHECK_EQUAL(y[k], static_cast<T>(std::copysign(kInfinity<T>, want)));
    } else if (std::abs(want) < Exact(std::numeric_limits<T>::min())) {
      CHECK_CLOSE(y[k], want, Exact(std::numeric_limits<T>::min()));
    } else {
      CHECK_CLOSE(y[k], want, most_ulp * ulp<T>(want));
    }
  }
  for (const Index n : kSizes) {
    NOTE("n = " << n);
    Guarded<T> from(std::vector<T>(x.end() - n, x.end())), to(n);
    kernel({n, from.data(), to.data()});
    to.check_guards();
    // A value has the same bits wherever it stands, and in place.
    CHECK(std::memcmp(to.data(), y.data() + y.size() - n, to.size() * sizeof(T)) == 0);
    kernel({n, from.data(), from.data()});
    from.check_guards();
    CHECK(std::memcmp(to.data(), from.data(), to.size() * sizeof(T)) == 0);
  }
}

template <class T>
T map_one(void (*kernel)(const MapValues<T>&) noexcept, T x) {
  T y;
  kernel({1, &x, &y});
  return y;
}

template <class T>
void check_exp_values(const KernelTable<T>& table) {
  const auto kernel = table.exp_values;
  check_map<T>(kernel, exact_exp, 1.0);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(1));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), kInfinity<T>);
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(0));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

template <class T>
void check_sigmoid_values(const KernelTable<T>& table) {
  const auto kernel = table.sigmoid_values;
  check_map<T>(kernel, exact_sigmoid, 2.5);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(0.5));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), T(1));
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(0));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

template <class T>
void check_tanh_values(const KernelTable<T>& table) {
  const auto kernel = table.tanh_values;
  check_map<T>(kernel, exact_tanh, 2.5);
  CHECK_EQUAL(map_one<T>(kernel, 0), T(0));
  CHECK(std::signbit(map_one<T>(kernel, T(-0.0))));
  CHECK_EQUAL(map_one<T>(kernel, kInfinity<T>), T(1));
  CHECK_EQUAL(map_one<T>(kernel, -kInfinity<T>), T(-1));
  CHECK(std::isnan(map_one<T>(kernel, kNaN<T>)));
}

// --- the LSTM's step
// ------------------------------------------------------------------------------

template <class T>
void check_lstm_step_at(void (*kernel)(const CellStep<T>&) noexcept, Index rows, Index H,
                        bool save_gates) {
  NOTE("rows = " << rows << ", H = " << H << ", save_gates = " << save_gates);
  Random random(static_cast<unsigned>(100 * rows + H));
  const Guarded<T> bias(random.values<T>(4 * H, -1, 1));
  const std::vector<T> inputs = random.values<T>(rows * 4 * H, -6, 6);
  const Guarded<T> from_h(random.values<T>(rows * 4 * H, -1, 1));
  const std::vector<T> c_prev = random.values<T>(rows * H, -2, 2);
  Guarded<T> gates(inputs), c(c_prev), h(rows * H);
  kernel({rows, H, save_gates, bias.data(), nullptr, from_h.data(), gates.data(), 4 * H, c.data(),
          h.data()});
  gates.check_guards();
  c.check_guards();
  h.check_guards();
  const Exact tolerance = 16 * kEpsilon<T>;
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const auto gate = [&](Index k) { return row * 4 * H + k * H + j; };
      const auto input = [&](Index k) {
        return Exact(inputs[static_cast<std::size_t>(gate(k))]) + bias[k * H + j] + from_h[gate(k)];
      };
      const Exact i = exact_sigmoid(input(0)), f = exact_sigmoid(input(1));
      const Exact g = exact_tanh(input(2)), o = exact_sigmoid(input(3));
      const Exact want_c = f * c_prev[static_cast<std::size_t>(row * H + j)] + i * g;
      CHECK_CLOSE(c[row * H + j], want_c, tolerance);
      CHECK_CLOSE(h[row * H + j], o * exact_tanh(want_c), tolerance);
      if (!save_gates) continue;
      CHECK_CLOSE(gates[gate(0)], i, tolerance);
      CHECK_CLOSE(gates[gate(1)], f, tolerance);
      CHECK_CLOSE(gates[gate(2)], g, tolerance);
      CHECK_CLOSE(gates[gate(3)], o, tolerance);
    }
  }
}

/// One row whose pre-activations are the same four values for every unit.
template <class T>
void check_lstm_step_limits(void (*kernel)(const CellStep<T>&) noexcept, T i, T f, T g, T o,
                            T c_prev, T want_c, T want_h) {
  constexpr Index H = 21;
  NOTE("i f g o c' = " << i << " " << f << " " << g << " " << o << " " << c_prev);
  const std::vector<T> zeros(4 * H, 0);
  std::vector<T> gates, c(H, c_prev), h(H);
  for (const T value : {i, f, g, o}) gates.insert(gates.end(), H, value);
  kernel(
      {1, H, false, zeros.data(), nullptr, zeros.data(), gates.data(), 4 * H, c.data(), h.data()});
  for (std::size_t j = 0; j < H; ++j) {
    CHECK_EQUAL(c[j], want_c);
    CHECK_EQUAL(h[j], want_h);
  }
}

/// A NaN reaches its own unit and no other.
template <class T>
void check_lstm_step_nan(void (*kernel)(const CellStep<T>&) noexcept) {
  constexpr Index H = 21;
  for (std::size_t at = 0; at < 5 * H; ++at) {
    NOTE("NaN at " << at);
    std::vector<T> zeros(4 * H, 0), gates(4 * H, T(0.5)), c(H, T(0.5)), h(H);
    (at < 4 * H ? gates[at] : c[at - 4 * H]) = kNaN<T>;
    kernel(
        {1, H, true, zeros.data(), nullptr, zeros.data(), gates.data(), 4 * H, c.data(), h.data()});
    const bool output_gate = at >= 3 * H && at < 4 * H;
    for (std::size_t j = 0; j < H; ++j) {
      const bool here = j == at % H;
      CHECK_EQUAL(std::isnan(h[j]), here);
      CHECK_EQUAL(std::isnan(c[j]), here && !output_gate);
    }
  }
}

template <class T>
void check_lstm_step(const KernelTable<T>& table) {
  const auto kernel = table.lstm_step;
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      check_lstm_step_at(kernel, rows, H, false);
      check_lstm_step_at(kernel, rows, H, true);
    }
  }
  constexpr T inf = kInfinity<T>;
  check_lstm_step_limits<T>(kernel, -inf, inf, 0, -inf, T(3), T(3), 0);  // keeps c, shows nothing
  check_lstm_step_limits<T>(kernel, -inf, -inf, 0, inf, T(3), 0, 0);     // forgets
  check_lstm_step_limits<T>(kernel, -inf, inf, 0, inf, inf, inf, 1);  // an infinite c saturates h
  check_lstm_step_limits<T>(kernel, inf, -inf, -inf, -inf, T(3), T(-1), T(-0.0));
  check_lstm_step_nan(kernel);
}

template <class T>
void check_lstm_step_backward_at(void (*kernel)(const CellStepBackward<T>&) noexcept, Index rows,
                                 Index H, bool in_place) {
  NOTE("rows = " << rows << ", H = " << H << ", in_place = " << in_place);
  Random random(static_cast<unsigned>(1000 * rows + H));
  std::vector<T> activated = random.values<T>(rows * 4 * H, 0, 1);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {  // g is a tanh
      T& g = activated[static_cast<std::size_t>(row * 4 * H + 2 * H + j)];
      g = 2 * g - 1;
    }
  }
  Guarded<T> gates(activated);
  const Guarded<T> c(random.values<T>(rows * H, -2, 2)), c_prev(random.values<T>(rows * H, -2, 2));
  const Index ld_d_h = H + 3;
  const Guarded<T> d_h(random.values<T>(rows * ld_d_h, -1, 1));
  const std::vector<T> d_c_next = random.values<T>(rows * H, -1, 1);
  Guarded<T> d_c(d_c_next), other(rows * 4 * H), hidden(rows * H);
  Guarded<T>& d_gates = in_place ? gates : other;
  CellStepBackward<T> call{};
  call.rows = rows;
  call.H = H;
  call.gates = gates.data();
  call.c = c.data();
  call.c_prev = c_prev.data();
  call.d_h = d_h.data();
  call.ld_d_h = ld_d_h;
  call.d_past_R = d_c.data();
  call.d_gates = d_gates.data();
  if (in_place) call.hidden = hidden.data();
  kernel(call);
  hidden.check_guards();
  d_c.check_guards();
  d_gates.check_guards();
  const Exact tolerance = 16 * kEpsilon<T>;
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const Index at = row * H + j, first = row * 4 * H + j;
      const auto gate = [&](Index k) {
        return Exact(activated[static_cast<std::size_t>(first + k * H)]);
      };
      const Exact i = gate(0), f = gate(1), g = gate(2), o = gate(3), tanh_c = exact_tanh(c[at]);
      const Exact dh = d_h[row * ld_d_h + j];
      const Exact dc = dh * o * (1 - tanh_c * tanh_c) + d_c_next[static_cast<std::size_t>(at)];
      CHECK_CLOSE(d_gates[first], dc * g * i * (1 - i), tolerance);
      CHECK_CLOSE(d_gates[first + H], dc * c_prev[at] * f * (1 - f), tolerance);
      CHECK_CLOSE(d_gates[first + 2 * H], dc * i * (1 - g * g), tolerance);
      CHECK_CLOSE(d_gates[first + 3 * H], dh * tanh_c * o * (1 - o), tolerance);
      CHECK_CLOSE(d_c[at], dc * f, tolerance);
      if (in_place) CHECK_CLOSE(hidden[at], o * tanh_c, tolerance);
    }
  }
}

template <class T>
void check_lstm_step_backward(const KernelTable<T>& table) {
  const auto kernel = table.lstm_step_backward;
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      check_lstm_step_backward_at(kernel, rows, H, false);
      check_lstm_step_backward_at(kernel, rows, H, true);
    }
  }
}

Exact exact_activation(const Activation& f, Exact x) {
  switch (f.kind) {
    case ActivationKind::kAffine:
      return f.alpha * x + f.beta;
    case ActivationKind::kRelu:
      return std::max(x, Exact(0));
    case ActivationKind::kLeakyRelu:
      return x < 0 ? f.alpha * x : x;
    case ActivationKind::kThresholdedRelu:
      return x < f.alpha ? 0 : x;
    case ActivationKind::kTanh:
      return exact_tanh(x);
    case ActivationKind::kScaledTanh:
      return f.alpha * exact_tanh(f.beta * x);
    case ActivationKind::kSigmoid:
      return exact_sigmoid(x);
    case ActivationKind::kHardSigmoid:
      return std::clamp(f.alpha * x + f.beta, Exact(0), Exact(1));
    case ActivationKind::kElu:
      return x < 0 ? f.alpha * std::expm1(x) : x;
    case ActivationKind::kSoftsign:
      return x / (1 + std::abs(x));
    case ActivationKind::kSoftplus:
      return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
  }
  return 0;
}

/// Every function, over a wide range and near zero; their parameters are exact in float.
template <class T>
void check_activate_gates(const KernelTable<T>& table) {
  const auto kernel = table.activate_gates;
  for (int kind = 0; kind <= static_cast<int>(ActivationKind::kSoftplus); ++kind) {
    for (const bool input_forget : {false, true}) {
      for (const Index H : kSizes) {
        NOTE("kind = " << kind << ", input_forget = " << input_forget << ", H = " << H);
        const Activation f{static_cast<ActivationKind>(kind), 0.25, 0.5};
        const T clip = input_forget ? T(1.5) : kInfinity<T>;
        const StepOptions<T> options{false, f, f, f, clip, input_forget, nullptr, 0, nullptr, 0};
        Random random(static_cast<unsigned>(H));
        const Index rows = 3;
        std::vector<T> sums = random.values<T>(rows * 4 * H, -100, 100);
        for (std::size_t k = 0; k < sums.size(); k += 2) sums[k] /= 64;
        for (std::size_t k = 0; k < sums.size(); k += 8) sums[k] /= 64;
        Guarded<T> gates(sums);
        kernel({rows, 4, H, 4 * H, gates.data(), &options});
        gates.check_guards();
        if (!input_forget) {  // rows of other widths, of which the first gates are activated
          Guarded<T> some(sums);
          kernel({rows - 1, 3, H, 5 * H, some.data(), &options});
          for (Index k = 0; k < rows * 4 * H; ++k) {
            const bool activated = k < 10 * H && k % (5 * H) < 3 * H;
            CHECK_EQUAL(some[k], activated ? gates[k] : sums[static_cast<std::size_t>(k)]);
          }
        }
        for (Index k = 0; k < rows * 4 * H; ++k) {
          const bool forget = input_forget && k / H % 4 == 1;
          const Index from = forget ? k - H : k;  // the input gate's sum
          const T sum = std::clamp(sums[static_cast<std::size_t>(from)], -clip, clip);
          const Exact value = exact_activation(f, sum), want = forget ? 1 - value : value;
          CHECK_CLOSE(
              gates[k], want,
              4 * kEpsilon<T> * std::max(Exact(0.01), std::abs(want)) + (forget ? kEpsilon<T> : 0));
        }
      }
    }
  }
}

// --- tiles
// ----------------------------------------------------------------------------------------

/// Rows in memory of their own each, and the pointers to them.
template <class T>
struct Rows {
  Rows(Random& random, Index rows, Index width) {
    for (Index row = 0; row < rows; ++row) {
      values.emplace_back(random.values<T>(width, -1, 1));
      pointers.push_back(values.back().data());
    }
  }
  void check_guards() const {
    for (const Guarded<T>& row : values) row.check_guards();
  }
  T at(Index row, Index k) const { return values[static_cast<std::size_t>(row)][k]; }

  std::vector<Guarded<T>> values;
  std::vector<T*> pointers;
};

template <class T>
bool same_bits(const Guarded<T>& a, const Guarded<T>& b) {
  return a.size() == b.size() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Heights below, at and above a tile's, for all targets.
const Index kRows[] = {1, 2, 3, 4, 5, 6, 7, 8, 13};

template <class T>
void check_project_rows_at(const KernelTable<T>& table, Index rows, Index blocks, Index V, Index K,
                           bool has_bias) {
  NOTE("V = " << V << ", rows = " << rows << ", blocks = " << blocks << ", K = " << K << ", bias "
              << has_bias);
  const Index width = V * table.lanes, ld = blocks * width + 3;
  Random random(static_cast<unsigned>(rows * 1000 + K));
  const Rows<T> x(random, rows, K);
  const Guarded<T> panel(random.values<T>(blocks * K * width, -1, 1));
  const Guarded<T> bias(random.values<T>(blocks * width, -1, 1));
  const auto project = [&](Index first_row, Index n, Index first_block, Index end_block,
                           bool down = false) {
    Guarded<T> out(std::vector<T>(static_cast<std::size_t>(n * ld), T(77)));
    table.project_rows({n, first_block, end_block, V, K, x.pointers.data() + first_row,
                        panel.data(), has_bias ? bias.data() : nullptr, out.data(), ld, down});
    out.check_guards();
    return out;
  };
  const Guarded<T> out = project(0, rows, 0, blocks);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < ld; ++j) {
      NOTE("row = " << row << ", j = " << j);
      if (j >= blocks * width) {
        CHECK_EQUAL(out[row * ld + j], T(77));
        continue;
      }
      Exact want = has_bias ? bias[j] : 0;
      for (Index k = 0; k < K; ++k) {
        want += Exact(x.at(row, k)) * panel[j / width * K * width + k * width + j % width];
      }
      CHECK_CLOSE(out[row * ld + j], want, kEpsilon<T> * static_cast<T>(K + 2));
    }
  }
  // The other way, a row by itself, and a block by itself: the same bits, and nothing else is
  // written.
  CHECK(same_bits(project(0, rows, 0, blocks, true), out));
  for (Index row = 0; row < rows; ++row) {
    const Guarded<T> alone = project(row, 1, 0, blocks);
    CHECK(std::equal(alone.data(), alone.data() + ld, out.data() + row * ld));
  }
  for (Index block = 0; block < blocks; ++block) {
    const Guarded<T> one = project(0, rows, block, block + 1);
    for (Index at = 0; at < rows * ld; ++at) {
      CHECK_EQUAL(one[at], at % ld / width == block ? out[at] : T(77));
    }
  }
}

template <class T>
void check_project_rows(const KernelTable<T>& table) {
  for (const Index V : {3, 4}) {
    for (const Index rows : kRows) {
      for (const Index blocks : {1, 2, 3, 7}) {
        for (const Index K : {1, 2, 17}) check_project_rows_at(table, rows, blocks, V, K, true);
      }
      check_project_rows_at(table, rows, 2, V, 600, false);
    }
    // Several tiles of rows pass over 256 KB of a panel at a time, and keep their sums in between.
    const Index of_part = (256 << 10) / (V * table.lanes * static_cast<Index>(sizeof(T)));
    for (const Index K : {of_part, of_part + 1, 2 * of_part + 5}) {
      check_project_rows_at(table, 13, 2, V, K, true);
    }
  }
}

/// A step's weights as matrices and as panels, and its inputs, for a cell of G gates.
template <class T>
struct TileStep {
  using Kernel = void (*)(const CellStepTile<T>&) noexcept;
  TileStep(const KernelTable<T>& table_, Kernel kernel_, Index G_, Index rows_, Index H_, Index I_,
           Index P_)
      : table(table_),
        kernel(kernel_),
        G(G_),
        V(G == 3 ? 3 : 4),
        rows(rows_),
        H(H_),
        I(I_),
        P(P_),
        units(V / G * table.lanes),
        width(V * table.lanes),
        blocks((H + units - 1) / units),
        padded(blocks * units),
        random(static_cast<unsigned>(rows * 1000 + H)),
        W(random.values<T>(G * H * I, -1, 1)),
        R(random.values<T>(G * H * P, -1, 1)),
        b(random.values<T>(G * H, -1, 1)),
        b_h(random.values<T>(padded, -1, 1)),
        W_panel(packed(W, I)),
        R_panel(packed(R, P)),
        b_panel(packed(b, 1)),
        x(random, rows, I),
        h_prev(random.values<T>(rows * ld_h_prev(), -1, 1)),
        h_past_R(random.values<T>(rows * ld_h_prev(), -1, 1)),
        c_prev(random.values<T>(rows * padded, -2, 2)) {}

  Index ld_h_prev() const { return std::max(P, padded) + 1; }

  /// Column j of block n is gate j / units of unit n * units + j % units; weights of units that do
  /// not exist are zero.
  Guarded<T> packed(const std::vector<T>& matrix, Index K) const {
    Guarded<T> panel(blocks * K * width);
    for (Index at = 0; at < blocks * K * width; ++at) {
      const Index column = at % width, k = at / width % K, block = at / width / K;
      const Index gate = column / units, unit = block * units + column % units;
      panel[at] = unit < H ? matrix[static_cast<std::size_t>((gate * H + unit) * K + k)] : T(0);
    }
    return panel;
  }

  struct Result {
    Guarded<T> c, h, gates, saved_c;
    Rows<T> output;
    void check_guards() const {
      for (const Guarded<T>* array : {&c, &h, &gates, &saved_c}) array->check_guards();
      output.check_guards();
    }
  };

  /// The kernel on all rows or one, with x or with its projection, with all outputs or fewest.
  Result run(Index first_row, Index n, bool fused, bool save, Index first_block, Index end_block,
             bool down = false) {
    Result r{Guarded<T>(std::vector<T>(c_prev.begin() + first_row * padded,
                                       c_prev.begin() + (first_row + n) * padded)),
             Guarded<T>(n * padded), Guarded<T>(save ? n * 4 * H : 0), Guarded<T>(save ? n * H : 0),
             Rows<T>(random, n, H)};
    Guarded<T> projected(n * blocks * width);
    table.project_rows({n, 0, blocks, V, I, x.pointers.data() + first_row, W_panel.data(),
                        b_panel.data(), projected.data(), blocks * width});
    CellStepTile<T> s{};
    s.rows = n;
    s.first_block = first_block;
    s.end_block = end_block;
    s.H = H;
    s.I = I;
    s.P = P;
    s.x = fused ? x.pointers.data() + first_row : nullptr;
    s.W = W_panel.data();
    s.bias = b_panel.data();
    s.bias_h = b_h.data();
    s.projected = fused ? nullptr : projected.data();
    s.ld_projected = blocks * width;
    s.h_prev = h_prev.data() + first_row * ld_h_prev();
    s.h_past_R = h_past_R.data() + first_row * ld_h_prev();
    s.ld_h_prev = ld_h_prev();
    s.R = R_panel.data();
    s.c = r.c.data();
    s.ld_c = padded;
    s.h = r.h.data();
    s.ld_h = padded;
    s.output = save ? r.output.pointers.data() : nullptr;
    s.gates = save ? r.gates.data() : nullptr;
    s.ld_gates = 4 * H;
    s.saved_c = save ? r.saved_c.data() : nullptr;
    s.ld_saved_c = H;
    s.down = down;
    kernel(s);
    r.check_guards();
    return r;
  }

  Exact from_x(Index row, Index gate, Index j) const {
    const Index at = gate * H + j;
    Exact s = b[static_cast<std::size_t>(at)];
    for (Index k = 0; k < I; ++k) {
      s += Exact(x.at(row, k)) * W[static_cast<std::size_t>(at * I + k)];
    }
    return s;
  }
  Exact from_h(Index row, Index gate, Index j) const {
    Exact s = 0;
    for (Index k = 0; k < P; ++k) {
      s += Exact(h(row, k)) * R[static_cast<std::size_t>((gate * H + j) * P + k)];
    }
    return s;
  }
  Exact sum(Index row, Index gate, Index j) const {
    return from_x(row, gate, j) + from_h(row, gate, j);
  }
  T h(Index row, Index k) const { return h_prev[row * ld_h_prev() + k]; }
  T c(Index row, Index k) const { return c_prev[static_cast<std::size_t>(row * padded + k)]; }

  const KernelTable<T>& table;
  const Kernel kernel;
  Index G, V, rows, H, I, P, units, width, blocks, padded;
  Random random;
  std::vector<T> W, R, b;
  Guarded<T> b_h, W_panel, R_panel, b_panel;
  Rows<T> x;
  Guarded<T> h_prev, h_past_R;
  std::vector<T> c_prev;
};

/// What a step makes of one unit: h, c of an LSTM, and what training saves.
struct Unit {
  Exact h, c;
  std::vector<Exact> saved;
};

/// exact(step, row, j): the Unit wanted.
template <class T, class Unit_>
void check_step_tile_at(const KernelTable<T>& table, typename TileStep<T>::Kernel kernel, Index G,
                        Unit_ exact, Index rows, Index H, Index I, Index P) {
  NOTE("rows = " << rows << ", H = " << H << ", I = " << I << ", P = " << P);
  TileStep<T> step(table, kernel, G, rows, H, I, P);
  const auto whole = step.run(0, rows, true, true, 0, step.blocks);
  const Exact tolerance = 4 * kEpsilon<T> * static_cast<T>(4 + I + P);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < H; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const Unit want = exact(step, row, j);
      CHECK_CLOSE(whole.h[row * step.padded + j], want.h, tolerance);
      for (std::size_t k = 0; k < want.saved.size(); ++k) {
        const Index gate = static_cast<Index>(k);
        CHECK_CLOSE(whole.gates[row * 4 * H + gate * H + j], want.saved[k], tolerance);
      }
      CHECK_EQUAL(whole.output.at(row, j), whole.h[row * step.padded + j]);
      if (G != 4) continue;
      CHECK_CLOSE(whole.c[row * step.padded + j], want.c, tolerance);
      CHECK_EQUAL(whole.saved_c[row * H + j], whole.c[row * step.padded + j]);
    }
  }
  // The same bits from the last block to the first, with the inputs projected before, without the
  // outputs for training, for a row by itself, and for some blocks by themselves.
  for (const bool fused : {false, true}) {
    const auto down = step.run(0, rows, fused, true, 0, step.blocks, true);
    CHECK(same_bits(down.c, whole.c));
    CHECK(same_bits(down.h, whole.h));
    CHECK(same_bits(down.gates, whole.gates));
  }
  const auto projected = step.run(0, rows, false, false, 0, step.blocks);
  CHECK(same_bits(projected.c, whole.c));
  CHECK(same_bits(projected.h, whole.h));
  for (Index row = 0; row < rows; ++row) {
    const auto alone = step.run(row, 1, true, false, 0, step.blocks);
    CHECK(std::equal(alone.h.data(), alone.h.data() + step.padded,
                     &whole.h.data()[row * step.padded]));
    CHECK(std::equal(alone.c.data(), alone.c.data() + step.padded,
                     &whole.c.data()[row * step.padded]));
  }
  const Index cut = step.blocks / 2;
  const auto right = step.run(0, rows, true, false, cut, step.blocks);
  for (Index at = 0; at < rows * step.padded; ++at) {
    const bool computed = at % step.padded / step.units >= cut;
    if (computed) CHECK_EQUAL(right.h[at], whole.h[at]);
    CHECK_EQUAL(right.c[at], computed ? whole.c[at] : step.c_prev[static_cast<std::size_t>(at)]);
  }
}

template <class T, class Unit_>
void check_step_tile(const KernelTable<T>& table, typename TileStep<T>::Kernel kernel, Index G,
                     Unit_ exact) {
  for (const Index rows : kRows) {
    for (const Index H : kSizes) check_step_tile_at(table, kernel, G, exact, rows, H, 3, H);
    check_step_tile_at(table, kernel, G, exact, rows, 9, 600, 9);
  }
}

template <class T>
Unit exact_lstm(const TileStep<T>& step, Index row, Index j) {
  const Exact i = exact_sigmoid(step.sum(row, 0, j)), f = exact_sigmoid(step.sum(row, 1, j));
  const Exact g = exact_tanh(step.sum(row, 2, j)), o = exact_sigmoid(step.sum(row, 3, j));
  const Exact c = f * step.c(row, j) + i * g;
  return {o * exact_tanh(c), c, {i, f, g, o}};
}

template <class T>
void check_lstm_step_tile(const KernelTable<T>& table) {
  check_step_tile(table, table.lstm_step_tile, 4, exact_lstm<T>);
  for (const Index rows : kRows) {  // many inputs from h, as a wide projection has
    check_step_tile_at(table, table.lstm_step_tile, 4, exact_lstm<T>, rows, 9, 2, 600);
  }
}

template <class T>
Unit exact_gru(const TileStep<T>& step, Index row, Index j) {
  const Exact r = exact_sigmoid(step.sum(row, 0, j)), z = exact_sigmoid(step.sum(row, 1, j));
  const Exact m = step.from_h(row, 2, j) + step.b_h[j];
  const Exact n = exact_tanh(step.from_x(row, 2, j) + r * m);
  return {(1 - z) * n + z * step.h_past_R[row * step.ld_h_prev() + j], 0, {r, z, n, m}};
}

template <class T>
void check_gru_step_tile(const KernelTable<T>& table) {
  check_step_tile(table, table.gru_step_tile, 3, exact_gru<T>);
}

template <class T>
void check_rnn_tanh_step_tile(const KernelTable<T>& table) {
  check_step_tile(table, table.rnn_tanh_step_tile, 1, [](const auto& step, Index row, Index j) {
    const Exact h = exact_tanh(step.sum(row, 0, j));
    return Unit{h, 0, {h}};
  });
}

template <class T>
void check_rnn_relu_step_tile(const KernelTable<T>& table) {
  check_step_tile(table, table.rnn_relu_step_tile, 1, [](const auto& step, Index row, Index j) {
    const Exact h = std::max<Exact>(0, step.sum(row, 0, j));
    return Unit{h, 0, {h}};
  });
}

// --- GRU and RNN on sums
// ---------------------------------------------------------------------------

/// Calls body(rows, H, random) for numbers of rows and sizes.
template <class Body>
void for_each_size(Body body) {
  for (const Index rows : {0, 1, 3}) {
    for (const Index H : kSizes) {
      NOTE("rows = " << rows << ", H = " << H);
      Random random(static_cast<unsigned>(100 * rows + H));
      body(rows, H, random);
    }
  }
}

template <class T>
void check_gru_step(const KernelTable<T>& table) {
  for_each_size([&](Index rows, Index H, Random& random) {
    for (const bool save : {false, true}) {
      const Index ld = save ? 4 * H : 3 * H;
      const Guarded<T> bias(random.values<T>(3 * H, -1, 1)), bias_h(random.values<T>(H, -1, 1));
      const Guarded<T> from_h(random.values<T>(rows * 3 * H, -1, 1));
      const std::vector<T> from_x = random.values<T>(rows * ld, -4, 4);
      const std::vector<T> h_prev = random.values<T>(rows * H, -1, 1);
      Guarded<T> gates(from_x), h(h_prev);
      table.gru_step({rows, H, save, bias.data(), bias_h.data(), from_h.data(), gates.data(), ld,
                      nullptr, h.data()});
      gates.check_guards();
      h.check_guards();
      for (Index row = 0; row < rows; ++row) {
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", save " << save);
          const auto x = [&](Index k) {
            return Exact(from_x[static_cast<std::size_t>(row * ld + k * H + j)]) + bias[k * H + j];
          };
          const auto r_h = [&](Index k) { return Exact(from_h[row * 3 * H + k * H + j]); };
          const Exact r = exact_sigmoid(x(0) + r_h(0)), z = exact_sigmoid(x(1) + r_h(1));
          const Exact m = r_h(2) + bias_h[j], n = exact_tanh(x(2) + r * m);
          const Exact tolerance = 16 * kEpsilon<T>;
          const Exact before = h_prev[static_cast<std::size_t>(row * H + j)];
          CHECK_CLOSE(h[row * H + j], (1 - z) * n + z * before, tolerance);
          if (!save) continue;
          const Exact saved[] = {r, z, n, m};
          for (Index k = 0; k < 4; ++k)
            CHECK_CLOSE(gates[row * ld + k * H + j], saved[k], tolerance);
        }
      }
    }
  });
}

template <class T>
void check_gru_step_backward(const KernelTable<T>& table) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Guarded<T> gates(random.values<T>(rows * 4 * H, -1, 1));
    const Guarded<T> h_prev(random.values<T>(rows * H, -1, 1));
    const Index ld = H + 3;
    const Guarded<T> d_h(random.values<T>(rows * ld, -1, 1));
    const std::vector<T> past = random.values<T>(rows * H, -1, 1);
    Guarded<T> d_past(past), d_gates(rows * 3 * H), d_from_h(rows * 3 * H);
    CellStepBackward<T> call{};
    call.rows = rows;
    call.H = H;
    call.gates = gates.data();
    call.h_prev = h_prev.data();
    call.d_h = d_h.data();
    call.ld_d_h = ld;
    call.d_past_R = d_past.data();
    call.d_gates = d_gates.data();
    call.d_from_h = d_from_h.data();
    table.gru_step_backward(call);
    for (const Guarded<T>* array : {&d_past, &d_gates, &d_from_h}) array->check_guards();
    for (Index row = 0; row < rows; ++row) {
      for (Index j = 0; j < H; ++j) {
        NOTE("row = " << row << ", j = " << j);
        const auto gate = [&](Index k) { return Exact(gates[row * 4 * H + k * H + j]); };
        const Exact r = gate(0), z = gate(1), n = gate(2), m = gate(3);
        const Exact dh = Exact(d_h[row * ld + j]) + past[static_cast<std::size_t>(row * H + j)];
        const Exact dn = dh * (1 - z) * (1 - n * n), dr = dn * m * r * (1 - r);
        const Exact dz = dh * (h_prev[row * H + j] - n) * z * (1 - z);
        const Exact tolerance = 32 * kEpsilon<T>;
        const Index at = row * 3 * H + j;
        CHECK_CLOSE(d_gates[at], dr, tolerance);
        CHECK_CLOSE(d_gates[at + H], dz, tolerance);
        CHECK_CLOSE(d_gates[at + 2 * H], dn, tolerance);
        CHECK_CLOSE(d_from_h[at], dr, tolerance);
        CHECK_CLOSE(d_from_h[at + H], dz, tolerance);
        CHECK_CLOSE(d_from_h[at + 2 * H], dn * r, tolerance);
        CHECK_CLOSE(d_past[row * H + j], dh * z, tolerance);
      }
    }
  });
}

/// Other functions of bounded sums, which some of the sums of these tests are beyond.
template <class T>
StepOptions<T> other_functions() {
  return {false,
          {ActivationKind::kSoftsign},
          {ActivationKind::kScaledTanh, 0.5, 2},
          {ActivationKind::kTanh},
          T(1.5),
          false,
          nullptr,
          0,
          nullptr,
          0};
}

/// Both halves of a step, on the units first <= j < H alone, against the formulas.
template <class T>
void check_gru_halves(const KernelTable<T>& table, bool has_bias, const StepOptions<T>* options) {
  NOTE("bias " << has_bias << ", other functions " << (options != nullptr));
  const auto function = [options](Index gate, Exact sum) {
    if (options == nullptr) return gate < 2 ? exact_sigmoid(sum) : exact_tanh(sum);
    const Exact clip = options->clip;
    return exact_activation(gate < 2 ? options->gate : options->candidate,
                            std::clamp(sum, -clip, clip));
  };
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index first = H / 3, stride = H + 2, ld = 3 * stride, ld_h = H + 1;
    const Guarded<T> bias(random.values<T>(3 * H, -1, 1));
    const Guarded<T> from_x(random.values<T>(rows * ld, -4, 4));
    const std::vector<T> sums = random.values<T>(rows * ld, -1, 1);
    const Guarded<T> h_prev(random.values<T>(rows * ld_h, -1, 1));
    const Guarded<T> read_h(random.values<T>(rows * ld_h, -1, 1));
    Guarded<T> from_h(sums), reset_h(rows * ld_h), h(rows * ld_h), gates(rows * 3 * H);
    const GruHalfStep<T> s{rows,
                           first,
                           H,
                           H,
                           stride,
                           has_bias ? bias.data() : nullptr,
                           from_x.data(),
                           ld,
                           from_h.data(),
                           ld,
                           h_prev.data(),
                           read_h.data(),
                           ld_h,
                           reset_h.data(),
                           h.data(),
                           ld_h,
                           nullptr,
                           gates.data(),
                           3 * H,
                           options};
    table.gru_reset(s);
    table.gru_candidate(s);
    for (const Guarded<T>* a : {&from_h, &reset_h, &h, &gates}) a->check_guards();
    for (Index row = 0; row < rows; ++row) {
      for (Index j = first; j < H; ++j) {
        NOTE("row = " << row << ", j = " << j);
        Exact sum[3], value[3];
        for (Index gate = 0; gate < 3; ++gate) {
          const Index at = row * ld + gate * stride + j;
          sum[gate] = Exact(from_x[at]) + sums[static_cast<std::size_t>(at)] +
                      (has_bias ? bias[gate * H + j] : T(0));
          value[gate] = function(gate, sum[gate]);
        }
        const auto [r, z, n] = value;
        const Exact tolerance = 16 * kEpsilon<T>;
        CHECK_CLOSE(reset_h[row * ld_h + j], r * read_h[row * ld_h + j], tolerance);
        CHECK_CLOSE(h[row * ld_h + j], (1 - z) * n + z * h_prev[row * ld_h + j], tolerance);
        for (Index gate = 0; gate < 3; ++gate) {
          CHECK_CLOSE(gates[row * 3 * H + gate * H + j],
                      options == nullptr ? value[gate] : sum[gate], tolerance);
        }
      }
    }
  });
}

template <class T>
void check_gru_halves(const KernelTable<T>& table) {
  const StepOptions<T> others = other_functions<T>();
  for (const bool has_bias : {false, true}) {
    check_gru_halves<T>(table, has_bias, nullptr);
    check_gru_halves<T>(table, has_bias, &others);
  }
}

template <class T>
void check_gru_halves_backward(const KernelTable<T>& table, bool has_mask,
                               const StepOptions<T>* options) {
  NOTE("mask " << has_mask << ", other functions " << (options != nullptr));
  /// A gate's value and slope from what was saved of it.
  const auto value_and_slope = [options](Index gate, Exact saved) -> std::pair<Exact, Exact> {
    if (options == nullptr) {
      return {saved, gate < 2 ? saved * (1 - saved) : 1 - saved * saved};
    }
    const Exact clip = options->clip, sum = std::clamp(saved, -clip, clip);
    const Exact value = exact_activation(gate < 2 ? options->gate : options->candidate, sum);
    Exact slope = 1 / ((1 + std::abs(sum)) * (1 + std::abs(sum)));  // of Softsign
    if (gate == 2) {
      const Activation& f = options->candidate;
      slope = f.alpha * f.beta * (1 - (value / f.alpha) * (value / f.alpha));
    }
    return {value, sum == saved ? slope : Exact(0)};
  };
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index ld = H + 3;
    const T most = options == nullptr ? T(1) : T(3);
    const Guarded<T> gates(random.values<T>(rows * 3 * H, -most, most));
    const Guarded<T> h_prev(random.values<T>(rows * H, -1, 1));
    const Guarded<T> h_mask(random.values<T>(rows * H, 0, 2));
    const Guarded<T> d_h(random.values<T>(rows * ld, -1, 1));
    const Guarded<T> d_reset(random.values<T>(rows * ld, -1, 1));
    const std::vector<T> past = random.values<T>(rows * H, -1, 1);
    Guarded<T> d_past(past), d_gates(rows * 3 * H), reset_h(rows * H);
    const GruHalfStepBackward<T> s{
        rows,           H,      gates.data(),  h_prev.data(),  has_mask ? h_mask.data() : nullptr,
        d_h.data(),     ld,     d_past.data(), d_gates.data(), d_reset.data(),
        reset_h.data(), options};
    table.gru_candidate_backward(s);
    table.gru_reset_backward(s);
    for (const Guarded<T>* a : {&d_past, &d_gates, &reset_h}) a->check_guards();
    for (Index at = 0; at < rows * H; ++at) {
      NOTE("row = " << at / H << ", j = " << at % H);
      const Index row = at / H, j = at % H, gate = row * 3 * H + j;
      const auto [r, r_slope] = value_and_slope(0, gates[gate]);
      const auto [z, z_slope] = value_and_slope(1, gates[gate + H]);
      const auto [n, n_slope] = value_and_slope(2, gates[gate + 2 * H]);
      const Exact h = h_prev[at], mask = has_mask ? h_mask[at] : T(1);
      const Exact dh = Exact(d_h[row * ld + j]) + past[static_cast<std::size_t>(at)];
      const Exact d = d_reset[row * ld + j], tolerance = 32 * kEpsilon<T>;
      CHECK_CLOSE(d_gates[gate], d * h * mask * r_slope, tolerance);
      CHECK_CLOSE(d_gates[gate + H], dh * (h - n) * z_slope, tolerance);
      CHECK_CLOSE(d_gates[gate + 2 * H], dh * (1 - z) * n_slope, tolerance);
      CHECK_CLOSE(d_past[at], dh * z + d * r * mask, tolerance);
      CHECK_CLOSE(reset_h[at], r * h * mask, tolerance);
    }
  });
}

template <class T>
void check_gru_halves_backward(const KernelTable<T>& table) {
  const StepOptions<T> others = other_functions<T>();
  for (const bool has_mask : {false, true}) {
    check_gru_halves_backward<T>(table, has_mask, nullptr);
    check_gru_halves_backward<T>(table, has_mask, &others);
  }
}

template <class T>
void check_gru_reset(const KernelTable<T>& table) {
  check_gru_halves(table);
}
template <class T>
void check_gru_candidate(const KernelTable<T>& table) {
  check_gru_halves(table);
}
template <class T>
void check_gru_candidate_backward(const KernelTable<T>& table) {
  check_gru_halves_backward(table);
}
template <class T>
void check_gru_reset_backward(const KernelTable<T>& table) {
  check_gru_halves_backward(table);
}

template <class T, class Function>
void check_rnn_step(void (*kernel)(const CellStep<T>&) noexcept, Function function) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Guarded<T> bias(random.values<T>(H, -1, 1)), from_h(random.values<T>(rows * H, -1, 1));
    const std::vector<T> from_x = random.values<T>(rows * H, -4, 4);
    for (const bool save : {false, true}) {
      NOTE("save " << save);
      Guarded<T> gates(from_x), h(rows * H);
      kernel(
          {rows, H, save, bias.data(), nullptr, from_h.data(), gates.data(), H, nullptr, h.data()});
      gates.check_guards();
      h.check_guards();
      for (Index at = 0; at < rows * H; ++at) {
        const T x = from_x[static_cast<std::size_t>(at)];
        CHECK_CLOSE(h[at], function(Exact(x) + bias[at % H] + from_h[at]), 16 * kEpsilon<T>);
        CHECK_EQUAL(gates[at], save ? h[at] : x);
      }
    }
  });
}

/// slope: of the function, from its value.
template <class T, class Slope>
void check_rnn_step_backward(void (*kernel)(const CellStepBackward<T>&) noexcept, Slope slope) {
  for_each_size([&](Index rows, Index H, Random& random) {
    const Index ld = H + 3;
    std::vector<T> values = random.values<T>(rows * ld, -1, 1);
    if (!values.empty()) values[0] = 0;
    const Guarded<T> h(values), d_h(random.values<T>(rows * ld, -1, 1));
    Guarded<T> d_gates(rows * H);
    CellStepBackward<T> call{};
    call.rows = rows;
    call.H = H;
    call.h = h.data();
    call.ld_h = ld;
    call.d_h = d_h.data();
    call.ld_d_h = ld;
    call.d_gates = d_gates.data();
    kernel(call);
    d_gates.check_guards();
    for (Index at = 0; at < rows * H; ++at) {
      const Index from = at / H * ld + at % H;
      CHECK_CLOSE(d_gates[at], d_h[from] * slope(Exact(h[from])), 4 * kEpsilon<T>);
    }
    // Values that were saved, as h is another.
    const Guarded<T> saved(random.values<T>(rows * H, -1, 1));
    call.gates = saved.data();
    kernel(call);
    for (Index at = 0; at < rows * H; ++at) {
      const Exact want = d_h[at / H * ld + at % H] * slope(Exact(saved[at]));
      CHECK_CLOSE(d_gates[at], want, 4 * kEpsilon<T>);
    }
  });
}

template <class T>
void check_rnn_tanh_step(const KernelTable<T>& table) {
  check_rnn_step<T>(table.rnn_tanh_step, exact_tanh);
}
template <class T>
void check_rnn_relu_step(const KernelTable<T>& table) {
  check_rnn_step<T>(table.rnn_relu_step, [](Exact a) { return std::max<Exact>(a, 0); });
}
template <class T>
void check_rnn_tanh_step_backward(const KernelTable<T>& table) {
  check_rnn_step_backward<T>(table.rnn_tanh_step_backward, [](Exact h) { return 1 - h * h; });
}
template <class T>
void check_rnn_relu_step_backward(const KernelTable<T>& table) {
  check_rnn_step_backward<T>(table.rnn_relu_step_backward,
                             [](Exact h) { return h > 0 ? Exact(1) : Exact(0); });
}

// --- layer normalisation
// -----------------------------------------------------------------------------------------

/// A row less its mean, over its deviation, and that.
struct ExactNorm {
  explicit ExactNorm(const std::vector<Exact>& row) {
    Exact mean = 0, variance = 0;
    for (const Exact x : row) mean += x / static_cast<Exact>(row.size());
    for (const Exact x : row) variance += (x - mean) * (x - mean) / static_cast<Exact>(row.size());
    deviation = std::sqrt(variance + Exact(kNormEpsilon));
    for (const Exact x : row) values.push_back((x - mean) / deviation);
  }
  /// The gradient of the row, from that of the values.
  std::vector<Exact> backward(const std::vector<Exact>& d) const {
    Exact sum = 0, along = 0;
    for (std::size_t k = 0; k < d.size(); ++k) {
      sum += d[k] / static_cast<Exact>(d.size());
      along += d[k] * values[k] / static_cast<Exact>(d.size());
    }
    std::vector<Exact> of_row;
    for (std::size_t k = 0; k < d.size(); ++k) {
      of_row.push_back((d[k] - sum - values[k] * along) / deviation);
    }
    return of_row;
  }
  Exact operator[](Index k) const { return values[static_cast<std::size_t>(k)]; }

  Exact deviation;
  std::vector<Exact> values;
};

/// n values from `at` on.
template <class T>
std::vector<Exact> row_of(const Guarded<T>& values, Index at, Index n) {
  return {values.data() + at, values.data() + at + n};
}

/// The gates of a row of sums, one after another.
template <class T>
std::vector<Exact> gates_of(const Guarded<T>& sums, Index at, Index H, const GateStrides& strides,
                            Index lanes) {
  std::vector<Exact> row;
  for (Index gate = 0; gate < 4; ++gate) {
    for (Index j = 0; j < H; ++j) {
      row.push_back(sums[at + gate * strides.gate + j / lanes * strides.vector + j % lanes]);
    }
  }
  return row;
}

/// Calls body(rows, H, random, strides, width) for sizes, and for sums gate after gate and as tiles
/// write them, with rows of `width` elements.
template <class T, class Body>
void for_each_norm_size(const KernelTable<T>& table, Body body) {
  const Index lanes = table.lanes;
  for_each_size([&](Index rows, Index H, Random& random) {
    body(rows, H, random, GateStrides{H, lanes}, 4 * H);
    const Index blocks = (H + lanes - 1) / lanes;
    body(rows, H, random, GateStrides{lanes, 4 * lanes}, 4 * blocks * lanes);
  });
}

template <class T>
void check_normalise_sums(const KernelTable<T>& table) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    for (const bool has_bias : {false, true}) {
      const Index ld = width + 3;
      std::vector<T> values = random.values<T>(rows * ld, 2, 4);  // a mean that is not small
      const Guarded<T> gain(random.values<T>(4 * H, -1, 1)), bias(random.values<T>(4 * H, -1, 1));
      const Guarded<T> before(values);
      Guarded<T> sums(values);
      table.normalise_sums(
          {rows, H, strides, gain.data(), has_bias ? bias.data() : nullptr, sums.data(), ld});
      sums.check_guards();
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm norm(gates_of(before, row * ld, H, strides, table.lanes));
        const std::vector<Exact> got = gates_of(sums, row * ld, H, strides, table.lanes);
        for (Index k = 0; k < 4 * H; ++k) {
          NOTE("row = " << row << ", k = " << k);
          const Exact want = norm[k] * gain[k] + (has_bias ? Exact(bias[k]) : 0);
          CHECK_CLOSE(got[static_cast<std::size_t>(k)], want, 64 * kEpsilon<T>);
        }
      }
    }
  });
}

/// Both halves of a step, as a whole and with the units divided.
template <class T>
void check_lstm_norm_halves(const KernelTable<T>& table) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    const Index ld = width + 3, ld_c = H + 1, ld_h = H + 2;
    const Guarded<T> from_x(random.values<T>(rows * ld, -2, 2));
    const Guarded<T> from_h(random.values<T>(rows * ld, 1, 3));
    const Guarded<T> gain_h(random.values<T>(4 * H, -1, 1)), gain_c(random.values<T>(H, -1, 1));
    const Guarded<T> bias_c(random.values<T>(H, -1, 1)),
        c_prev(random.values<T>(rows * ld_c, 0, 4));
    const Guarded<T> keep(random.values<T>(rows * H, 0, 1));
    const LstmNorm<T> norm{nullptr, gain_h.data(), gain_c.data(), bias_c.data()};
    for (const bool zones : {false, true}) {
      const auto run = [&](Index cut, Guarded<T>& c, Guarded<T>& h, Guarded<T>& gates,
                           Guarded<T>& saved_c, Rows<T>& output) {
        Guarded<T> new_c(rows * ld_c);
        LstmNormStep<T> s{rows,
                          0,
                          H,
                          H,
                          strides,
                          &norm,
                          from_x.data(),
                          ld,
                          from_h.data(),
                          ld,
                          c.data(),
                          zones ? new_c.data() : c.data(),
                          ld_c,
                          h.data(),
                          ld_h,
                          output.pointers.data(),
                          gates.data(),
                          4 * H,
                          saved_c.data(),
                          H,
                          zones ? keep.data() : nullptr,
                          H};
        for (const auto half : {table.lstm_norm_gates, table.lstm_norm_hidden}) {
          s.first = cut;
          s.end = H;
          half(s);
          s.first = 0;
          s.end = cut;
          half(s);
        }
        for (const Guarded<T>* a : {&c, &h, &gates, &saved_c, &new_c}) a->check_guards();
      };
      Guarded<T> c(c_prev), h(rows * ld_h), gates(rows * 4 * H), saved_c(rows * H);
      Rows<T> output(random, rows, H);
      run(0, c, h, gates, saved_c, output);
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm of_h(gates_of(from_h, row * ld, H, strides, table.lanes));
        const std::vector<Exact> x = gates_of(from_x, row * ld, H, strides, table.lanes);
        const std::vector<Exact> raw = gates_of(from_h, row * ld, H, strides, table.lanes);
        const auto sum = [&](Index gate, Index j) {
          const Index at = gate * H + j;
          return x[static_cast<std::size_t>(at)] + gain_h[at] * of_h[at];
        };
        std::vector<Exact> new_c;
        for (Index j = 0; j < H; ++j) {
          new_c.push_back(exact_sigmoid(sum(1, j)) * c_prev[row * ld_c + j] +
                          exact_sigmoid(sum(0, j)) * exact_tanh(sum(2, j)));
        }
        const ExactNorm of_c(new_c);
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", zones = " << zones);
          const Exact part = zones ? Exact(keep[row * H + j]) : 0;
          const Exact computed = new_c[static_cast<std::size_t>(j)];
          const Exact tolerance = 64 * kEpsilon<T>;
          CHECK_CLOSE(c[row * ld_c + j], part * c_prev[row * ld_c + j] + (1 - part) * computed,
                      tolerance);
          CHECK_EQUAL(saved_c[row * H + j], c[row * ld_c + j]);
          // Rounding of c is divided by the deviation of its row.
          CHECK_CLOSE(h[row * ld_h + j],
                      exact_sigmoid(sum(3, j)) * exact_tanh(gain_c[j] * of_c[j] + bias_c[j]),
                      tolerance * (1 + 1 / of_c.deviation));
          CHECK_EQUAL(output.at(row, j), h[row * ld_h + j]);
          for (Index gate = 0; gate < 4; ++gate) {
            CHECK_EQUAL(Exact(gates[row * 4 * H + gate * H + j]),
                        raw[static_cast<std::size_t>(gate * H + j)]);
          }
        }
      }
      Guarded<T> parted_c(c_prev), parted_h(rows * ld_h), same_gates(rows * 4 * H);
      Guarded<T> same_saved_c(rows * H);
      run(H / 2 / table.lanes * table.lanes, parted_c, parted_h, same_gates, same_saved_c, output);
      CHECK(same_bits(parted_c, c));
      CHECK(same_bits(parted_h, h));
    }
  });
}

template <class T>
void check_lstm_norm_gates(const KernelTable<T>& table) {
  check_lstm_norm_halves(table);
}
template <class T>
void check_lstm_norm_hidden(const KernelTable<T>& table) {
  check_lstm_norm_halves(table);
}

template <class T>
void check_lstm_norm_backward(const KernelTable<T>& table) {
  for_each_norm_size(table, [&](Index rows, Index H, Random& random, GateStrides strides,
                                Index width) {
    const Index ld = H + 3, ld_x = width + 3;
    const Guarded<T> from_x(random.values<T>(rows * ld_x, -2, 2));
    const Guarded<T> from_h(random.values<T>(rows * 4 * H, 1, 3));
    const Guarded<T> gains(random.values<T>(9 * H, -1, 1)), bias(random.values<T>(4 * H, -1, 1));
    const Guarded<T> bias_c(random.values<T>(H, -1, 1)), c_prev(random.values<T>(rows * H, 0, 4));
    const Guarded<T> keep(random.values<T>(rows * H, 0, 1)),
        d_h(random.values<T>(rows * ld, -1, 1));
    const Guarded<T> past(random.values<T>(rows * H, -1, 1));
    const Guarded<T> sums_before(random.values<T>(14 * H, -1, 1));
    for (const bool zones : {false, true}) {
      Guarded<T> d_x(rows * 4 * H), d_from_h(rows * 4 * H), d_c(past), hidden(rows * H),
          room(kNormRows * 6 * H);
      Guarded<T> sums(sums_before);
      StepOptions<T> options{};
      options.keep_c = zones ? keep.data() : nullptr;
      options.ld_keep_c = H;
      const LstmNormBackward<T> norm{
          {gains.data(), gains.data() + 4 * H, gains.data() + 8 * H, bias_c.data()},
          bias.data(),
          strides,
          from_x.data(),
          ld_x,
          room.data(),
          sums.data()};
      CellStepBackward<T> call{};
      call.rows = rows;
      call.H = H;
      call.gates = from_h.data();
      call.c_prev = c_prev.data();
      call.d_h = d_h.data();
      call.ld_d_h = ld;
      call.d_past_R = d_c.data();
      call.d_gates = d_x.data();
      call.d_from_h = d_from_h.data();
      call.hidden = hidden.data();
      call.options = &options;
      call.norm = &norm;
      table.lstm_norm_backward(call);
      for (const Guarded<T>* a : {&d_x, &d_from_h, &d_c, &hidden, &room, &sums}) a->check_guards();

      std::vector<Exact> want_sums = row_of(sums_before, 0, 14 * H);
      Exact smallest = 1;  // of the deviations, which rounding is divided by, twice
      for (Index row = 0; row < rows; ++row) {
        const ExactNorm of_x(gates_of(from_x, row * ld_x, H, strides, table.lanes));
        const ExactNorm of_h(row_of(from_h, row * 4 * H, 4 * H));
        const auto sum = [&](Index gate, Index j) {
          const Index at = gate * H + j;
          return of_x[at] * gains[at] + of_h[at] * gains[4 * H + at] + bias[at];
        };
        const auto old_c = [&](Index j) { return Exact(c_prev[row * H + j]); };
        std::vector<Exact> c, d_normed;
        for (Index j = 0; j < H; ++j) {
          c.push_back(exact_sigmoid(sum(1, j)) * old_c(j) +
                      exact_sigmoid(sum(0, j)) * exact_tanh(sum(2, j)));
        }
        const ExactNorm of_c(c);
        smallest = std::min(smallest, of_c.deviation * std::min(of_x.deviation, of_h.deviation));
        const Exact tolerance = 256 * kEpsilon<T> / (smallest * smallest);
        const auto squashed = [&](Index j) {
          return exact_tanh(of_c[j] * gains[8 * H + j] + bias_c[j]);
        };
        for (Index j = 0; j < H; ++j) {
          const Exact d_seen =
              d_h[row * ld + j] * exact_sigmoid(sum(3, j)) * (1 - squashed(j) * squashed(j));
          d_normed.push_back(d_seen * gains[8 * H + j]);
          want_sums[static_cast<std::size_t>(12 * H + j)] += d_seen * of_c[j];
          want_sums[static_cast<std::size_t>(13 * H + j)] += d_seen;
        }
        const std::vector<Exact> through_c = of_c.backward(d_normed);
        std::vector<Exact> d_a(static_cast<std::size_t>(4 * H)), d_n_x, d_n_h;
        for (Index j = 0; j < H; ++j) {
          NOTE("row = " << row << ", j = " << j << ", zones = " << zones);
          const Exact part = zones ? Exact(keep[row * H + j]) : 0, from_next = past[row * H + j];
          const Exact dc = (1 - part) * from_next + through_c[static_cast<std::size_t>(j)];
          const Exact i = exact_sigmoid(sum(0, j)), f = exact_sigmoid(sum(1, j));
          const Exact g = exact_tanh(sum(2, j)), o = exact_sigmoid(sum(3, j));
          const Exact d[] = {dc * g * i * (1 - i), dc * old_c(j) * f * (1 - f),
                             dc * i * (1 - g * g), d_h[row * ld + j] * squashed(j) * o * (1 - o)};
          for (Index gate = 0; gate < 4; ++gate) {
            d_a[static_cast<std::size_t>(gate * H + j)] = d[gate];
          }
          CHECK_CLOSE(d_c[row * H + j], part * from_next + dc * f, tolerance);
          CHECK_CLOSE(hidden[row * H + j], o * squashed(j), tolerance);
        }
        for (Index k = 0; k < 4 * H; ++k) {
          const Exact d = d_a[static_cast<std::size_t>(k)];
          d_n_x.push_back(d * gains[k]);
          d_n_h.push_back(d * gains[4 * H + k]);
          want_sums[static_cast<std::size_t>(k)] += d;
          want_sums[static_cast<std::size_t>(4 * H + k)] += d * of_x[k];
          want_sums[static_cast<std::size_t>(8 * H + k)] += d * of_h[k];
        }
        const std::vector<Exact> want_x = of_x.backward(d_n_x), want_h = of_h.backward(d_n_h);
        for (Index k = 0; k < 4 * H; ++k) {
          NOTE("row = " << row << ", k = " << k << ", zones = " << zones);
          CHECK_CLOSE(d_x[row * 4 * H + k], want_x[static_cast<std::size_t>(k)], tolerance);
          CHECK_CLOSE(d_from_h[row * 4 * H + k], want_h[static_cast<std::size_t>(k)], tolerance);
        }
      }
      for (Index k = 0; k < 14 * H; ++k) {
        NOTE("k = " << k << ", zones = " << zones);
        CHECK_CLOSE(sums[k], want_sums[static_cast<std::size_t>(k)],
                    256 * kEpsilon<T> / (smallest * smallest));
      }
    }
  });
}

// --- others
// ---------------------------------------------------------------------------------------

template <class T>
void check_add_outer_products_at(const KernelTable<T>& table, Index n, Index rows, Index columns) {
  NOTE("n = " << n << ", rows = " << rows << ", columns = " << columns);
  const Index ld_d_sums = rows + 2, ld_values = columns + 1, ld_out = columns + 3;
  Random random(static_cast<unsigned>(n + 31 * rows + 1009 * columns));
  const Guarded<T> d_sums(random.values<T>(n * ld_d_sums, -1, 1));
  const Guarded<T> values(random.values<T>(n * ld_values, -1, 1));
  const std::vector<T> before = random.values<T>(rows * ld_out, -1, 1);
  const auto add = [&](Index first_row, Index some_rows, Index first, Index some) {
    Guarded<T> out(before);
    table.add_outer_products({n, some_rows, some, d_sums.data() + first_row, ld_d_sums,
                              values.data() + first, ld_values,
                              out.data() + first_row * ld_out + first, ld_out});
    out.check_guards();
    return out;
  };
  const Guarded<T> out = add(0, rows, 0, columns);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < ld_out; ++j) {
      NOTE("row = " << row << ", j = " << j);
      Exact want = before[static_cast<std::size_t>(row * ld_out + j)];
      if (j >= columns) {
        CHECK_EQUAL(out[row * ld_out + j], static_cast<T>(want));
        continue;
      }
      for (Index k = 0; k < n; ++k) {
        want += Exact(d_sums[k * ld_d_sums + row]) * values[k * ld_values + j];
      }
      CHECK_CLOSE(out[row * ld_out + j], want, kEpsilon<T> * static_cast<T>(n + 2));
    }
  }
  // A part of the rows and columns: the same bits.
  const Index row = rows / 2, column = columns / 2;
  const Guarded<T> part = add(row, rows - row, column, columns - column);
  for (Index r = row; r < rows; ++r) {
    for (Index j = column; j < columns; ++j) {
      CHECK_EQUAL(part[r * ld_out + j], out[r * ld_out + j]);
    }
  }
}

template <class T>
void check_add_outer_products(const KernelTable<T>& table) {
  for (const Index n : {0, 1, 5, 130}) {
    for (const Index rows : {1, 2, 5, 6, 7, 12, 13, 29}) {
      for (const Index columns : {1, 7, 8, 16, 17, 31, 33, 64, 65, 97}) {
        check_add_outer_products_at(table, n, rows, columns);
      }
    }
  }
  // More rows and columns than have panels at the same time.
  check_add_outer_products_at(table, 130, 200, 300);
  check_add_outer_products_at(table, 7, 97, 16 * table.lanes);
}

template <class T>
void check_add_column_sums(const KernelTable<T>& table) {
  const auto kernel = table.add_column_sums;
  for (const Index rows : {0, 1, 63, 64, 65, 200}) {
    for (const Index columns : kSizes) {
      NOTE("rows = " << rows << ", columns = " << columns);
      Random random(static_cast<unsigned>(columns));
      const Guarded<T> values(random.values<T>(rows * columns, -1, 1));
      const std::vector<T> before = random.values<T>(columns, -1, 1);
      Guarded<T> sums(before);
      kernel({rows, columns, values.data(), sums.data()});
      sums.check_guards();
      for (Index k = 0; k < columns; ++k) {
        Exact want = before[static_cast<std::size_t>(k)];
        for (Index row = 0; row < rows; ++row) want += values[row * columns + k];
        CHECK_CLOSE(sums[k], want, 4 * kEpsilon<T> * static_cast<T>(64 + rows / 64));
      }
    }
  }
}

template <class T>
void check_sum_squares(const KernelTable<T>& table) {
  for (const Index n : {0, 1, 7, 31, 32, 33, 1000}) {
    NOTE("n = " << n);
    Random random(static_cast<unsigned>(n));
    const Guarded<T> x(random.values<T>(n, -1, 1));
    Exact want = 0;
    for (Index k = 0; k < n; ++k) want += Exact(x[k]) * Exact(x[k]);
    double sum = -1;
    table.sum_squares({n, x.data(), &sum});
    CHECK(std::abs(Exact(sum) - want) <= 1e-14 * want);
  }
}

template <class T>
void check_scale_values(const KernelTable<T>& table) {
  for (const Index n : kSizes) {
    NOTE("n = " << n);
    Random random(static_cast<unsigned>(n));
    const Guarded<T> x(random.values<T>(n, -1, 1));
    Guarded<T> y(n);
    table.scale_values({n, 0.3, x.data(), y.data()});
    y.check_guards();
    for (Index k = 0; k < n; ++k) CHECK(y[k] == static_cast<T>(static_cast<double>(x[k]) * 0.3));
  }
}

template <class T>
void check_adam_step(const KernelTable<T>& table) {
  const double beta1 = 0.9, beta2 = 0.99, eps = 1e-3, shrink = 0.99, root = 0.3, step = 0.05;
  for (const double decay : {0.0, 0.1}) {
    for (const Index n : kSizes) {
      NOTE("decay = " << decay << ", n = " << n);
      Random random(static_cast<unsigned>(n));
      const Guarded<T> p(random.values<T>(n, -1, 1)), g(random.values<T>(n, -1, 1));
      const std::vector<T> m = random.values<T>(n, -1, 1), v = random.values<T>(n, 0, 1);
      Guarded<T> m_new(m), v_new(v), p_new(n);
      table.adam_step({n, beta1, beta2, eps, decay, shrink, root, step, p.data(), g.data(),
                       m_new.data(), v_new.data(), p_new.data()});
      m_new.check_guards();
      v_new.check_guards();
      p_new.check_guards();
      for (Index k = 0; k < n; ++k) {
        const Exact gradient = Exact(g[k]) + decay * p[k];
        const Exact m_want = beta1 * m[static_cast<std::size_t>(k)] + (1 - beta1) * gradient;
        const Exact v_want =
            beta2 * v[static_cast<std::size_t>(k)] + (1 - beta2) * gradient * gradient;
        CHECK_CLOSE(m_new[k], m_want, 8 * kEpsilon<T>);
        CHECK_CLOSE(v_new[k], v_want, 8 * kEpsilon<T>);
        const Exact size = m_want / (std::sqrt(v_want) / root + eps);
        CHECK_CLOSE(p_new[k], shrink * p[k] - step * size, 32 * kEpsilon<T>);
      }
    }
  }
}

template <class T>
void check_bernoulli_row(const KernelTable<T>& table) {
  constexpr std::uint64_t kSeed = 0x123456789abcdef0;
  constexpr std::uint64_t kRow = 0x300000005;
  constexpr std::uint32_t kStream = 0xC0000002;
  for (const double p : {0.0, 0.25, 0.9, 1.0}) {
    for (const Index first : {0, 8}) {
      for (const Index columns : kSizes) {
        NOTE("p = " << p << ", first = " << first << ", columns = " << columns);
        Guarded<T> y(columns);
        table.bernoulli_row({columns, first, kSeed, kStream, kRow, p, y.data()});
        y.check_guards();
        for (Index k = 0; k < columns; ++k) {
          std::uint32_t bits[4];
          philox_4x32(kSeed, kRow, static_cast<std::uint32_t>((first + k) / 4), kStream, bits);
          CHECK_EQUAL(y[k], bits[(first + k) % 4] < p * 4294967296.0 ? T(1) : T(0));
        }
      }
    }
  }
}

template <class T>
void check_dropout_row(const KernelTable<T>& table) {
  const auto kernel = table.dropout_row;
  constexpr std::uint64_t kSeed = 0x123456789abcdef0;
  constexpr std::uint64_t kRow = 0x300000005;
  constexpr std::uint32_t kLayer = 2;
  for (const double p : {0.0, 0.25, 0.5, 0.9, 1.0}) {
    for (const Index columns : kSizes) {
      NOTE("p = " << p << ", columns = " << columns);
      Random random(3);
      const Guarded<T> x(random.values<T>(columns, 1, 2));
      Guarded<T> y(columns), in_place(x);
      kernel({columns, kSeed, kLayer, kRow, p, x.data(), y.data()});
      kernel({columns, kSeed, kLayer, kRow, p, in_place.data(), in_place.data()});
      y.check_guards();
      in_place.check_guards();
      for (Index k = 0; k < columns; ++k) {
        std::uint32_t bits[4];
        philox_4x32(kSeed, kRow, static_cast<std::uint32_t>(k / 4), kLayer, bits);
        const bool kept = bits[k % 4] < (1 - p) * 4294967296.0;
        CHECK_EQUAL(y[k] != 0, kept);
        CHECK_CLOSE(y[k], kept ? x[k] / (1 - Exact(p)) : 0, 4 * kEpsilon<T> * std::abs(y[k]));
        CHECK_EQUAL(in_place[k], y[k]);
      }
    }
  }
  // The part that becomes zero is p.
  constexpr Index kMany = 100000;
  const std::vector<T> ones(kMany, T(1));
  std::vector<T> y(kMany);
  kernel({kMany, kSeed, kLayer, kRow, 0.3, ones.data(), y.data()});
  const auto zeros = std::count(y.begin(), y.end(), T(0));
  CHECK_CLOSE(static_cast<double>(zeros) / kMany, 0.3, 0.006);  // four standard deviations
}

// --- the list
// -------------------------------------------------------------------------------------

template <class Check>
void for_each_table(Check check) {
  const FlushDenormals flush_denormals;  // as inside every call
  std::vector<Target> targets = supported_targets();
  // The shapes of AVX-512 on any CPU (wide_target.cpp).
  targets.push_back({"wide", nullptr, true, &wide::float32_kernels, &wide::float64_kernels});
  for (const Target& target : targets) {
    NOTE("target " << target.name);
    check(*target.float32);
    check(*target.float64);
  }
}

#define FASTLSTM_TEST(name, Arguments)                              \
  TEST(name) {                                                      \
    for_each_table([](const auto& table) { check_##name(table); }); \
  }
FASTLSTM_KERNELS(FASTLSTM_TEST)

}  // namespace
