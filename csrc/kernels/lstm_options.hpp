// The LSTM with options: other activations, clipped sums, coupled gates, peepholes, zoneout of c.
#pragma once

#include "kernels/gate_functions.hpp"
#include "kernels/step_tile.hpp"

namespace fastlstm::FASTLSTM_TARGET {
namespace {

/// What the new cell state is made of, and the state before zoneout.
template <class T>
struct LstmMemory {
  Vec<T> i, f, g, c;
};

/// i, f, g: as saved.
template <class T, class Functions>
FASTLSTM_INLINE LstmMemory<T> lstm_memory(const StepOptions<T>& s, const Functions& functions,
                                          Vec<T> i, Vec<T> f, Vec<T> g, Vec<T> c_prev) {
  LstmMemory<T> m;
  m.i = functions.gate(i);
  m.f = s.input_forget ? Vec<T>::broadcast(1) - m.i : functions.gate(f);
  m.g = functions.candidate(g);
  m.c = fma(m.f, c_prev, m.i * m.g);
  return m;
}

/// Values of one vector of hidden units.
template <class T>
struct LstmOptionUnits {
  Vec<T> i, f, g, o;  // as saved
  Vec<T> c, h;
};

/// The equations for the units j... of a row. i, f, g, o: sums without peepholes; load: reads
/// peepholes and masks.
template <class T, class Functions, class Load>
FASTLSTM_INLINE LstmOptionUnits<T> lstm_option_units(const StepOptions<T>& s,
                                                     const Functions& functions, Vec<T> i, Vec<T> f,
                                                     Vec<T> g, Vec<T> o, Vec<T> c_prev, Index row,
                                                     Index j, Load load) {
  if (s.peephole != nullptr) {
    i = fma(load(s.peephole + j), c_prev, i);
    f = fma(load(s.peephole + s.ld_peephole + j), c_prev, f);
  }
  LstmOptionUnits<T> u;
  u.i = functions.saved_gate(i);
  u.f = functions.saved_gate(f);
  u.g = functions.saved_candidate(g);
  const LstmMemory<T> m = lstm_memory(s, functions, u.i, u.f, u.g, c_prev);
  const Vec<T> c = m.c;
  if (s.input_forget) u.f = m.f;
  if (s.peephole != nullptr) o = fma(load(s.peephole + 2 * s.ld_peephole + j), c, o);
  u.o = functions.saved_gate(o);
  u.h = functions.gate(u.o) * functions.hidden(c);
  u.c = c;
  if (s.keep_c != nullptr) {
    const Vec<T> keep = load(s.keep_c + row * s.ld_keep_c + j);
    u.c = fma(keep, c_prev, (Vec<T>::broadcast(1) - keep) * c);
  }
  return u;
}

/// lstm_step with options.
template <class T, class Functions>
void lstm_options_step(const CellStep<T>& s, const Functions& functions) {
  const Index H = s.H;
  for (Index row = 0; row < s.rows; ++row) {
    T* gates = s.gates + row * s.ld_gates;
    const T* from_h = s.from_h + row * 4 * H;
    T* c = s.c + row * H;
    T* h = s.h + row * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const auto sum = [&](Index k) FASTLSTM_INLINE_LAMBDA {
        return load(gates + k * H + j) + load(s.bias + k * H + j) + load(from_h + k * H + j);
      };
      const LstmOptionUnits<T> u = lstm_option_units<T>(*s.options, functions, sum(0), sum(1),
                                                        sum(2), sum(3), load(c + j), row, j, load);
      if (s.save) {
        store(u.i, gates + j);
        store(u.f, gates + H + j);
        store(u.g, gates + 2 * H + j);
        store(u.o, gates + 3 * H + j);
      }
      store(u.c, c + j);
      store(u.h, h + j);
    });
  }
}

