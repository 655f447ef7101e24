// The lists that other code is made of: cells, parameters, tuning.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "fastlstm/config.hpp"
#include "fastlstm/parameters.hpp"
#include "runtime/tuning.hpp"

using namespace fastlstm;

namespace {

/// The shape of a parameter: {0, 0} where it is absent.
using Shape = std::pair<Index, Index>;

Shape shape_of(const StackConfig& config, Index layer, const std::string& name) {
  for (const auto& parameter : parameters_of<float>(config, layer)) {
    if (parameter.name == name) return {parameter.rows, parameter.columns};
  }
  return {0, 0};
}

std::vector<std::string> names_of(const StackConfig& config, Index layer) {
  std::vector<std::string> names;
  for (const auto& parameter : parameters_of<float>(config, layer)) names.push_back(parameter.name);
  return names;
}

}  // namespace

TEST(cells_stand_in_the_order_of_their_kinds) {
  Index kinds = 0;
  for (const CellFacts& facts : kCells) {
    NOTE(facts.name);
    CHECK_EQUAL(static_cast<Index>(facts.kind), kinds++);
    StackConfig config{3, 5};
    config.cell = facts.kind;
    CHECK_EQUAL(std::strcmp(config.facts().name, facts.name), 0);
    CHECK_EQUAL(config.gates(), facts.gates);
    const std::vector<StatePart> parts = config.state_parts();
    CHECK_EQUAL(static_cast<Index>(parts.size()), 1 + config.memory_parts());
    CHECK(static_cast<Index>(parts.size()) <= kMostStateParts);
    CHECK_EQUAL(std::string(parts[0].name), std::string("h"));
    Index memory = 0;
    for (std::size_t k = 1; k < parts.size(); ++k) memory += parts[k].width;
    CHECK_EQUAL(config.memory_size(), memory);
  }
}

TEST(state_of_a_projected_lstm) {
  const StackConfig config{3, 5, 1, 2};
  const std::vector<StatePart> parts = config.state_parts();
  CHECK_EQUAL(parts.size(), std::size_t{2});
  CHECK_EQUAL(parts[0].width, 2);
  CHECK_EQUAL(std::string(parts[1].name), std::string("c"));
  CHECK_EQUAL(parts[1].width, 5);
}

TEST(parameters_of_a_plain_layer) {
  const StackConfig config{3, 5, 2, 0, true};
  const std::vector<std::string> names{"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
  CHECK(names_of(config, 0) == names);
  CHECK(shape_of(config, 0, "weight_ih") == Shape(20, 3));
  CHECK(shape_of(config, 1, "weight_ih") == Shape(20, 10));  // of both directions
  CHECK(shape_of(config, 1, "weight_hh") == Shape(20, 5));
  CHECK(shape_of(config, 1, "bias_hh") == Shape(20, 0));
  for (const CellKind cell : {CellKind::kGru, CellKind::kGruResetBefore, CellKind::kRnnRelu}) {
    StackConfig other = config;
    other.cell = cell;
    CHECK(names_of(other, 0) == names);
    CHECK(shape_of(other, 0, "weight_hh") == Shape(5 * other.gates(), 5));
  }
}

TEST(parameters_of_options) {
  StackConfig config{3, 5, 2, 4};
  config.bias = false;
  CHECK((names_of(config, 1) == std::vector<std::string>{"weight_ih", "weight_hh", "weight_hr"}));
  CHECK(shape_of(config, 1, "weight_ih") == Shape(20, 4));
  CHECK(shape_of(config, 1, "weight_hh") == Shape(20, 4));
  CHECK(shape_of(config, 1, "weight_hr") == Shape(4, 5));
  config.options.peepholes = true;
  CHECK(shape_of(config, 0, "weight_peephole") == Shape(15, 0));
  config.options = {};
  config.options.layer_norm = true;
  CHECK(shape_of(config, 0, "weight_ln_ih") == Shape(20, 0));
  CHECK(shape_of(config, 0, "weight_ln_hh") == Shape(20, 0));
  CHECK(shape_of(config, 0, "weight_ln_c") == Shape(5, 0));
  CHECK(shape_of(config, 0, "bias_ln_c") == Shape(0, 0));
  config.bias = true;
  CHECK(shape_of(config, 0, "bias_ln_c") == Shape(5, 0));
}

// With everything at once, which no stack takes, the list fills each field, once.
TEST(every_parameter_has_a_field_of_its_own) {
  StackConfig config{3, 5, 1, 4};
  config.options.peepholes = config.options.layer_norm = true;
  float value = 0;
  CellParams<float> params;
  std::set<std::string> names;
  for (const auto& parameter : parameters_of<float>(config, 0)) {
    NOTE(parameter.name);
    CHECK(names.insert(parameter.name).second);
    CHECK(params.*parameter.field == nullptr);
    params.*parameter.field = &value;
    CHECK_EQUAL(parameter.size(), parameter.rows * std::max<Index>(1, parameter.columns));
    CHECK(parameter.size() > 0);
  }
  CHECK_EQUAL(names.size() * sizeof(float*), sizeof params);
#define FASTLSTM_CHECK_FIELD(name, rows, columns, initial, present) \
  CHECK(params.name == &value);                                     \
  CHECK(names.count(#name) == 1);
  FASTLSTM_PARAMETERS(FASTLSTM_CHECK_FIELD)
#undef FASTLSTM_CHECK_FIELD
}

TEST(tuning_of_this_machine) {
  std::set<std::string> names;
  for (const TuningEntry& entry : tuning_table()) {
    NOTE(entry.name);
    CHECK(names.insert(entry.name).second);
    CHECK(entry.value > 0 && std::isfinite(entry.value));
    CHECK(std::strlen(entry.meaning) > 0);
  }
  CHECK_EQUAL(names.size() * sizeof(double), sizeof(Tuning));
  const auto of_machine = [](double fast, double zen5, double slow) {
    return machine() == Machine::kFastL3 ? fast : machine() == Machine::kZen5 ? zen5 : slow;
  };
#define FASTLSTM_CHECK_VALUES(name, fast, zen5, slow, meaning)     \
  CHECK(std::min({double(fast), double(zen5), double(slow)}) > 0); \
  CHECK_EQUAL(tuning().name, of_machine(fast, zen5, slow));
  FASTLSTM_TUNING(FASTLSTM_CHECK_VALUES)
#undef FASTLSTM_CHECK_VALUES
}
