#include "schedule/row_schedule.hpp"

#include <algorithm>
#include <numeric>

#include "runtime/buffer.hpp"
#include "runtime/interrupt.hpp"

namespace fastlstm {

RowSchedule::RowSchedule(Index steps, Index B, const Index* lengths)
    : steps_(steps), call_steps_(steps), batch_(B), uniform_(lengths == nullptr), all_batch_(B) {
  if (uniform_) return;
  order_.resize(static_cast<std::size_t>(B));
  std::iota(order_.begin(), order_.end(), Index{0});
  std::stable_sort(order_.begin(), order_.end(),
                   [lengths](Index a, Index b) { return lengths[a] > lengths[b]; });
  for (const Index b : order_) lengths_.push_back(lengths[b]);
  set_offsets();
}

RowSchedule::RowSchedule(const RowSchedule& all, Index first, Index stride)
    : steps_(all.steps_),
      call_steps_(all.call_steps_),
      first_step_(all.first_step_),
      batch_(first < all.B() ? (all.B() - first + stride - 1) / stride : 0),
      uniform_(all.uniform_),
      all_offsets_(all.offsets_),
      all_batch_(all.B()),
      all_first_(first),
      all_stride_(stride) {
  if (uniform_) {
    place_first_ = all.place(first);
    place_stride_ = all.place_stride_ * stride;
    dense_ = batch_ == 0 || (place_first_ == 0 && (place_stride_ == 1 || batch_ == 1));
    return;
  }
  for (Index b = first; b < all.B(); b += stride) {
    order_.push_back(all.place(b));
    lengths_.push_back(all.length(b));
  }
  set_offsets();
}

RowSchedule RowSchedule::steps_of(Index first, Index end) const {
  RowSchedule part;
  part.steps_ = end - first;
  part.call_steps_ = call_steps_;
  part.first_step_ = first_step_ + first;
  part.uniform_ = uniform_;
  if (uniform_) {
    part.batch_ = part.all_batch_ = first < steps_ ? batch_ : 0;
    part.place_first_ = place_first_;
    part.place_stride_ = place_stride_;
    part.dense_ = part.batch_ == 0 || dense_;
    return part;
  }
  for (Index b = 0; b < batch_ && length(b) > first; ++b) {
    part.order_.push_back(place(b));
    part.lengths_.push_back(std::min(length(b), end) - first);
  }
  part.batch_ = static_cast<Index>(part.order_.size());
  part.set_offsets();
  return part;
}

void RowSchedule::set_offsets() {
  const Index longest = batch_ > 0 ? lengths_.front() : 0;
  dense_ = batch_ == 0 || lengths_.back() == steps_;
  for (Index b = 0; b < batch_; ++b) dense_ = dense_ && place(b) == b;
  offsets_.reserve(static_cast<std::size_t>(longest) + 1);
  offsets_.push_back(0);
  Index live = batch_;
  for (Index t = 0; t < longest; ++t) {
    while (length(live - 1) <= t) --live;
    offsets_.push_back(offsets_.back() + live);
  }
}

template <class T>
void copy_steps(const RowSchedule& rows, Index first, Index end, const RowView<const T>& from,
                Index width, const RowView<T>& to) {
  SmallItems asks;
  for (Index t = first; t < end; ++t) {
    if (asks.interrupted_before(rows.live(t) * width)) return;
    for (Index b = 0; b < rows.live(t); ++b) {
      std::copy_n(from.row(rows, t, b), width, to.row(rows, t, b));
    }
  }
}

template <class T>
void pack_rows(const RowSchedule& rows, SequenceView<const T> from, Index width, T* packed) {
  in_region([&] {
    copy_steps(rows, 0, rows.steps(), RowView<const T>(from), width, RowView<T>(packed, width));
  });
}

template <class T>
void unpack_rows(const RowSchedule& rows, const T* packed, Index ld, Index width,
                 SequenceView<T> to) {
  in_region([&] {
    copy_steps(rows, 0, rows.steps(), RowView<const T>(packed, ld), width, RowView<T>(to));
  });
  clear_padding(rows, width, to);
}

template <class T>
void clear_padding(const RowSchedule& rows, Index width, SequenceView<T> sequence) {
  if (sequence.packed) return;
  in_region([&] {
    SmallItems asks;
    for (Index b = 0; b < rows.B(); ++b) {
      for (Index t = rows.length(b); t < rows.all_steps(); ++t) {
        if (asks.interrupted_before(width)) return;
        std::fill_n(sequence.row(t, rows.place(b)), width, T(0));
      }
    }
  });
}

template <class T>
void sort_state(const RowSchedule& rows, const T* state, Index width, T* sorted, Index ld) {
  for (Index b = 0; b < rows.B(); ++b) {
    copy_or_zero(state != nullptr ? state + rows.place(b) * width : nullptr, width,
                 sorted + b * ld);
  }
}

template <class T>
void unsort_state(const RowSchedule& rows, const T* sorted, Index ld, Index width, T* state) {
  for (Index b = 0; b < rows.B(); ++b) {
    std::copy_n(sorted + b * ld, width, state + rows.place(b) * width);
  }
}

#define FASTLSTM_INSTANTIATE(T)                                                              \
  template void copy_steps(const RowSchedule&, Index, Index, const RowView<const T>&, Index, \
                           const RowView<T>&);                                               \
  template void pack_rows(const RowSchedule&, SequenceView<const T>, Index, T*);             \
  template void unpack_rows(const RowSchedule&, const T*, Index, Index, SequenceView<T>);    \
  template void clear_padding(const RowSchedule&, Index, SequenceView<T>);                   \
  template void sort_state(const RowSchedule&, const T*, Index, T*, Index);                  \
  template void unsort_state(const RowSchedule&, const T*, Index, Index, T*);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm
