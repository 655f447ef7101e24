// The cells there are. Another is a file, a line here and one in cells.cpp.
#pragma once

#include <memory>

#include "cells/cell.hpp"

namespace fastlstm {

/// The cell of this configuration.
template <class T>
std::unique_ptr<Cell<T>> make_cell(const StackConfig& config);

template <class T>
std::unique_ptr<Cell<T>> make_lstm(const StackConfig& config);
template <class T>
std::unique_ptr<Cell<T>> make_lstm_norm(const StackConfig& config);
template <class T>
std::unique_ptr<Cell<T>> make_gru(const StackConfig& config);
template <class T>
std::unique_ptr<Cell<T>> make_gru_reset_before(const StackConfig& config);
template <class T>
std::unique_ptr<Cell<T>> make_rnn(const StackConfig& config);

}  // namespace fastlstm
