// The C functions: they check what callers give, and turn exceptions into statuses.
#if defined(FASTLSTM_EXPORTS)  // the shared library's; all else in it is hidden
#pragma GCC visibility push(default)
#include "fastlstm/fastlstm.h"
#pragma GCC visibility pop
#else
#include "fastlstm/fastlstm.h"
#endif

#include <algorithm>
#include <exception>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "fastlstm/runtime.hpp"
#include "fastlstm/stack.hpp"
#include "files/stack_file.hpp"
#include "runtime/buffer.hpp"
#include "runtime/targets.hpp"

using fastlstm::Index;

struct fastlstm_stack {
  fastlstm::AnyStack layers;

  const fastlstm::StackConfig& config() const {
    return std::visit([](const auto& stack) -> const auto& { return stack.config(); }, layers);
  }
};

struct fastlstm_stream {
  std::variant<fastlstm::Stream<float>, fastlstm::Stream<double>> layers;
  // Whether the core would divide a step among threads, of which a stream of this interface has
  // one.
  bool divides;
};

namespace {

using fastlstm::BadFile;
using fastlstm::ForwardCall;
using fastlstm::kMostStateParts;
using fastlstm::NotReadable;
using fastlstm::StackConfig;
using fastlstm::Stream;
using fastlstm::Unsupported;

// The most values of an array: their bytes are an Index.
constexpr Index kMostValues = std::numeric_limits<Index>::max() / 16;

// --- errors -------------------------------------------------------------------------------------

/// A caller's buffer for why something failed.
class Message {
 public:
  Message(char* text, std::size_t size) : text_(text), size_(text != nullptr ? size : 0) {
    set("");
  }

  void set(std::string_view why) const {
    if (size_ > 0) text_[why.copy(text_, size_ - 1)] = '\0';
  }

