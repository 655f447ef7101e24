// The package as its users see it: layers from arrays and from files, good and damaged.
#include <algorithm>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "fastlstm/fastlstm.hpp"
#include "fuzzed_file.hpp"
#include "package_models.hpp"

namespace {

fastlstm_status load_status(const std::string& file, const char* configuration = nullptr) {
  fastlstm_stack* stack = nullptr;
  const fastlstm_status status =
      fastlstm_stack_load_bytes(file.data(), file.size(), configuration, &stack, nullptr, 0);
  fastlstm_stack_free(stack);
  return status;
}

}  // namespace

TEST(sizes_out_of_range) {
  const Model<float> model = make_model<float>({"LSTM", 4, 3, 4});
  for (const char* more :
       {R"("proj_size": 4)", R"("proj_size": -1)", R"("zoneout": 2)", R"("clip": -1)",
        R"("merge": "sum")", R"("bidirectional": true, "reverse": true)"}) {
    NOTE(more);
    Model<float> wrong = model;
    wrong.configuration.insert(wrong.configuration.size() - 2, std::string(", ") + more);
    CHECK_EQUAL(load_status(file_of(wrong, true)), FASTLSTM_BAD_FILE);
  }
}

TEST(layers_of_every_kind_come_back) {
  std::vector<Kind> kinds = every_kind(3, 6);
  kinds.push_back({"GRU", 3, 3, 6, 2, 0, R"("merge": "ave")", true});
  kinds.push_back({"LSTM", 4, 3, 6, 2, 4, "", true});
  for (const Kind& kind : kinds) {
    NOTE(kind.name << " " << kind.options);
    const Model<double> model = make_model<double>(kind);
    const auto made = model.stack();
    const std::string file = file_of(model, true);
    const auto read = fastlstm::Stack<double>::load_bytes(file.data(), file.size());
    const std::vector<double> x(5 * 2 * 3, 0.25);
    const auto run = [&x](const auto& stack) {
      std::vector<double> output(static_cast<std::size_t>(10 * stack.output_size()));
      std::vector<double> state(static_cast<std::size_t>(stack.state_size(2)));
      fastlstm::Sequences<double> s;
      s.steps = 5;
      s.batch = 2;
      s.x = x.data();
      s.output = output.data();
      s.state_n = state.data();
      stack.run(s);
      output.insert(output.end(), state.begin(), state.end());
      return output;
    };
    CHECK(run(made) == run(read));
  }
}

TEST(files_of_pytorch) {
  for (const char* prefix : {"", "lstm.", "encoder.rnn."}) {
    const Model<float> lstm = make_model<float>({"LSTM", 4, 3, 4, 2, 2, "", true});
    const std::string file = file_of(lstm, false, prefix);
    const auto stack = fastlstm::Stack<float>::load_bytes(file.data(), file.size());
    CHECK_EQUAL(stack.input_size(), 3);
    CHECK_EQUAL(stack.hidden_size(), 4);
    CHECK_EQUAL(stack.num_layers(), 2);
    CHECK_EQUAL(stack.num_directions(), 2);
    CHECK_EQUAL(stack.output_size(), 4);  // two directions of a projection to 2
  }
  const Model<double> gru = make_model<double>({"GRU", 3, 3, 4, 1, 0, "", false, false});
  const std::string file = file_of(gru, false);
  CHECK_EQUAL(fastlstm::Stack<double>::load_bytes(file.data(), file.size()).hidden_size(), 4);
  CHECK_THROWS(fastlstm::Stack<float>::load_bytes(file.data(), file.size()), fastlstm::Error);

  const Model<float> rnn = make_model<float>({"RNN", 1, 3, 4});
  CHECK_EQUAL(load_status(file_of(rnn, false)), FASTLSTM_UNSUPPORTED);
  CHECK_EQUAL(load_status(file_of(rnn, false), rnn.configuration.c_str()), FASTLSTM_OK);
  CHECK_EQUAL(load_status(file_of(rnn, true), rnn.configuration.c_str()), FASTLSTM_BAD_FILE);
}

TEST(modules_among_other_tensors) {
  Model<float> model = make_model<float>({"LSTM", 4, 3, 4});
  for (auto& p : model.parameters) p.name = "lstm." + p.name;
  model.parameters.push_back({"head.weight", 2, 2, {1, 2, 3, 4}});
  CHECK_EQUAL(load_status(file_of(model, false)), FASTLSTM_OK);
  model.parameters.push_back({"lstm.more", 1, 0, {1}});
  CHECK_EQUAL(load_status(file_of(model, false)), FASTLSTM_BAD_FILE);
  model.parameters.back().name = "other.weight_ih_l0";
  CHECK_EQUAL(load_status(file_of(model, false)), FASTLSTM_BAD_FILE);
}

TEST(wrong_tensors) {
  const Model<float> model = make_model<float>({"LSTM", 4, 3, 4});
  const auto status_with = [&](const auto& change) {
    Model<float> other = model;
    change(other.parameters);
    return load_status(file_of(other, true));
  };
  CHECK_EQUAL(status_with([](auto&) {}), FASTLSTM_OK);
  CHECK_EQUAL(status_with([](auto& all) { all.pop_back(); }), FASTLSTM_BAD_FILE);
  CHECK_EQUAL(status_with([](auto& all) { all.push_back(all[0]); }), FASTLSTM_BAD_FILE);
  CHECK_EQUAL(status_with([](auto& all) { all[0].name += "0"; }), FASTLSTM_BAD_FILE);
  CHECK_EQUAL(status_with([](auto& all) { std::swap(all[0].rows, all[0].columns); }),
              FASTLSTM_BAD_FILE);
}

