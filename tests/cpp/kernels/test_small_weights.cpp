// Products with panels of small weights, for each arithmetic and target.
#include <cstdint>

#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

float from_bits(std::uint32_t bits) {
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
std::uint32_t bits_of(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

/// The upper half of a normal number, to the nearest or the even one.
std::uint32_t bfloat16_of(float value) {
  const std::uint32_t bits = bits_of(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/// Weights of columns, [columns][K], as a panel has them and as numbers without scales.
struct SmallPanel {
  SmallPanel(Random& random, Arithmetic arithmetic, Index columns, Index K_, Index width)
      : K(K_),
        values(columns * K_),
        halves(std::vector<std::int16_t>(static_cast<std::size_t>(columns * (K_ + 3)))),
        scales(random.values<float>(columns, 0.5, 1)),
        offsets(std::vector<std::int32_t>(static_cast<std::size_t>(columns))) {
    const Index group = inputs_in_group(arithmetic), groups = (K + group - 1) / group;
    for (Index column = 0; column < columns; ++column) {
      for (Index k = 0; k < K; ++k) {
        float& value = values[column * K + k];
        Index place = (column / width * groups + k / group) * width + column % width;
        if (is_int8(arithmetic)) {
          const auto q = static_cast<int>(random.uniform(-128.99, 127.99));
          value = static_cast<float>(q);
          reinterpret_cast<std::int8_t*>(halves.data())[place * group + k % group] =
              static_cast<std::int8_t>(q);
          offsets[column] -= 128 * q;
        } else {
          const auto upper =
              static_cast<std::uint16_t>(bfloat16_of(static_cast<float>(random.uniform(-1, 1))));
          value = from_bits(std::uint32_t{upper} << 16);
          place = place * group + group - 1 - k % group;  // the first of a pair in the upper half
          halves[place] = static_cast<std::int16_t>(upper);
        }
      }
    }
    panel.data = halves.data();
    panel.arithmetic = arithmetic;
    panel.scales = scales.data();
    panel.offsets = offsets.data();
  }

  Index K;
  Guarded<float> values;
  Guarded<std::int16_t> halves;
  Guarded<float> scales;
  Guarded<std::int32_t> offsets;
  Panel<float> panel;
};

/// What a row and a column make, as fastlstm/arithmetic.hpp says.
float product(Arithmetic arithmetic, Index K, const float* x, const SmallPanel& panel, Index column,
              float bias) {
  const float* w = panel.values.data() + column * K;
  const float scale = panel.scales[column];
  if (arithmetic == Arithmetic::kInt8) {
    float most = 0;
    for (Index k = 0; k < K; ++k) most = std::max(most, std::fabs(x[k]));
    std::int32_t sum = 0;
    for (Index k = 0; k < K; ++k) {
      sum += static_cast<std::int32_t>(std::nearbyint(x[k] * (127.0f / most))) *
             static_cast<std::int32_t>(w[k]);
    }
    const float scaled = static_cast<float>(sum) * (scale * (most / 127.0f));
    return scaled + bias;
  }
  const bool rounds = arithmetic == Arithmetic::kBfloat16;
  float sum = is_int8(arithmetic) ? 0 : bias;
  for (Index k = 0; k < K; ++k) {
    const float input = rounds ? from_bits(bfloat16_of(x[k]) << 16) : x[k];
    sum = std::fma(input, w[k], sum);
  }
  const float scaled = sum * scale;
  return is_int8(arithmetic) ? scaled + bias : sum;
}

void check_products(const PanelKernels<float>& kernels, Index lanes, Arithmetic arithmetic,
                    Index rows, Index blocks, Index V, Index K, bool has_bias) {
  NOTE("arithmetic " << static_cast<int>(arithmetic) << ", V = " << V << ", rows = " << rows
                     << ", blocks = " << blocks << ", K = " << K << ", bias " << has_bias);
  const Index width = V * lanes, ld = blocks * width + 3;
  Random random(static_cast<unsigned>(rows * 1000 + K));
  const Rows<float> x(random, rows, K);
  const SmallPanel panel(random, arithmetic, blocks * width, K, width);
  const Guarded<float> bias(random.values<float>(blocks * width, -1, 1));
  Guarded<float> room(converted_bytes(rows, K) / 4);
  const auto project = [&](Index first_row, Index n, Index first_block, Index end_block,
                           bool down = false) {
    Guarded<float> out(std::vector<float>(static_cast<std::size_t>(n * ld), 77));
    kernels.project_rows({n, first_block, end_block, V, K, x.pointers.data() + first_row,
                          panel.panel, has_bias ? bias.data() : nullptr, out.data(), ld, down,
                          room.data()});
    out.check_guards();
    room.check_guards();
    return out;
  };
  const Guarded<float> out = project(0, rows, 0, blocks);
  for (Index row = 0; row < rows; ++row) {
    for (Index j = 0; j < blocks * width; ++j) {
      NOTE("row = " << row << ", j = " << j);
      const float* inputs = x.pointers[static_cast<std::size_t>(row)];
      const float want = product(arithmetic, K, inputs, panel, j, has_bias ? bias[j] : 0);
      if (converts_inputs(arithmetic)) {
        CHECK_EQUAL(out[row * ld + j], want);  // on every target
      } else {
        const float most = is_int8(arithmetic) ? 128 : 1;
        CHECK_CLOSE(out[row * ld + j], want, kEpsilon<float> * most * static_cast<float>(K + 2));
      }
    }
    CHECK_EQUAL(out[row * ld + blocks * width], 77);
  }
  // The other way, a row by itself, and a block by itself: the same bits.
  CHECK(same_bits(project(0, rows, 0, blocks, true), out));
  for (Index row = 0; row < rows; ++row) {
    const Guarded<float> alone = project(row, 1, 0, blocks);
    CHECK(std::equal(alone.data(), alone.data() + ld, out.data() + row * ld));
  }
  for (Index block = 0; block < blocks; ++block) {
    const Guarded<float> one = project(0, rows, block, block + 1);
    for (Index at = 0; at < rows * ld; ++at) {
      CHECK_EQUAL(one[at], at % ld / width == block ? out[at] : 77);
    }
  }
}

}  // namespace

TEST(products_of_small_weights) {
  const FlushDenormals flush_denormals;
  for (const Tables& tables : tested_tables()) {
    NOTE("target " << tables.target);
    for (int a = 1; a < kArithmetics; ++a) {
      const auto check = [&](Index rows, Index blocks, Index V, Index K, bool has_bias) {
        check_products(*tables.small[a], tables.float32->lanes, static_cast<Arithmetic>(a), rows,
                       blocks, V, K, has_bias);
      };
      for (const Index V : {3, 4}) {
        for (const Index rows : kRows) check(rows, 2, V, 7, rows % 2 == 0);
        for (const Index K : {1, 2, 3, 4, 5, 6, 8, 33}) check(2, 1, V, K, true);
        check(1, 7, V, 9, true);
      }
      check(50, 1, 4, 17, true);   // more than are converted at once
      check(9, 1, 4, 8200, true);  // in parts
    }
  }
}
