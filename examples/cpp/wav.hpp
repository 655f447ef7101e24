// WAV files of 16-bit integers or 32-bit floats, as samples between -1 and 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Wav {
  std::uint32_t rate = 0;      // samples a second
  std::uint32_t channels = 0;  // side by side in samples
  std::vector<float> samples;  // [frames, channels]
};

/// The little-endian number of so many bytes.
inline std::uint32_t number_at(const std::string& data, std::size_t at, std::size_t bytes) {
  std::uint32_t value = 0;
  for (std::size_t k = 0; k < bytes; ++k) {
    value |= static_cast<std::uint32_t>(static_cast<unsigned char>(data.at(at + k))) << (8 * k);
  }
  return value;
}

inline Wav read_wav(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  const std::string data((std::istreambuf_iterator<char>(file)), {});
  if (data.substr(0, 4) != "RIFF" || data.size() < 12 || data.substr(8, 4) != "WAVE") {
    throw std::runtime_error(path + ": no WAV file");
  }
  Wav wav;
  std::uint32_t format = 0, bits = 0;
  for (std::size_t at = 12; at + 8 <= data.size();) {
    const std::string name = data.substr(at, 4);
    const std::string chunk = data.substr(at + 8, number_at(data, at + 4, 4));
    if (name == "fmt " && chunk.size() >= 16) {
      format = number_at(chunk, 0, 2);
      wav.channels = number_at(chunk, 2, 2);
      wav.rate = number_at(chunk, 4, 4);
      bits = number_at(chunk, 14, 2);
    } else if (name == "data" && format == 1 && bits == 16) {
      for (std::size_t k = 0; k + 2 <= chunk.size(); k += 2) {
        const auto value = static_cast<std::int16_t>(number_at(chunk, k, 2));
        wav.samples.push_back(static_cast<float>(value) / 32768);
      }
    } else if (name == "data" && format == 3 && bits == 32) {
      wav.samples.resize(chunk.size() / sizeof(float));
      std::memcpy(wav.samples.data(), chunk.data(), wav.samples.size() * sizeof(float));
    } else if (name == "data") {
      throw std::runtime_error(path + ": expected 16-bit integers or 32-bit floats");
    }
    at += 8 + chunk.size() + chunk.size() % 2;
  }
  if (wav.rate == 0 || wav.channels == 0) throw std::runtime_error(path + ": it has no format");
  wav.samples.resize(wav.samples.size() / wav.channels * wav.channels);  // whole frames
  return wav;
}

/// As 32-bit floats.
inline void write_wav(const std::string& path, const Wav& wav) {
  std::string data;
  const auto put = [&data](std::size_t value, int bytes) {
    for (int k = 0; k < bytes; ++k) data += static_cast<char>((value >> (8 * k)) & 0xff);
  };
  const std::size_t bytes = wav.samples.size() * sizeof(float);
  data += "RIFF";
  put(36 + bytes, 4);
  data += "WAVEfmt ";
  put(16, 4);
  put(3, 2);
  put(wav.channels, 2);
  put(wav.rate, 4);
  put(std::size_t{wav.rate} * wav.channels * sizeof(float), 4);
  put(wav.channels * sizeof(float), 2);
  put(32, 2);
  data += "data";
  put(bytes, 4);
  std::ofstream file(path, std::ios::binary);
  file.write(data.data(), static_cast<std::streamsize>(data.size()));
  file.write(reinterpret_cast<const char*>(wav.samples.data()),
             static_cast<std::streamsize>(bytes));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}
