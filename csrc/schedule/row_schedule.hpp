// Which rows of a batch live at which time step, and where they stand in packed order.
//
// Rows are sorted by length, longest first, so that the live rows of every step are a prefix of the
// sorted rows. Packed order is step by step, and within a step the live rows:
//
//   lengths (4, 1, 3), sorted rows 0 1 2 = the caller's rows 0 2 1
//   t = 0: packed rows 0 1 2      t = 2: packed rows 5 6
//   t = 1: packed rows 3 4        t = 3: packed row 7
//
// Both directions use the same order. The one from the end runs t downwards: a row joins at its
// last step with its initial state, which has waited in the state buffer until then.
#pragma once

#include <cstdint>
#include <vector>

#include "fastlstm/types.hpp"

namespace fastlstm {

class RowSchedule {
 public:
  RowSchedule() = default;
  /// lengths: [B] 0 <= length <= steps; null: all are of all steps, which takes no memory.
  RowSchedule(Index steps, Index B, const Index* lengths);

  /// The sorted rows first, first + stride, ... of another schedule: a share of its rows that has
  /// about the same share of its steps.
  RowSchedule(const RowSchedule& all, Index first, Index stride);

  /// The steps first <= t < end of another schedule, as steps 0, 1, ..., and the rows that live in
  /// them. all_steps() is the number of these steps.
  RowSchedule steps_of(Index first, Index end) const;

  Index B() const { return batch_; }
  /// The caller's T.
  Index all_steps() const { return steps_; }
  /// Steps with live rows: the longest length.
  Index steps() const {
    if (uniform_) return batch_ > 0 ? steps_ : 0;
    return static_cast<Index>(offsets_.size()) - 1;
  }
  /// Whether all rows were made to live in all steps; they may do so otherwise, too.
  bool uniform() const { return uniform_; }
  Index live(Index t) const { return offset(t + 1) - offset(t); }
  /// The first packed row of step t; offset(steps()) is the number of packed rows.
  Index offset(Index t) const {
    return uniform_ ? t * batch_ : offsets_[static_cast<std::size_t>(t)];
  }
  Index rows() const { return offset(steps()); }
  /// Whether some rows are longer than others.
  bool uneven() const { return rows() < B() * steps(); }
  /// The place in the caller's batch of sorted row b.
  Index place(Index b) const {
    return uniform_ ? place_first_ + b * place_stride_ : order_[static_cast<std::size_t>(b)];
  }

  /// The packed row of sorted row b at step t; for a share of rows, among all rows.
  Index packed_row(Index t, Index b) const {
    if (uniform_) return t * all_batch_ + all_first_ + b * all_stride_;
    return all_offsets_.empty()
               ? offset(t) + b
               : all_offsets_[static_cast<std::size_t>(t)] + all_first_ + b * all_stride_;
  }
  /// A number that sorted row b at step t has alone in its call, whatever part of the call this is.
  std::uint64_t unique_row(Index t, Index b) const {
    return static_cast<std::uint64_t>(place(b) * call_steps_ + first_step_ + t);
  }
  /// The steps of sorted row b: its length.
  Index length(Index b) const { return uniform_ ? steps_ : lengths_[static_cast<std::size_t>(b)]; }

  /// Whether a sequence with these strides is in packed order already, row after row of width.
  template <class T>
  bool is_packed(const SequenceView<T>& view, Index width) const {
    if (view.packed) return view.stride_b == width;
    return dense_ && (view.stride_b == width || batch_ <= 1) &&
           (view.stride_t == batch_ * width || steps() <= 1);
  }

 private:
  void set_offsets();

  Index steps_ = 0;
  Index call_steps_ = 0;  // of the call that these steps are a part of,
  Index first_step_ = 0;  // and where they begin in it
  Index batch_ = 0;
  bool dense_ = true;    // all lengths are T, and the order is the caller's
  bool uniform_ = true;  // all lengths are T: places are regular, and there are no arrays
  Index place_first_ = 0;
  Index place_stride_ = 1;
  std::vector<Index> order_;    // [B]
  std::vector<Index> lengths_;  // [B] sorted
  std::vector<Index> offsets_;  // [steps() + 1]
  // Of a share of rows: the packing of all of them.
  std::vector<Index> all_offsets_;
  Index all_batch_ = 0;  // of uniform rows instead
  Index all_first_ = 0;
  Index all_stride_ = 1;
};

/// Rows of a sequence where they stand: in the order of the caller's batch, packed, or in sorted
/// order from some step on.
template <class V>
class RowView {
 public:
  /// A caller's sequence.
  explicit RowView(SequenceView<V> sequence)
      : order_(sequence.packed ? kPacked : kBatch),
        data_(sequence.data),
        stride_t_(sequence.stride_t),
        stride_b_(sequence.stride_b) {}
  /// Packed rows of ld elements each.
  RowView(V* packed, Index ld) : order_(kPacked), data_(packed), stride_b_(ld) {}
  /// Sorted rows of ld elements each, B of them for each step, from step t on.
  RowView(V* sorted, Index ld, Index B, Index t)
      : order_(kSorted), data_(sorted), stride_t_(B * ld), stride_b_(ld), first_t_(t) {}
  /// A view to read from, of one to write to.
  template <class W>
  RowView(const RowView<W>& other)
      : order_(static_cast<Order>(other.order_)),
        data_(other.data_),
        stride_t_(other.stride_t_),
        stride_b_(other.stride_b_),
        first_t_(other.first_t_) {}

  /// The row of sorted row b at step t.
  V* row(const RowSchedule& rows, Index t, Index b) const {
    switch (order_) {
      case kBatch:
        return data_ + t * stride_t_ + rows.place(b) * stride_b_;
      case kPacked:
        return data_ + rows.packed_row(t, b) * stride_b_;
      default:
        return data_ + (t - first_t_) * stride_t_ + b * stride_b_;
    }
  }

  /// The same rows, from column n on.
  RowView from_column(Index n) const {
    RowView other = *this;
    if (other.data_ != nullptr) other.data_ += n;  // of no rows
    return other;
  }

 private:
  template <class W>
  friend class RowView;
  enum Order { kBatch, kPacked, kSorted };

  Order order_;
  V* data_;
  Index stride_t_ = 0;
  Index stride_b_;
  Index first_t_ = 0;
};

/// The live rows of the steps first <= t < end, width elements of each.
template <class T>
void copy_steps(const RowSchedule& rows, Index first, Index end, const RowView<const T>& from,
                Index width, const RowView<T>& to);

/// packed: [rows, width] out, from a caller's sequence.
template <class T>
void pack_rows(const RowSchedule& rows, SequenceView<const T> from, Index width, T* packed);

/// packed: rows of ld elements, in: [width] of each; to: a caller's sequence, zero past the end of
/// each row.
template <class T>
void unpack_rows(const RowSchedule& rows, const T* packed, Index ld, Index width,
                 SequenceView<T> to);

/// Zeros in a sequence past the end of each row, where it has room for them.
template <class T>
void clear_padding(const RowSchedule& rows, Index width, SequenceView<T> sequence);

/// sorted: [B] of ld elements, out: [width] of each, from the caller's [B, width]; null: zeros.
template <class T>
void sort_state(const RowSchedule& rows, const T* state, Index width, T* sorted, Index ld);

/// state: [B, width] out in the caller's order, from sorted: [B] of ld elements.
template <class T>
void unsort_state(const RowSchedule& rows, const T* sorted, Index ld, Index width, T* state);

}  // namespace fastlstm
