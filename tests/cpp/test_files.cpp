// The reader of layers' files: text, configurations, tensors.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "check.hpp"
#include "file_parts.hpp"
#include "files/json.hpp"
#include "files/safetensors.hpp"
#include "files/stack_file.hpp"

using fastlstm::BadFile;
using fastlstm::Index;
using fastlstm::JsonReader;
using fastlstm::parse_safetensors;
using fastlstm::read_configuration;
using fastlstm::Unsupported;

namespace {

std::string string_of(const std::string& text) {
  JsonReader json(text);
  std::string value = json.string();
  json.end();
  return value;
}

double number_of(const std::string& text) {
  JsonReader json(text);
  const double value = json.number();
  json.end();
  return value;
}

Index integer_of(const std::string& text) {
  JsonReader json(text);
  const Index value = json.integer();
  json.end();
  return value;
}

const std::string kPlain = R"({"layer": "LSTM", "options": {"input_size": 3, "hidden_size": 4}})";

/// kPlain with more in its options.
std::string with(const std::string& more) {
  std::string text = kPlain;
  return text.insert(text.size() - 2, ", " + more);
}

}  // namespace

TEST(strings) {
  CHECK_EQUAL(string_of(R"( "a\"\\\/\b\f\n\r\t" )"), std::string("a\"\\/\b\f\n\r\t"));
  CHECK_EQUAL(string_of(R"("\u0041\u00e9\u20AC\ud83d\ude00")"),
              std::string("A\u00e9\u20ac\U0001f600"));
  for (const char* text :
       {"", "\"", "\"a", "a", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u123g\"", "\"\\ud83d\"",
        "\"\\ude00\"", "\"\\ud83d\\u0041\"", "\"\n\"", "\"a\" b"}) {
    NOTE(text);
    CHECK_THROWS(string_of(text), BadFile);
  }
}

TEST(numbers) {
  CHECK_EQUAL(number_of(" -12.5e-1 "), -1.25);
  CHECK_EQUAL(number_of("0.1"), 0.1);
  CHECK_EQUAL(number_of("1e-05"), 1e-5);
  CHECK_EQUAL(integer_of("-0"), Index{0});
  CHECK_EQUAL(integer_of("922337203685477580"), Index{922337203685477580});
  for (const char* text : {"", "-", "+1", ".5", "1.", "01", "0x1", "1e", "1e+", "NaN", "Infinity",
                           "-Infinity", "1e999", "1,5", "1 2"}) {
    NOTE(text);
    CHECK_THROWS(number_of(text), BadFile);
  }
  CHECK_THROWS(number_of(std::string(1000, '1')), BadFile);
  for (const char* text : {"1.0", "1e2", "9223372036854775808", "99999999999999999999999"}) {
    NOTE(text);
    CHECK_THROWS(integer_of(text), BadFile);
  }
}

