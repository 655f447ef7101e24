/* fastlstm for C: recurrent layers (LSTM, GRU, RNN) on CPUs, whole sequences and streams.
 *
 * Handles are opaque. A stack is a number of layers with their weights, which never change: any
 * number of threads may use one at a time. A stream is a stack that goes on step by step and keeps
 * its state: one thread at a time may use it. Free handles once nobody uses them; a stream goes on
 * without its stack, which may be freed before it.
 *
 * Real time: fastlstm_stream_step_*, _process_*, _reset, _get_state_* and _set_state_* allocate
 * nothing, take no lock, make no system call and compute on the calling thread alone.
 *
 * Sizes: T time steps, B batch (sequences side by side), I input_size, O output_size, L num_layers,
 * D num_directions. Arrays are contiguous, the last index runs fastest. Those that are written must
 * not overlap others of the call. NaN and infinity go through as IEEE 754 says.
 *
 * A state is one array of all its parts, one after the other: h [L * D, B, width of h], and of an
 * LSTM c [L * D, B, hidden_size]; fastlstm_stack_state_part_* tell the parts. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define FASTLSTM_NOEXCEPT noexcept
#else
#define FASTLSTM_NOEXCEPT
#endif

typedef struct fastlstm_stack fastlstm_stack;
typedef struct fastlstm_stream fastlstm_stream;

/* What a function returns: 0, or why it has done nothing. */
typedef enum fastlstm_status {
  FASTLSTM_OK = 0,
  FASTLSTM_INVALID_ARGUMENT = 1, /* a null pointer, a size or a value out of range */
  FASTLSTM_WRONG_DTYPE = 2,      /* the function of the other type is needed */
  FASTLSTM_NOT_READABLE = 3,     /* the system does not give the file */
  FASTLSTM_BAD_FILE = 4,         /* it is damaged, or what it says does not fit together */
  FASTLSTM_UNSUPPORTED = 5,      /* it has what this version does not compute */
  FASTLSTM_OUT_OF_MEMORY = 6,
  FASTLSTM_INTERNAL = 7
} fastlstm_status;

typedef enum fastlstm_dtype { FASTLSTM_FLOAT32 = 1, FASTLSTM_FLOAT64 = 2 } fastlstm_dtype;

/* A parameter, by PyTorch's name, shape and order of gates: "weight_ih_l0", [4 * H, I]. */
typedef struct fastlstm_tensor {
  const char* name;
  const void* data; /* [rows, columns] in; of the stack's dtype; copied */
  int64_t rows;
  int64_t columns; /* 0: a vector */
} fastlstm_tensor;

/* The version of the library that runs, such as "0.2.0". */
const char* fastlstm_version(void) FASTLSTM_NOEXCEPT;
/* The name of a status. */
const char* fastlstm_status_name(fastlstm_status status) FASTLSTM_NOEXCEPT;
/* The instruction set in use, "avx2": the CPU's best, or what the environment variable FASTLSTM_ISA
 * names. Null where that names none. */
const char* fastlstm_isa(void) FASTLSTM_NOEXCEPT;
/* The most threads that a call of fastlstm_stack_run_* may use, for the whole process. 1 to 4096;
 * first it is that of FASTLSTM_NUM_THREADS, or of the CPUs that the process may use. */
fastlstm_status fastlstm_set_num_threads(int n) FASTLSTM_NOEXCEPT;

/* --- stacks -------------------------------------------------------------------------------------
 *
 * message: [message_size] out: why it failed, cut where it is longer; empty after success. Null: not
 * wanted.
 *
 * configuration: {"layer": "LSTM", "options": {"input_size": 1, "hidden_size": 16}}, the text that
 * files have in their metadata; options as those of Python's class. For a file that has one it is null
 * or empty, as for one whose tensors' names and shapes tell: an LSTM, or a GRU as PyTorch's. */

/* The layer in a safetensors file. */
fastlstm_status fastlstm_stack_load(const char* path, const char* configuration,
                                    fastlstm_stack** stack, char* message,
                                    size_t message_size) FASTLSTM_NOEXCEPT;
/* The same of a file's bytes in memory, which are not needed afterwards. */
fastlstm_status fastlstm_stack_load_bytes(const void* bytes, size_t size, const char* configuration,
                                          fastlstm_stack** stack, char* message,
                                          size_t message_size) FASTLSTM_NOEXCEPT;