// --- files that are damaged ---------------------------------------------------------------------

namespace {

/// One number or one string of a header, replaced by what might hurt.
std::string with_other_token(std::string header, std::mt19937& random) {
  const char* const kTokens[] = {"0",      "-1",   "1",       "4294967296",  "4611686018427387904",
                                 "{}",     "[]",   "null",    "1e400",       "\"\"",
                                 "[[[[",   "true", "\"F32\"", "\"\\ud800\"", "9999999999999999999",
                                 "\"_l0\""};
  const auto pick = [&](std::size_t n) { return random() % n; };
  std::size_t at = pick(header.size());
  const auto is_edge = [&](std::size_t k) {
    return header[k] == ',' || header[k] == ':' || header[k] == '[' || header[k] == '{' ||
           header[k] == ']' || header[k] == '}';
  };
  while (at > 0 && !is_edge(at)) --at;
  std::size_t end = at + 1;
  while (end < header.size() && !is_edge(end)) ++end;
  return header.replace(at + 1, end - at - 1, kTokens[pick(std::size(kTokens))]);
}

std::string damaged(std::string data, std::mt19937& random) {
  for (std::size_t n = 1 + random() % 4; n > 0 && !data.empty(); --n) {
    const std::size_t at = random() % data.size(), width = 1 + random() % 8;
    switch (random() % 6) {
      case 0:
        data[at] = static_cast<char>(random());
        break;
      case 1:
        data[at] = static_cast<char>(data[at] ^ (1 << random() % 8));
        break;
      case 2:
        data.erase(at, width);
        break;
      case 3:
        data.insert(at, data.substr(at, width));
        break;
      case 4:
        data.replace(at, std::min(width, data.size() - at), width, random() % 2 ? '\xff' : '\0');
        break;
      default:
        data.resize(random() % 4 == 0 ? at : data.size());
    }
  }
  return data;
}

/// The file of an RNN with 3 inputs and 4 units, whose weights are small.
std::string small_file(const std::string& weights, const std::string& activations) {
  const bool int8 = weights == "int8";
  const std::string config =
      R"({"format": 2, "layer": "RNN", "options": {"input_size": 3, "hidden_size": 4}, )"
      R"("quantization": {"weights": ")" +
      weights + R"(", "activations": ")" + activations + R"("}})";
  std::string header = R"({"__metadata__": {"fastlstm": )" + quoted(config) + "}";
  int end = 0;
  const auto add = [&](const char* name, const char* dtype, const char* shape, int size) {
    header += std::string(R"(, ")") + name + R"(": {"dtype": ")" + dtype + R"(", "shape": )" +
              shape + R"(, "data_offsets": [)" + std::to_string(end) + ", " +
              std::to_string(end + size) + "]}";
    end += size;
  };
  add("bias_hh_l0", "F32", "[4]", 16);
  add("bias_ih_l0", "F32", "[4]", 16);
  if (int8) {
    add("weight_hh_l0_scale", "F32", "[4]", 16);
    add("weight_ih_l0_scale", "F32", "[4]", 16);
  }
  add("weight_hh_l0", int8 ? "I8" : "BF16", "[4, 4]", int8 ? 16 : 32);
  add("weight_ih_l0", int8 ? "I8" : "BF16", "[4, 3]", int8 ? 12 : 24);
  return file_of(header + "}", std::string(static_cast<std::size_t>(end), '\x3c'));
}

}  // namespace

TEST(damaged_files_are_refused_or_layers) {
  std::vector<std::string> originals;
  for (const Kind& kind : every_kind(2, 3)) {
    originals.push_back(file_of(make_model<float>(kind), true));
  }
  originals.push_back(
      file_of(make_model<double>({"LSTM", 4, 2, 3, 2, 2, "", true}), false, "a.b."));
  originals.push_back(small_file("int8", "int8"));
  originals.push_back(small_file("int8", "float32"));
  originals.push_back(small_file("bfloat16", "bfloat16"));
  for (const std::string& file : originals) CHECK(load_and_step(file.data(), file.size()));
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__x86_64__)
  constexpr int kCases = 4000;
#else
  constexpr int kCases = 40000;
#endif
  std::mt19937 random(19);  // NOLINT(cert-msc51-cpp): the same cases each time
  int layers = 0;
  for (int k = 0; k < kCases; ++k) {
    NOTE("case " << k);
    const std::string& original = originals[random() % originals.size()];
    const auto [header, values] = parts_of(original);
    std::string file;
    switch (random() % 3) {
      case 0:
        file = damaged(original, random);
        break;
      case 1:
        file = file_of(damaged(header, random), values);
        break;
      default:
        file = file_of(with_other_token(header, random), values);
    }
    // In memory of its size, so that a sanitizer sees what is read behind it.
    const std::vector<char> exact(file.begin(), file.end());
    layers += load_and_step(exact.data(), exact.size());
  }
  CHECK(layers > 0 && layers < kCases);
}