TEST(configurations) {
  const auto plain = read_configuration(kPlain);
  CHECK(!plain.is_double && plain.config.options.plain());
  CHECK(read_configuration(with(R"("dtype": "float64")")).is_double);
  const auto config =
      read_configuration(
          with(
              R"("activations": [["HardSigmoid", 0.25], "Relu", ["Affine", 2, 3]], "zoneout": [0.5, 0.25],
         "merge": null, "clip": 3, "num_layers": 5, "batch_first": true, "dropout": 0.5)"))
          .config;
  CHECK_EQUAL(config.num_layers, 5);
  CHECK_EQUAL(config.options.clip, 3.0);
  CHECK_EQUAL(config.options.zoneout_h, 0.5);
  CHECK_EQUAL(config.options.zoneout_c, 0.25);
  const auto both = read_configuration(with(R"("zoneout": 0.125)")).config;  // as Python's LSTM
  CHECK_EQUAL(both.options.zoneout_h, 0.125);
  CHECK_EQUAL(both.options.zoneout_c, 0.125);
  using fastlstm::ActivationKind;
  CHECK((config.options.gate == fastlstm::Activation{ActivationKind::kHardSigmoid, 0.25, 0.5}));
  CHECK((config.options.candidate == fastlstm::Activation{ActivationKind::kRelu}));
  CHECK((config.options.hidden == fastlstm::Activation{ActivationKind::kAffine, 2, 3}));
}

TEST(wrong_configurations) {
  for (const char* more :
       {R"("bias": 1)", R"("clip": "1")", R"("zoneout": [0.1, 0.2, 0.3])", R"("zoneout": [0.1])",
        R"("zoneout": [])", R"("activations": [])", R"("clip": 1, "clip": 1)",
        R"("reset_after": true)", R"("activations": ["Tanh"])", R"("nonlinearity": "relu")",
        R"("activations": [["ScaledTanh", 1], "Tanh", "Tanh"])",
        R"("activations": [["Tanh", 1], "Tanh", "Tanh"])", R"("num_layers": 1.5)"}) {
    NOTE(more);
    CHECK_THROWS(read_configuration(with(more)), BadFile);
  }
  for (const char* more : {R"("weights": "bfloat16")", R"("dtype": "float16")", R"("merge": "max")",
                           R"("activations": ["Gelu", "Tanh", "Tanh"])"}) {
    NOTE(more);
    CHECK_THROWS(read_configuration(with(more)), Unsupported);
  }
  for (const char* text : {"", "[]", "{", R"({"layer": "LSTM", "layer": "LSTM"})",
                           R"({"layer": "LSTM",})", R"({"layer": "LSTM"} {})"}) {
    NOTE(text);
    CHECK_THROWS(read_configuration(text), BadFile);
  }
  for (const char* text : {R"({"format": 3})", R"({"layer": "xLSTM"})", R"({"module": {}})",
                           R"({"format": 1, "kind": "LSTM"})", "{}"}) {
    NOTE(text);
    CHECK_THROWS(read_configuration(text), Unsupported);
  }
}

TEST(configurations_of_small_weights) {
  const std::string options = R"("layer": "LSTM", "options": {"input_size": 1, "hidden_size": 1)";
  const auto of = [&](const std::string& more) { return "{" + options + "}, " + more + "}"; };
  const std::string int8 = R"("quantization": {"weights": "int8", "activations": "int8"})";
  const auto config = read_configuration(of(R"("format": 2, )" + int8)).config;
  CHECK(config.arithmetic == fastlstm::Arithmetic::kInt8);
  CHECK(read_configuration(of(R"("format": 1)")).config.arithmetic == fastlstm::Arithmetic::kFull);
  CHECK_THROWS(read_configuration(of(R"("format": 2)")), BadFile);
  CHECK_THROWS(read_configuration(of(R"("format": 1, )" + int8)), BadFile);
  CHECK_THROWS(
      read_configuration("{" + options + R"(, "dtype": "float64"}, "format": 2, )" + int8 + "}"),
      BadFile);
  for (const char* wrong : {R"({"weights": "int4", "activations": "int8"})", "{}",
                            R"({"weights": "float32", "activations": "float32"})",
                            R"({"weights": "int8", "activations": "int8", "rows": 1})"}) {
    NOTE(wrong);
    CHECK_THROWS(read_configuration(of(R"("format": 2, "quantization": )" + std::string(wrong))),
                 Unsupported);
  }
}

TEST(values_of_other_types) {
  const auto first = [](const std::string& dtype, const std::string& bytes) {
    std::vector<std::vector<float>> kept;
    return *fastlstm::values_of<float>({"a", dtype, {1}, bytes}, kept);
  };
  using namespace std::string_literals;
  CHECK_EQUAL(first("F16", "\x00\x3c"s), 1.0f);
  CHECK_EQUAL(first("F16", "\x01\x80"s), -std::ldexp(1.0f, -24));
  CHECK_EQUAL(first("F16", "\xff\x03"s), std::ldexp(1023.0f, -24));
  CHECK_EQUAL(first("F16", "\x00\x7c"s), std::numeric_limits<float>::infinity());
  CHECK(std::isnan(first("F16", "\x01\xfc"s)));
  CHECK_EQUAL(first("F16", "\xff\x7b"s), 65504.0f);
  CHECK_EQUAL(first("F16", "\x00\x00"s), 0.0f);
  CHECK_EQUAL(first("BF16", "\xc0\xbf"s), -1.5f);
  CHECK_THROWS(first("F64", std::string(8, '\0')), Unsupported);
  CHECK_THROWS(first("I32", std::string(4, '\0')), Unsupported);
  std::vector<std::vector<double>> kept;
  CHECK_EQUAL(*fastlstm::values_of<double>({"a", "F32", {1}, "\x00\x00\xc0\xbf"s}, kept), -1.5);
}

TEST(places_of_tensors) {
  const auto entry = [](const std::string& name, const std::string& place) {
    return quoted(name) + R"(: {"dtype": "F32", "shape": [1], "data_offsets": )" + place + "}";
  };
  const std::string values(8, '\0');
  const auto parse = [&](const std::string& header) {
    const std::string file = file_of(header, values);
    return parse_safetensors(file).tensors.size();
  };
  CHECK_EQUAL(parse("{" + entry("a", "[4, 8]") + "," + entry("b", "[0, 4]") + "}  "), 2u);
  for (const std::string& header : {
           "{" + entry("a", "[0, 4]") + "}",  // bytes that are nobody's
           "{" + entry("a", "[4, 8]") + "}",  // before
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[0, 4]") + "}",  // shared
           "{" + entry("a", "[0, 4]") + "," + entry("a", "[4, 8]") + "}",  // one name
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[4, 12]") + "}",
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[8, 4]") + "}",
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[-4, 0]") + "}",
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[4]") + "}",
           "{" + entry("a", "[0, 4]") + "," + entry("b", "[4, 8, 8]") + "}",
           "{" + entry("a", "[0, 8]") + "}",
           std::string(
               R"({"a": {"dtype": "F32", "shape": [4611686018427387904, 4611686018427387904],
               "data_offsets": [0, 8]}})"),
           std::string(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], "b": 1}})"),
           std::string(R"({"a": {"shape": [2], "data_offsets": [0, 8]}})"),
           std::string(R"({"a": {"dtype": "F32", "data_offsets": [0, 8]}})"),
           std::string(R"({"__metadata__": {"fastlstm": 1}})"),
           std::string(R"({"__metadata__": {}, "__metadata__": {}})"),
       }) {
    NOTE(header);
    CHECK_THROWS(parse(header), BadFile);
  }
  for (const std::string& file :
       {std::string(), std::string(8, '\0'), std::string("\x03\0\0\0\0\0\0\0{}", 10),
        std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)}) {
    CHECK_THROWS(parse_safetensors(file), BadFile);
  }
  // A text as deep as it is long, which a reader that calls itself would not survive.
  CHECK_THROWS(parse(R"({"a": )" + std::string(1000000, '[')), BadFile);
}