/// The end of lstm_step_tile with options.
template <class T, class Functions>
FASTLSTM_NOINLINE void lstm_options_finish(const CellStepTile<T>& s, const TileSums<T, 4>& sums,
                                           const Functions& functions) {
  constexpr Index kLanes = Vec<T>::kLanes;
  const auto load = [](const T* p) FASTLSTM_INLINE_LAMBDA { return Vec<T>::load(p); };
  sums.for_each_block([&](Index row, Index block, const T* x, T* h) FASTLSTM_INLINE_LAMBDA {
    const auto sum = [&](Index gate) FASTLSTM_INLINE_LAMBDA {
      return load(x + gate * kLanes) + load(h + gate * kLanes);
    };
    const Index unit = block * kLanes, n = s.H - unit;
    T* c = s.c + row * s.ld_c + unit;
    const LstmOptionUnits<T> u = lstm_option_units<T>(*s.options, functions, sum(0), sum(1), sum(2),
                                                      sum(3), load(c), row, unit, load);
    u.c.store(c);
    u.h.store(s.h + row * s.ld_h + unit);
    if (s.output != nullptr) store_left(u.h, s.output[row] + unit, n);
    if (s.gates != nullptr) {
      T* gates = s.gates + row * s.ld_gates + unit;
      store_left(u.i, gates, n);
      store_left(u.f, gates + s.H, n);
      store_left(u.g, gates + 2 * s.H, n);
      store_left(u.o, gates + 3 * s.H, n);
      store_left(u.c, s.saved_c + row * s.ld_saved_c + unit, n);
    }
  });
}

/// lstm_step_backward with options.
template <class T, class Functions>
void lstm_options_backward(const CellStepBackward<T>& s, const Functions& functions) {
  const StepOptions<T>& options = *s.options;
  const Index H = s.H;
  const Vec<T> one = Vec<T>::broadcast(1);
  for (Index row = 0; row < s.rows; ++row) {
    const T* saved = s.gates + row * 4 * H;
    const T* d_h = s.d_h + row * s.ld_d_h;
    T* d_c = s.d_past_R + row * H;
    T* d_sums = s.d_gates + row * 4 * H;
    for_each_vector<T>(H, [&](Index j, auto load, auto store) FASTLSTM_INLINE_LAMBDA {
      const Vec<T> i = load(saved + j), f = load(saved + H + j);
      const Vec<T> g = load(saved + 2 * H + j), saved_o = load(saved + 3 * H + j);
      const Vec<T> c_prev = load(s.c_prev + row * H + j);
      const LstmMemory<T> m = lstm_memory(options, functions, i, f, g, c_prev);
      const Vec<T> o = functions.gate(saved_o), squashed = functions.hidden(m.c);
      if (s.hidden != nullptr) store(o * squashed, s.hidden + row * H + j);

      // Zoneout: c = keep c' + (1 - keep) m.c
      Vec<T> dc = load(d_c + j), d_c_prev = Vec<T>::broadcast(0);
      if (options.keep_c != nullptr) {
        const Vec<T> keep = load(options.keep_c + row * options.ld_keep_c + j);
        d_c_prev = keep * dc;
        dc = (one - keep) * dc;
      }
      // h = o hidden(c), and the sum of o reads c through its peephole.
      const Vec<T> dh = load(d_h + j);
      const Vec<T> d_a_o = dh * squashed * functions.gate_slope(saved_o);
      dc = fma(dh * o, functions.hidden_slope(m.c, squashed), dc);
      if (options.peephole != nullptr) {
        dc = fma(d_a_o, load(options.peephole + 2 * options.ld_peephole + j), dc);
      }
      // c = f c' + i g
      const Vec<T> d_f = dc * c_prev;
      const Vec<T> d_i = options.input_forget ? dc * m.g - d_f : dc * m.g;
      const Vec<T> d_a_i = d_i * functions.gate_slope(i);
      const Vec<T> d_a_f =
          options.input_forget ? Vec<T>::broadcast(0) : d_f * functions.gate_slope(f);
      d_c_prev = fma(dc, m.f, d_c_prev);
      if (options.peephole != nullptr) {
        d_c_prev = fma(d_a_i, load(options.peephole + j), d_c_prev);
        d_c_prev = fma(d_a_f, load(options.peephole + options.ld_peephole + j), d_c_prev);
        T* d_peephole = s.d_peephole + row * 3 * H;
        store(d_a_i * c_prev, d_peephole + j);
        store(d_a_f * c_prev, d_peephole + H + j);
        store(d_a_o * m.c, d_peephole + 2 * H + j);
      }
      store(d_a_i, d_sums + j);
      store(d_a_f, d_sums + H + j);
      store(dc * m.i * functions.candidate_slope(g), d_sums + 2 * H + j);
      store(d_a_o, d_sums + 3 * H + j);
      store(d_c_prev, d_c + j);
    });
  }
}

}  // namespace
}  // namespace fastlstm::FASTLSTM_TARGET
