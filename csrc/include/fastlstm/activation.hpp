// The activation functions that gates may have: those of ONNX's recurrent operators.
#pragma once

namespace fastlstm {

enum class ActivationKind {
  kAffine,           // alpha x + beta
  kRelu,             // max(0, x)
  kLeakyRelu,        // x where x >= 0, else alpha x
  kThresholdedRelu,  // x where x >= alpha, else 0
  kTanh,
  kScaledTanh,  // alpha tanh(beta x)
  kSigmoid,
  kHardSigmoid,  // alpha x + beta, but at least 0 and at most 1
  kElu,          // x where x >= 0, else alpha (exp(x) - 1)
  kSoftsign,     // x / (1 + |x|)
  kSoftplus,     // log(1 + exp(x))
};

struct Activation {
  ActivationKind kind;
  double alpha = 0;
  double beta = 0;

  bool operator==(const Activation& other) const {
    return kind == other.kind && alpha == other.alpha && beta == other.beta;
  }
};

}  // namespace fastlstm
