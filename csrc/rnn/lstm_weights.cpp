#include "rnn/lstm_weights.hpp"

#include <algorithm>

namespace fastlstm {

template <class T>
LstmWeights<T>::LstmWeights(const LstmConfig& config, Index layer,
                            const LstmParams<const T>& params)
    : I(config.layer_input_size(layer)),
      H(config.hidden_size),
      P(config.output_size()),
      projects(config.proj_size > 0),
      W(4 * H, I),
      R(4 * H, P),
      bias(4 * H) {
  std::copy_n(params.weight_ih, W.size(), W.data());
  std::copy_n(params.weight_hh, R.size(), R.data());
  bias.fill_zero();
  for (const T* b : {params.bias_ih, params.bias_hh}) {
    if (b == nullptr) continue;
    for (Index k = 0; k < 4 * H; ++k) bias.data()[k] += b[k];
  }
  if (projects) {
    W_hr.resize(P, H);
    std::copy_n(params.weight_hr, W_hr.size(), W_hr.data());
  }
}

template struct LstmWeights<float>;
template struct LstmWeights<double>;

}  // namespace fastlstm
