// fastlstm for C++17: recurrent layers (LSTM, GRU, RNN) on CPUs, whole sequences and streams.
//
//   auto stack = fastlstm::load("model.safetensors");  // what layer.save in Python wrote
//   fastlstm::Stream<float> stream(stack);
//   stream.step(x, y);                                  // or stream.process(x, y, 64)
//
// All of it is inline, over the C functions of fastlstm.h, which say more of arrays and sizes: the
// library can be of another compiler or C++ library, and be replaced by a later one (docs/cpp.md).
// T is float or double.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "fastlstm/fastlstm.h"

namespace fastlstm {
inline namespace v0 {

/// Why something could not be made or computed.
class Error : public std::runtime_error {
 public:
  Error(fastlstm_status status, const std::string& message)
      : std::runtime_error(message.empty() ? fastlstm_status_name(status) : message),
        status_(status) {}

  fastlstm_status status() const noexcept { return status_; }

 private:
  fastlstm_status status_;
};

namespace detail {

inline void check(fastlstm_status status, const char* message = "") {
  if (status == FASTLSTM_OUT_OF_MEMORY) throw std::bad_alloc();
  if (status != FASTLSTM_OK) throw Error(status, message);
}

/// The C functions of a type.
template <class T>
struct Functions;

template <>
struct Functions<float> {
  static constexpr fastlstm_dtype dtype = FASTLSTM_FLOAT32;
  static constexpr auto run = fastlstm_stack_run_f32;
  static constexpr auto step = fastlstm_stream_step_f32;
  static constexpr auto process = fastlstm_stream_process_f32;
  static constexpr auto get_state = fastlstm_stream_get_state_f32;
  static constexpr auto set_state = fastlstm_stream_set_state_f32;
};

template <>
struct Functions<double> {
  static constexpr fastlstm_dtype dtype = FASTLSTM_FLOAT64;
  static constexpr auto run = fastlstm_stack_run_f64;
  static constexpr auto step = fastlstm_stream_step_f64;
  static constexpr auto process = fastlstm_stream_process_f64;
  static constexpr auto get_state = fastlstm_stream_get_state_f64;
  static constexpr auto set_state = fastlstm_stream_set_state_f64;
};

}  // namespace detail

/// A parameter, by PyTorch's name, shape and order of gates.
template <class T>
struct Tensor {
  std::string name;
  const T* data;  // [rows, columns]
  std::int64_t rows;
  std::int64_t columns;  // 0: a vector
};

/// What one run reads and writes; see fastlstm_stack_run_f32.
template <class T>
struct Sequences {
  std::int64_t steps = 0;
  std::int64_t batch = 1;
  bool batch_first = false;
  const std::int64_t* lengths = nullptr;
  const T* x = nullptr;
  const T* state_0 = nullptr;
  T* output = nullptr;
  T* state_n = nullptr;
};

/// Layers with their weights, which never change. Any number of threads may use one; copies share
/// the weights.
template <class T>
class Stack {
 public:
  /// Of arrays. configuration: {"layer": "GRU", "options": {"input_size": 1, "hidden_size": 16}}
  Stack(const std::string& configuration, const std::vector<Tensor<T>>& parameters) {
    std::vector<fastlstm_tensor> tensors;
    tensors.reserve(parameters.size());
    for (const Tensor<T>& p : parameters) {
      tensors.push_back({p.name.c_str(), p.data, p.rows, p.columns});
    }
    make([&](fastlstm_stack** made, char* message, std::size_t size) {
      return fastlstm_stack_create(configuration.c_str(), tensors.data(), tensors.size(), made,
                                   message, size);
    });
  }

  /// The layer in a safetensors file; configuration: of a file that has none.
  static Stack load(const std::string& path, const std::string& configuration = "") {
    Stack stack;
    stack.make([&](fastlstm_stack** made, char* message, std::size_t size) {
      return fastlstm_stack_load(path.c_str(), configuration.c_str(), made, message, size);
    });
    return stack;
  }

  /// The same of a file's bytes in memory, which are not needed afterwards.
  static Stack load_bytes(const void* bytes, std::size_t count,
                          const std::string& configuration = "") {
    Stack stack;
    stack.make([&](fastlstm_stack** made, char* message, std::size_t size) {
      return fastlstm_stack_load_bytes(bytes, count, configuration.c_str(), made, message, size);
    });
    return stack;
  }

  std::int64_t input_size() const noexcept { return fastlstm_stack_input_size(handle()); }
  std::int64_t hidden_size() const noexcept { return fastlstm_stack_hidden_size(handle()); }
  std::int64_t num_layers() const noexcept { return fastlstm_stack_num_layers(handle()); }
  std::int64_t num_directions() const noexcept { return fastlstm_stack_num_directions(handle()); }
  std::int64_t output_size() const noexcept { return fastlstm_stack_output_size(handle()); }
  std::int64_t state_size(std::int64_t batch = 1) const noexcept {
    return fastlstm_stack_state_size(handle(), batch);
  }

  /// Runs whole sequences, as inference does.
  void run(const Sequences<T>& s) const {
    detail::check(detail::Functions<T>::run(handle(), s.steps, s.batch, s.batch_first ? 1 : 0,
                                            s.lengths, s.x, s.state_0, s.output, s.state_n));
  }

  /// For the functions of fastlstm.h; lives as long as a copy of the stack does.
  const fastlstm_stack* handle() const noexcept { return handle_.get(); }

 private:
  Stack() = default;

  template <class Make>
  void make(const Make& make) {
    char message[512] = "";
    fastlstm_stack* made = nullptr;
    detail::check(make(&made, message, sizeof message), message);
    handle_.reset(made, fastlstm_stack_free);
    if (fastlstm_stack_dtype(made) != detail::Functions<T>::dtype) {
      throw Error(FASTLSTM_WRONG_DTYPE, "the layer computes in the other of float and double");
    }
  }

  std::shared_ptr<fastlstm_stack> handle_;
};

/// The layer in a safetensors file: load<double> where it is one of float64.
template <class T = float>
Stack<T> load(const std::string& path, const std::string& configuration = "") {
  return Stack<T>::load(path, configuration);
}

/// A stack that goes on step by step and keeps its state. One thread at a time may use it. What is
/// noexcept allocates nothing, takes no lock and makes no system call. A stream that was moved from
/// may only be destroyed or assigned to.
template <class T>
class Stream {
 public:
  /// Allocates all that steps need. batch: B, sequences side by side.
  explicit Stream(const Stack<T>& stack, std::int64_t batch = 1) {
    char message[512] = "";
    fastlstm_stream* made = nullptr;
    detail::check(fastlstm_stream_create(stack.handle(), batch, &made, message, sizeof message),
                  message);
    handle_.reset(made);
  }

  /// One time step. x: [B, I] in; output: [B, O] out; apart from each other.
  void step(const T* x, T* output) noexcept {
    detail::Functions<T>::step(handle_.get(), x, output);
  }
  /// A block of time steps: the bits of as many steps. x: [steps, B, I] in; output: [steps, B, O]
  /// out.
  void process(const T* x, T* output, std::int64_t steps) noexcept {
    detail::Functions<T>::process(handle_.get(), steps, x, output);
  }
  /// Makes the state zeros.
  void reset() noexcept { fastlstm_stream_reset(handle_.get()); }
  /// state: [state_size(B)] of the stack
  void get_state(T* state) const noexcept { detail::Functions<T>::get_state(handle_.get(), state); }
  void set_state(const T* state) noexcept { detail::Functions<T>::set_state(handle_.get(), state); }

 private:
  struct Free {
    void operator()(fastlstm_stream* stream) const noexcept { fastlstm_stream_free(stream); }
  };
  std::unique_ptr<fastlstm_stream, Free> handle_;
};

}  // namespace v0
}  // namespace fastlstm
