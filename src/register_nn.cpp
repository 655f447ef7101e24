// What fastlstm.nn computes in the core. Python has checked that shapes, types and values agree.
#include <pybind11/numpy.h>

#include "arrays.hpp"
#include "core_call.hpp"
#include "fastlstm/crf.hpp"
#include "fastlstm/ctc.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace fastlstm::python {

namespace {

const Index* read_lengths(const OptionalArray<Index>& lengths, Index B) {
  return read(lengths, {B}, "lengths");
}

template <class T>
CrfCall<T> read_crf(const Layout& layout, const Array<T>& emissions,
                    const OptionalArray<Index>& lengths, const Array<T>& start, const Array<T>& end,
                    const Array<T>& transitions) {
  const Index n = start.size();
  return {layout.steps,
          layout.B,
          n,
          read_lengths(lengths, layout.B),
          layout.view(read(emissions, layout.shape(n), "emissions"), n),
          start.data(),
          read(end, {n}, "end"),
          read(transitions, {n, n}, "transitions")};
}

/// One number a step: [T, B] or [B, T].
template <class V>
SequenceView<V> tags_view(const Layout& layout, V* data) {
  return layout.view(data, 1);
}
Shape tags_shape(const Layout& layout) {
  Shape shape = layout.shape(1);
  shape.pop_back();
  return shape;
}

template <class T>
void loss_of_crf(const Array<T>& emissions, bool batch_first, const OptionalArray<Index>& lengths,
                 const Array<T>& start, const Array<T>& end, const Array<T>& transitions,
                 const Array<Index>& tags, double scale, Array<T> d_emissions, Array<T> d_start,
                 Array<T> d_end, Array<T> d_transitions, Array<double> losses) {
  const Layout layout = layout_of(emissions, batch_first);
  const CrfCall<T> call = read_crf(layout, emissions, lengths, start, end, transitions);
  const auto wanted = tags_view(layout, read(tags, tags_shape(layout), "tags"));
  const CrfGradients<T> gradients{
      scale, layout.view(write(d_emissions, layout.shape(call.n), "d_emissions"), call.n),
      write(d_start, {call.n}, "d_start"), write(d_end, {call.n}, "d_end"),
      write(d_transitions, {call.n, call.n}, "d_transitions")};
  double* const out = write(losses, {layout.B}, "losses");
  const CoreCall core_call;
  crf_loss<T>(call, wanted, gradients, out);
}

template <class T>
void marginals_of_crf(const Array<T>& emissions, bool batch_first,
                      const OptionalArray<Index>& lengths, const Array<T>& start,
                      const Array<T>& end, const Array<T>& transitions, Array<T> p) {
  const Layout layout = layout_of(emissions, batch_first);
  const CrfCall<T> call = read_crf(layout, emissions, lengths, start, end, transitions);
  const auto out = layout.view(write(p, layout.shape(call.n), "p"), call.n);
  const CoreCall core_call;
  crf_marginals<T>(call, out);
}

template <class T>
void decode_crf(const Array<T>& emissions, bool batch_first, const OptionalArray<Index>& lengths,
                const Array<T>& start, const Array<T>& end, const Array<T>& transitions,
                Array<Index> tags) {
  const Layout layout = layout_of(emissions, batch_first);
  const CrfCall<T> call = read_crf(layout, emissions, lengths, start, end, transitions);
  const auto out = tags_view(layout, write(tags, tags_shape(layout), "tags"));
  const CoreCall core_call;
  crf_decode<T>(call, out);
}

template <class T>
void loss_of_ctc(const Array<T>& logits, bool batch_first, const OptionalArray<Index>& lengths,
                 const Array<Index>& targets, const Array<Index>& target_lengths, Index blank,
                 const Array<double>& scales, Array<T> d_logits, Array<double> losses) {
  const Layout layout = layout_of(logits, batch_first);
  require(targets.ndim() == 2, "targets");
  CtcCall<T> call{};
  call.steps = layout.steps;
  call.B = layout.B;
  call.V = logits.shape(2);
  call.S = targets.shape(1);
  call.blank = blank;
  call.lengths = read_lengths(lengths, layout.B);
  call.logits = layout.view(logits.data(), call.V);
  call.targets = read(targets, {layout.B, call.S}, "targets");
  call.target_lengths = read(target_lengths, {layout.B}, "target_lengths");
  call.scales = read(scales, {layout.B}, "scales");
  call.d_logits = layout.view(write(d_logits, layout.shape(call.V), "d_logits"), call.V);
  call.losses = write(losses, {layout.B}, "losses");
  const CoreCall core_call;
  ctc<T>(call);
}

template <class T>
void register_for(py::module_& m) {
  m.def("crf_loss", &loss_of_crf<T>, py::arg("emissions").noconvert(), py::arg("batch_first"),
        py::arg("lengths").noconvert().none(true), py::arg("start").noconvert(),
        py::arg("end").noconvert(), py::arg("transitions").noconvert(), py::arg("tags").noconvert(),
        py::arg("scale"), py::arg("d_emissions").noconvert(), py::arg("d_start").noconvert(),
        py::arg("d_end").noconvert(), py::arg("d_transitions").noconvert(),
        py::arg("losses").noconvert());
  m.def("crf_marginals", &marginals_of_crf<T>, py::arg("emissions").noconvert(),
        py::arg("batch_first"), py::arg("lengths").noconvert().none(true),
        py::arg("start").noconvert(), py::arg("end").noconvert(),
        py::arg("transitions").noconvert(), py::arg("p").noconvert());
  m.def("crf_decode", &decode_crf<T>, py::arg("emissions").noconvert(), py::arg("batch_first"),
        py::arg("lengths").noconvert().none(true), py::arg("start").noconvert(),
        py::arg("end").noconvert(), py::arg("transitions").noconvert(),
        py::arg("tags").noconvert());
  m.def("ctc", &loss_of_ctc<T>, py::arg("logits").noconvert(), py::arg("batch_first"),
        py::arg("lengths").noconvert().none(true), py::arg("targets").noconvert(),
        py::arg("target_lengths").noconvert(), py::arg("blank"), py::arg("scales").noconvert(),
        py::arg("d_logits").noconvert(), py::arg("losses").noconvert());
}

}  // namespace

void register_nn(py::module_& m) {
  register_for<float>(m);
  register_for<double>(m);
}

}  // namespace fastlstm::python
