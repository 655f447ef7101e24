#include "rnn/cell_on_blas.hpp"

#include <algorithm>

#include "rnn/pieces.hpp"
#include "rnn/step_blocks.hpp"
#include "runtime/blas.hpp"
#include "runtime/interrupt.hpp"
#include "runtime/targets.hpp"

namespace fastlstm {

template <class T>
BlasWorkspace<T>::BlasWorkspace(const StackConfig& config, const RowSchedule& rows,
                                bool save_gates) {
  const Index GH = config.gates() * config.hidden_size;
  if (!save_gates || config.saved_gates() == 0)
    gates.resize(most_block_rows(rows, kForwardRows), GH);
  from_h.resize(rows.B(), GH);
  if (config.cell == CellKind::kGruResetBefore) reset_h.resize(rows.B(), config.hidden_size);
  if (config.proj_size > 0) hidden.resize(rows.B(), config.hidden_size);
}

template <class T>
void direction_forward(const DirectionForward<T>& run) {
  const CellWeights<T>& w = run.weights;
  const RowSchedule& rows = run.rows;
  const Index I = w.I, H = w.H, P = w.P, GH = w.GH;
  const bool train = run.saved_gates != nullptr;
  const bool save = train && w.SH > 0;
  const Index ld_gates = save ? w.SH : GH;  // where gates are saved, x W comes first
  T* from_h = run.workspace.from_h.data();
  T* hidden = w.projects ? run.workspace.hidden.data() : run.h;
  const CellNoise<T>& noise = run.noise;
  BlasWorkspace<T>& room = run.workspace;
  StepOptions<T> options = w.options;
  const auto make_room = [&](Buffer<T>& buffer, Index width) {
    if (buffer.size() == 0) buffer.resize(rows.B(), width);
  };
  if (noise.zones_c()) {
    make_room(room.keep_c, H);
    if (w.cell.normalises) make_room(room.new_c, H);
    options.keep_c = room.keep_c.data();
    options.ld_keep_c = H;
  }
  if (noise.zones_h()) {
    make_room(room.keep_h, P);
    make_room(room.old_h, P);
  }
  if (noise.drops_h()) {
    make_room(room.h_mask, P);
    make_room(room.masked_h, P);
    for (Index b = 0; b < rows.B(); ++b) noise.h_mask(b, P, room.h_mask.data() + b * P);
  }

  for_each_block(rows, run.backward, kForwardRows, [&](const StepBlock& block) {
    check_interrupt();
    T* block_gates =
        save ? run.saved_gates + block.first_row * ld_gates : run.workspace.gates.data();
    const T* x = run.x + block.first_row * I;
    run.team.run_tasks(pieces(block.rows), [&](Index k) noexcept {
      const Piece p = piece(block.rows, k);
      gemm<T>(p.size, GH, I, {x + p.first * I, I}, {w.input->W.data(), I, true}, 0,
              block_gates + p.first * ld_gates, ld_gates);
      if (w.cell.normalises) {
        kernels<T>().normalise_sums({p.size, H, gate_after_gate<T>(H), w.norm.gain_x, w.bias.data(),
                                     block_gates + p.first * ld_gates, ld_gates});
      }
    });
    for_each_step(block, run.backward, [&](Index t) {
      const Index live = rows.live(t), row = rows.offset(t);
      T* gates = block_gates + (row - block.first_row) * ld_gates;
      const T* read_h = run.h;
      if (noise.drops_h()) {
        for (Index k = 0; k < live * P; ++k) {
          room.masked_h.data()[k] = run.h[k] * room.h_mask.data()[k];
        }
        read_h = room.masked_h.data();
      }
      if (noise.zones_h()) std::copy_n(run.h, live * P, room.old_h.data());
      if (noise.zones_c()) {
        for (Index b = 0; b < live; ++b) noise.keep_c(t, b, 0, H, room.keep_c.data() + b * H);
      }
      if (w.cell.in_halves) {
        T* reset_h = run.workspace.reset_h.data();
        const GruHalfStep<T> s{live,     0,
                               H,        H,
                               H,        w.bias.data(),
                               gates,    ld_gates,
                               from_h,   GH,
                               run.h,    read_h,
                               P,        reset_h,
                               run.h,    P,
                               nullptr,  save ? gates : nullptr,
                               ld_gates, w.step_options()};
        gemm<T>(live, 2 * H, P, {read_h, P}, {w.R.data(), P, true}, 0, from_h, GH);
        kernels<T>().gru_reset(s);
        gemm<T>(live, H, P, {reset_h, P}, {w.R.data() + 2 * H * P, P, true}, 0, from_h + 2 * H, GH);
        kernels<T>().gru_candidate(s);
      } else if (w.cell.normalises) {
        gemm<T>(live, GH, P, {read_h, P}, {w.R.data(), P, true}, 0, from_h, GH);
        const LstmNormStep<T> s{live,
                                0,
                                H,
                                H,
                                gate_after_gate<T>(H),
                                &w.norm,
                                gates,
                                ld_gates,
                                from_h,
                                GH,
                                run.c,
                                noise.zones_c() ? room.new_c.data() : run.c,
                                H,
                                hidden,
                                H,
                                nullptr,
                                save ? gates : nullptr,
                                ld_gates,
                                nullptr,
                                0,
                                options.keep_c,
                                options.ld_keep_c};
        kernels<T>().lstm_norm_gates(s);
        kernels<T>().lstm_norm_hidden(s);
      } else {
        gemm<T>(live, GH, P, {read_h, P}, {w.R.data(), P, true}, 0, from_h, GH);
        w.cell.step({live, H, save, w.bias.data(), w.bias_h.data(), from_h, gates, ld_gates, run.c,
                     hidden, w.plain ? nullptr : &options});
      }
      if (w.projects) {
        gemm<T>(live, P, H, {hidden, H}, {w.W_hr.data(), H, true}, 0, run.h, P);
      }
      if (noise.zones_h()) {
        for (Index b = 0; b < live; ++b) {
          T *keep = room.keep_h.data() + b * P, *h = run.h + b * P;
          const T* old_h = room.old_h.data() + b * P;
          noise.keep_h(t, b, 0, P, keep);
          for (Index j = 0; j < P; ++j) h[j] = keep[j] * old_h[j] + (1 - keep[j]) * h[j];
        }
      }
      copy_rows(run.h, live, P, run.output + row * run.ld_output, run.ld_output);
      if (train) std::copy_n(run.c, live * w.C, run.saved_c + row * w.C);
    });
  });
}

#define FASTLSTM_INSTANTIATE(T)     \
  template struct BlasWorkspace<T>; \
  template void direction_forward(const DirectionForward<T>&);
FASTLSTM_INSTANTIATE(float)
FASTLSTM_INSTANTIATE(double)

}  // namespace fastlstm