 private:
  char* text_;
  std::size_t size_;
};

/// The status of a call of body, which may throw.
template <class Body>
fastlstm_status status_of(const Message& message, const Body& body) noexcept {
  try {
    body();
    return FASTLSTM_OK;
  } catch (const std::bad_alloc&) {
    message.set("no memory");
    return FASTLSTM_OUT_OF_MEMORY;
  } catch (const std::length_error&) {  // of the library's vectors and strings
    message.set("no memory");
    return FASTLSTM_OUT_OF_MEMORY;
  } catch (const BadFile& error) {
    message.set(error.what());
    return FASTLSTM_BAD_FILE;
  } catch (const Unsupported& error) {
    message.set(error.what());
    return FASTLSTM_UNSUPPORTED;
  } catch (const NotReadable& error) {
    message.set(error.what());
    return FASTLSTM_NOT_READABLE;
  } catch (const std::invalid_argument& error) {
    message.set(error.what());
    return FASTLSTM_INVALID_ARGUMENT;
  } catch (const std::exception& error) {
    message.set(error.what());
    return FASTLSTM_INTERNAL;
  } catch (...) {
    return FASTLSTM_INTERNAL;
  }
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// --- stacks -------------------------------------------------------------------------------------

template <class Make>
fastlstm_status make_handle(const Message& message, fastlstm_stack** stack, const Make& make) {
  return status_of(message, [&] {
    require(stack != nullptr, "stack: expected a pointer, got null");
    *stack = nullptr;
    static_cast<void>(fastlstm::num_threads());  // a wrong FASTLSTM_NUM_THREADS is told here
    *stack = new fastlstm_stack{make()};
  });
}

std::string_view text_or_empty(const char* text) {
  return text != nullptr ? std::string_view(text) : std::string_view();
}

/// A caller's tensor as that of a file.
fastlstm::Tensor tensor_of(const fastlstm_tensor& given, bool is_double) {
  require(given.name != nullptr && given.data != nullptr, "tensors: a null pointer");
  require(given.rows > 0 && given.columns >= 0 &&
              given.rows <= kMostValues / std::max<Index>(1, given.columns),
          "tensors: rows or columns out of range");
  fastlstm::Tensor tensor{given.name, is_double ? "F64" : "F32", {given.rows}, {}};
  if (given.columns > 0) tensor.shape.push_back(given.columns);
  const Index values = given.rows * std::max<Index>(1, given.columns);
  tensor.bytes = {static_cast<const char*>(given.data),
                  static_cast<std::size_t>(values) * (is_double ? sizeof(double) : sizeof(float))};
  return tensor;
}

/// Values of the state of so many sequences.
Index state_size(const StackConfig& config, Index batch) {
  return config.cells() * batch * (config.output_size() + config.memory_size());
}

/// Whether arrays of a call of so many sequences and steps can be.
bool in_range(const StackConfig& config, Index steps, Index batch) {
  const Index widest = std::max({config.input_size, config.merged_size(), state_size(config, 1)});
  return 0 <= steps && 0 <= batch && batch <= kMostValues / widest &&
         (batch == 0 || steps <= kMostValues / widest / batch);
}

/// The parts of a state, one after the other; null: null. to: [kMostStateParts]
template <class T>
void split_state(const StackConfig& config, Index batch, T* state, T** to) {
  if (state == nullptr) return;
  *to = state;
  T* memory = state + config.cells() * batch * config.output_size();
  for (Index k = 1; k <= config.memory_parts(); ++k) {
    to[k] = memory;
    memory += config.cells() * batch * config.hidden_size;
  }
}

template <class T>
fastlstm_status run(const fastlstm_stack* handle, Index steps, Index batch, bool batch_first,
                    const Index* lengths, const T* x, const T* state_0, T* output,
                    T* state_n) noexcept {
  if (handle == nullptr) return FASTLSTM_INVALID_ARGUMENT;
  const auto* stack = std::get_if<fastlstm::Stack<T>>(&handle->layers);
  if (stack == nullptr) return FASTLSTM_WRONG_DTYPE;
  const StackConfig& config = stack->config();
  if (!in_range(config, steps, batch)) return FASTLSTM_INVALID_ARGUMENT;
  const bool empty = steps == 0 || batch == 0;
  if (!empty && (x == nullptr || output == nullptr)) return FASTLSTM_INVALID_ARGUMENT;
  if (lengths != nullptr && std::any_of(lengths, lengths + batch, [steps](Index length) {
        return length < 0 || length > steps;
      })) {
    return FASTLSTM_INVALID_ARGUMENT;
  }
  return status_of(Message(nullptr, 0), [&] {
    const Index I = config.input_size, O = config.merged_size();
    ForwardCall<T> call;
    call.steps = steps;
    call.B = batch;
    call.lengths = lengths;
    call.x = batch_first ? fastlstm::SequenceView<const T>{x, I, steps * I}
                         : fastlstm::SequenceView<const T>{x, batch * I, I};
    call.output = batch_first ? fastlstm::SequenceView<T>{output, O, steps * O}
                              : fastlstm::SequenceView<T>{output, batch * O, O};
    fastlstm::Buffer<T> own;  // where the core writes what is not wanted
    if (state_n == nullptr) {
      own.resize(state_size(config, batch));
      state_n = own.data();
    }
    split_state(config, batch, state_0, call.state_0);
    split_state(config, batch, state_n, call.state_n);
    stack->forward(call);
  });
}

// --- streams ------------------------------------------------------------------------------------

/// Lets calls of the core compute on this thread alone while it lives.
class OneThread {
 public:
  explicit OneThread(bool needed)
      : before_(needed ? fastlstm::set_thread_local_num_threads(1) : kNotSet) {}
  ~OneThread() {
    if (before_ != kNotSet) fastlstm::set_thread_local_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  static constexpr int kNotSet = -1;
  const int before_;
};

/// The stream, or null.
template <class T, class Handle>
auto* stream_of(Handle* handle) {
  return handle != nullptr ? std::get_if<Stream<T>>(&handle->layers) : nullptr;
}

fastlstm_status wrong_stream(const fastlstm_stream* handle) {
  return handle == nullptr ? FASTLSTM_INVALID_ARGUMENT : FASTLSTM_WRONG_DTYPE;
}

template <class T>
fastlstm_status process(fastlstm_stream* handle, Index steps, const T* x, T* output) noexcept {
  Stream<T>* const stream = stream_of<T>(handle);
  if (stream == nullptr) return wrong_stream(handle);
  if (steps < 0 || (steps > 0 && (x == nullptr || output == nullptr))) {
    return FASTLSTM_INVALID_ARGUMENT;
  }
  const OneThread one_thread(handle->divides);
  stream->step(x, output, steps);
  return FASTLSTM_OK;
}

template <class T>
fastlstm_status get_state(const fastlstm_stream* handle, T* state) noexcept {
  const Stream<T>* const stream = stream_of<T>(handle);
  if (stream == nullptr) return wrong_stream(handle);
  if (state == nullptr) return FASTLSTM_INVALID_ARGUMENT;
  T* parts[kMostStateParts] = {};
  split_state(stream->config(), stream->batch_size(), state, parts);
  stream->get_state(parts);
  return FASTLSTM_OK;
}

/// state null: zeros.
template <class T>
void set_state_of(Stream<T>& stream, const T* state) noexcept {
  const T* parts[kMostStateParts] = {};
  split_state(stream.config(), stream.batch_size(), state, parts);
  stream.set_state(parts);
}

template <class T>
fastlstm_status set_state(fastlstm_stream* handle, const T* state) noexcept {
  Stream<T>* const stream = stream_of<T>(handle);
  if (stream == nullptr) return wrong_stream(handle);
  if (state == nullptr) return FASTLSTM_INVALID_ARGUMENT;
  set_state_of(*stream, state);
  return FASTLSTM_OK;
}

/// A stream that has made a step: what is made or linked at first use is there, and its memory has
/// been touched.
template <class T>
fastlstm_stream* new_stream(const fastlstm::Stack<T>& stack, Index batch) {
  const OneThread one_thread(true);
  Stream<T> stream(stack, batch);
  const StackConfig& config = stack.config();
  fastlstm::Buffer<T> x(batch, config.input_size), output(batch, config.output_size());
  x.fill_zero();
  stream.step(x.data(), output.data());
  set_state_of<T>(stream, nullptr);
  const bool divides = stream.shares_steps();
  return new fastlstm_stream{std::move(stream), divides};
}

}  // namespace

// --- the functions ------------------------------------------------------------------------------

const char* fastlstm_version() noexcept { return FASTLSTM_VERSION; }

const char* fastlstm_status_name(fastlstm_status status) noexcept {
  switch (status) {
    case FASTLSTM_OK:
      return "ok";
    case FASTLSTM_INVALID_ARGUMENT:
      return "invalid argument";
    case FASTLSTM_WRONG_DTYPE:
      return "wrong dtype";
    case FASTLSTM_NOT_READABLE:
      return "file not readable";
    case FASTLSTM_BAD_FILE:
      return "bad file";
    case FASTLSTM_UNSUPPORTED:
      return "unsupported";
    case FASTLSTM_OUT_OF_MEMORY:
      return "out of memory";
    case FASTLSTM_INTERNAL:
    default:
      return "internal error";
  }
}

const char* fastlstm_isa() noexcept {
  try {
    return fastlstm::active_target().name;
  } catch (const std::exception&) {
    return nullptr;
  }
}

fastlstm_status fastlstm_set_num_threads(int n) noexcept {
  return status_of(Message(nullptr, 0), [&] { fastlstm::set_num_threads(n); });
}

fastlstm_status fastlstm_stack_load(const char* path, const char* configuration,
                                    fastlstm_stack** stack, char* message,
                                    std::size_t message_size) noexcept {
  return make_handle(Message(message, message_size), stack, [&] {
    require(path != nullptr, "path: expected a text, got null");
    const std::vector<char> bytes = fastlstm::read_file(path);
    return fastlstm::read_stack({bytes.data(), bytes.size()}, text_or_empty(configuration));
  });
}

fastlstm_status fastlstm_stack_load_bytes(const void* bytes, std::size_t size,
                                          const char* configuration, fastlstm_stack** stack,
                                          char* message, std::size_t message_size) noexcept {
  return make_handle(Message(message, message_size), stack, [&] {
    require(bytes != nullptr || size == 0, "bytes: expected a pointer, got null");
    return fastlstm::read_stack({static_cast<const char*>(bytes), size},
                                text_or_empty(configuration));
  });
}

fastlstm_status fastlstm_stack_create(const char* configuration, const fastlstm_tensor* tensors,
                                      std::size_t count, fastlstm_stack** stack, char* message,
                                      std::size_t message_size) noexcept {
  return make_handle(Message(message, message_size), stack, [&] {
    require(tensors != nullptr || count == 0, "tensors: expected a pointer, got null");
    const fastlstm::Configuration of_stack =
        fastlstm::read_configuration(text_or_empty(configuration));
    std::vector<fastlstm::Tensor> all;
    all.reserve(count);
    for (std::size_t k = 0; k < count; ++k) {
      all.push_back(tensor_of(tensors[k], of_stack.is_double));
    }
    return fastlstm::make_stack(of_stack, all);
  });
}

void fastlstm_stack_free(fastlstm_stack* stack) noexcept { delete stack; }

fastlstm_dtype fastlstm_stack_dtype(const fastlstm_stack* stack) noexcept {
  return std::holds_alternative<fastlstm::Stack<double>>(stack->layers) ? FASTLSTM_FLOAT64
                                                                        : FASTLSTM_FLOAT32;
}

int64_t fastlstm_stack_input_size(const fastlstm_stack* stack) noexcept {
  return stack->config().input_size;
}

int64_t fastlstm_stack_hidden_size(const fastlstm_stack* stack) noexcept {
  return stack->config().hidden_size;
}

int64_t fastlstm_stack_num_layers(const fastlstm_stack* stack) noexcept {
  return stack->config().num_layers;
}

int64_t fastlstm_stack_num_directions(const fastlstm_stack* stack) noexcept {
  return stack->config().directions();
}

int64_t fastlstm_stack_output_size(const fastlstm_stack* stack) noexcept {
  return stack->config().merged_size();
}

int64_t fastlstm_stack_state_size(const fastlstm_stack* stack, int64_t batch) noexcept {
  return state_size(stack->config(), batch);
}

int64_t fastlstm_stack_state_parts(const fastlstm_stack* stack) noexcept {
  return stack->config().memory_parts() + 1;
}

const char* fastlstm_stack_state_part_name(const fastlstm_stack* stack, int64_t k) noexcept {
  if (k < 0 || k >= fastlstm_stack_state_parts(stack)) return nullptr;
  return k == 0 ? "h" : stack->config().facts().memory[k - 1];
}

int64_t fastlstm_stack_state_part_width(const fastlstm_stack* stack, int64_t k) noexcept {
  if (k < 0 || k >= fastlstm_stack_state_parts(stack)) return 0;
  return k == 0 ? stack->config().output_size() : stack->config().hidden_size;
}

fastlstm_status fastlstm_stack_run_f32(const fastlstm_stack* stack, int64_t steps, int64_t batch,
                                       int batch_first, const int64_t* lengths, const float* x,
                                       const float* state_0, float* output,
                                       float* state_n) noexcept {
  return run<float>(stack, steps, batch, batch_first != 0, lengths, x, state_0, output, state_n);
}

fastlstm_status fastlstm_stack_run_f64(const fastlstm_stack* stack, int64_t steps, int64_t batch,
                                       int batch_first, const int64_t* lengths, const double* x,
                                       const double* state_0, double* output,
                                       double* state_n) noexcept {
  return run<double>(stack, steps, batch, batch_first != 0, lengths, x, state_0, output, state_n);
}

fastlstm_status fastlstm_stream_create(const fastlstm_stack* stack, int64_t batch,
                                       fastlstm_stream** stream, char* message,
                                       std::size_t message_size) noexcept {
  return status_of(Message(message, message_size), [&] {
    require(stream != nullptr, "stream: expected a pointer, got null");
    *stream = nullptr;
    require(stack != nullptr, "stack: expected one, got null");
    const StackConfig& config = stack->config();
    require(batch > 0 && in_range(config, 1, batch), "batch: out of range");
    *stream =
        std::visit([&](const auto& layers) { return new_stream(layers, batch); }, stack->layers);
  });
}

void fastlstm_stream_free(fastlstm_stream* stream) noexcept { delete stream; }

fastlstm_status fastlstm_stream_step_f32(fastlstm_stream* stream, const float* x,
                                         float* output) noexcept {
  return process<float>(stream, 1, x, output);
}

fastlstm_status fastlstm_stream_step_f64(fastlstm_stream* stream, const double* x,
                                         double* output) noexcept {
  return process<double>(stream, 1, x, output);
}

fastlstm_status fastlstm_stream_process_f32(fastlstm_stream* stream, int64_t steps, const float* x,
                                            float* output) noexcept {
  return process<float>(stream, steps, x, output);
}

fastlstm_status fastlstm_stream_process_f64(fastlstm_stream* stream, int64_t steps, const double* x,
                                            double* output) noexcept {
  return process<double>(stream, steps, x, output);
}

fastlstm_status fastlstm_stream_reset(fastlstm_stream* stream) noexcept {
  if (stream == nullptr) return FASTLSTM_INVALID_ARGUMENT;
  if (auto* layers = stream_of<float>(stream)) set_state_of<float>(*layers, nullptr);
  if (auto* layers = stream_of<double>(stream)) set_state_of<double>(*layers, nullptr);
  return FASTLSTM_OK;
}

fastlstm_status fastlstm_stream_get_state_f32(const fastlstm_stream* stream,
                                              float* state) noexcept {
  return get_state(stream, state);
}

fastlstm_status fastlstm_stream_get_state_f64(const fastlstm_stream* stream,
                                              double* state) noexcept {
  return get_state(stream, state);
}

fastlstm_status fastlstm_stream_set_state_f32(fastlstm_stream* stream,
                                              const float* state) noexcept {
  return set_state(stream, state);
}

fastlstm_status fastlstm_stream_set_state_f64(fastlstm_stream* stream,
                                              const double* state) noexcept {
  return set_state(stream, state);
}