/* A stack of arrays. tensors: [count] all parameters that the configuration has. */
fastlstm_status fastlstm_stack_create(const char* configuration, const fastlstm_tensor* tensors,
                                      size_t count, fastlstm_stack** stack, char* message,
                                      size_t message_size) FASTLSTM_NOEXCEPT;
/* Null: nothing happens. */
void fastlstm_stack_free(fastlstm_stack* stack) FASTLSTM_NOEXCEPT;

fastlstm_dtype fastlstm_stack_dtype(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
int64_t fastlstm_stack_input_size(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
int64_t fastlstm_stack_hidden_size(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
int64_t fastlstm_stack_num_layers(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
int64_t fastlstm_stack_num_directions(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
/* Values of an output: the width of h, for both directions unless they are merged into one. */
int64_t fastlstm_stack_output_size(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
/* Values of the state of so many sequences, all parts. */
int64_t fastlstm_stack_state_size(const fastlstm_stack* stack, int64_t batch) FASTLSTM_NOEXCEPT;
/* Parts of the state; the name and width of part k, null and 0 where there is none. */
int64_t fastlstm_stack_state_parts(const fastlstm_stack* stack) FASTLSTM_NOEXCEPT;
const char* fastlstm_stack_state_part_name(const fastlstm_stack* stack,
                                           int64_t k) FASTLSTM_NOEXCEPT;
int64_t fastlstm_stack_state_part_width(const fastlstm_stack* stack, int64_t k) FASTLSTM_NOEXCEPT;

/* Runs whole sequences, as inference does.
 * steps, batch: T and B, which may be 0.
 * batch_first: 0: x is [T, B, I] and output [T, B, O]; 1: [B, T, I] and [B, T, O].
 * lengths: [B] in: the steps of each sequence, 0 to T; null: T. Output past an end is zero.
 * x: in. state_0: [state_size] in; null: zeros. output: out. state_n: [state_size] out; null: not
 * wanted; it may be state_0. */
fastlstm_status fastlstm_stack_run_f32(const fastlstm_stack* stack, int64_t steps, int64_t batch,
                                       int batch_first, const int64_t* lengths, const float* x,
                                       const float* state_0, float* output,
                                       float* state_n) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stack_run_f64(const fastlstm_stack* stack, int64_t steps, int64_t batch,
                                       int batch_first, const int64_t* lengths, const double* x,
                                       const double* state_0, double* output,
                                       double* state_n) FASTLSTM_NOEXCEPT;

/* --- streams ------------------------------------------------------------------------------------ */

/* A stream of batch sequences side by side, its state zeros. All that a step needs is allocated and
 * touched here. A stack that reads sequences from their end cannot stream. */
fastlstm_status fastlstm_stream_create(const fastlstm_stack* stack, int64_t batch,
                                       fastlstm_stream** stream, char* message,
                                       size_t message_size) FASTLSTM_NOEXCEPT;
/* Null: nothing happens. */
void fastlstm_stream_free(fastlstm_stream* stream) FASTLSTM_NOEXCEPT;

/* One time step. x: [B, I] in; output: [B, O] out. */
fastlstm_status fastlstm_stream_step_f32(fastlstm_stream* stream, const float* x,
                                         float* output) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stream_step_f64(fastlstm_stream* stream, const double* x,
                                         double* output) FASTLSTM_NOEXCEPT;
/* A block of time steps: the bits of as many steps. x: [steps, B, I] in; output: [steps, B, O] out. */
fastlstm_status fastlstm_stream_process_f32(fastlstm_stream* stream, int64_t steps, const float* x,
                                            float* output) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stream_process_f64(fastlstm_stream* stream, int64_t steps, const double* x,
                                            double* output) FASTLSTM_NOEXCEPT;

/* Makes the state zeros. */
fastlstm_status fastlstm_stream_reset(fastlstm_stream* stream) FASTLSTM_NOEXCEPT;
/* state: [state_size of the stream's batch], out of the first, in of the second. */
fastlstm_status fastlstm_stream_get_state_f32(const fastlstm_stream* stream,
                                              float* state) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stream_get_state_f64(const fastlstm_stream* stream,
                                              double* state) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stream_set_state_f32(fastlstm_stream* stream,
                                              const float* state) FASTLSTM_NOEXCEPT;
fastlstm_status fastlstm_stream_set_state_f64(fastlstm_stream* stream,
                                              const double* state) FASTLSTM_NOEXCEPT;

#undef FASTLSTM_NOEXCEPT
#ifdef __cplusplus
}
#endif
