// Frames of connectionist temporal classification.
#include "kernel_tests.hpp"

using namespace fastlstm;

namespace {

/// What a frame reads and writes, of whole vectors.
template <class T>
struct Frame {
  Frame(Index width_, Random& random)
      : width(width_),
        log_p(random.values<T>(width, -5, 0)),
        skip(random.values<T>(width, 0, 0)),
        blank(random.values<T>(width, -30, 0)),
        label(random.values<T>(width + 1, -30, 0)),
        blank_next(width),
        label_next(width) {
    for (int k = 0; k < 5; ++k) shares.emplace_back(width + 1);
    label[0] = skip[0] = skip[width / 2] = T(kLogNothing);
    blank[width - 1] = label[width] = T(kLogNothing);
  }
  T label_before(Index k) const { return label[k]; }
  T label_at(Index k) const { return label[k + 1]; }

  void run(const KernelTable<T>& table) {
    table.ctc_step({width, log_p_blank, log_p.data(), skip.data(), blank.data(), label.data() + 1,
                    blank_next.data(), label_next.data(), &scale, shares[0].data(),
                    shares[1].data(), shares[2].data(), shares[3].data(), shares[4].data()});
    for (Guarded<T>& share : shares) share.check_guards();
    shares[1][width] = shares[4][width] = 0;
    blank_next.check_guards();
    label_next.check_guards();
  }

  Index width;
  T log_p_blank = T(-1.5), scale = 0;
  Guarded<T> log_p, skip, blank, label;
  Guarded<T> blank_next, label_next;
  std::vector<Guarded<T>> shares;
};

/// The logarithm of a sum, and what part each has of it.
struct Sum {
  explicit Sum(const std::vector<Exact>& logarithms) {
    const Exact most = *std::max_element(logarithms.begin(), logarithms.end());
    Exact sum = 0;
    for (const Exact x : logarithms) sum += std::exp(x - most);
    log = most + std::log(sum);
    for (const Exact x : logarithms) shares.push_back(std::exp(x - most) / sum);
  }
  Exact log;
  std::vector<Exact> shares;
};

}  // namespace

KERNEL_TEST(ctc_step) {
  for (const Index vectors : {1, 2, 5}) {
    NOTE("vectors = " << vectors);
    Random random(static_cast<unsigned>(vectors));
    Frame<T> f(vectors * table.lanes, random);
    f.run(table);
    const T tolerance = 64 * kEpsilon<T>;
    Exact most = -kInfinity<T>;
    for (Index k = 0; k < f.width; ++k) {
      NOTE("k = " << k);
      const Exact blank = f.blank[k], label = f.label_at(k), before = f.label_before(k);
      // Rounded: where nothing leads to a place, what is left of its sum would count.
      const T skip = f.label_before(k) + f.skip[k];
      const Sum two({blank, before}), three({label, blank, Exact(skip)});
      CHECK_CLOSE(f.shares[0][k], two.shares[0], tolerance);
      CHECK_CLOSE(f.shares[1][k], two.shares[1], tolerance);
      for (std::size_t j = 0; j < 3; ++j)
        CHECK_CLOSE(f.shares[2 + j][k], three.shares[j], tolerance);
      const Exact blank_want = two.log + Exact(f.log_p_blank), label_want = three.log + f.log_p[k];
      CHECK_CLOSE(f.blank_next[k] + f.scale, blank_want, tolerance * (1 + std::abs(blank_want)));
      CHECK_CLOSE(f.label_next[k] + f.scale, label_want, tolerance * (1 + std::abs(label_want)));
      most = std::max({most, blank_want, label_want});
    }
    CHECK_CLOSE(f.scale, most, tolerance * 32);
  }
}

KERNEL_TEST(ctc_step_backward) {
  for (const Index vectors : {1, 2, 5}) {
    NOTE("vectors = " << vectors);
    Random random(static_cast<unsigned>(vectors));
    Frame<T> f(vectors * table.lanes, random);
    f.run(table);
    const Index width = f.width;
    Guarded<T> blank_after(random.values<T>(width + 1, 0, 1));
    Guarded<T> label_after(random.values<T>(width + 1, 0, 1));
    blank_after[width] = label_after[width] = 0;
    Guarded<T> blank(width), label(width);
    table.ctc_step_backward({width, f.shares[0].data(), f.shares[2].data(), f.shares[3].data(),
                             f.shares[1].data(), f.shares[4].data(), blank_after.data(),
                             label_after.data(), blank.data(), label.data()});
    blank.check_guards();
    label.check_guards();
    for (Index k = 0; k < width; ++k) {
      NOTE("k = " << k);
      const auto product = [](T a, T b) { return Exact(a) * Exact(b); };
      const Exact to_blank =
          product(blank_after[k], f.shares[0][k]) + product(label_after[k], f.shares[3][k]);
      const Exact to_label = product(label_after[k], f.shares[2][k]) +
                             product(blank_after[k + 1], f.shares[1][k + 1]) +
                             product(label_after[k + 1], f.shares[4][k + 1]);
      CHECK_CLOSE(blank[k], to_blank, 4 * kEpsilon<T>);
      CHECK_CLOSE(label[k], to_label, 4 * kEpsilon<T>);
    }
  }
}
