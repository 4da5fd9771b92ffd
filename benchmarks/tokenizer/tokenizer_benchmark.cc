// Encoding and decoding, MB of text per second, for each pipeline: on mixed text in many scripts,
// on English prose and code of this repository's size of prompt, and on one run of a single letter.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/tokenizer.h"

namespace moesaic {
namespace {

constexpr const char* kPipelines[] = {"qwen", "olmoe",      "mixtral", "mixtral_metaspace",
                                      "t5",   "llama_model"};

std::string Testdata(const std::string& name) {
  return MOESAIC_SOURCE_DIR "/tests/tokenizer/testdata/" + name;
}

std::unique_ptr<Tokenizer> Load(int64_t pipeline) {
  auto loaded = Tokenizer::Load(Testdata(kPipelines[pipeline]));
  return loaded.ok() ? std::move(loaded).value() : nullptr;
}

// The texts of the tests' corpus, as one.
std::string MixedText() {
  std::ifstream file(Testdata("corpus.bin"), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  std::string text;
  for (std::string_view rest = bytes; rest.size() >= sizeof(uint32_t);) {
    uint32_t length = 0;
    std::memcpy(&length, rest.data(), sizeof(length));
    rest.remove_prefix(sizeof(length));
    text += rest.substr(0, length);
    rest.remove_prefix(std::min<size_t>(length, rest.size()));
  }
  return text;
}

std::string EnglishText() {
  std::string text;
  while (text.size() < 1'000'000) {
    for (const char* name : {"README.md", "docs/architecture.md", "tokenizer/bpe_model.cc"}) {
      std::ifstream file(std::string(MOESAIC_SOURCE_DIR "/") + name, std::ios::binary);
      text.append(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  return text;
}

void Encode(benchmark::State& state, const std::string& text) {
  const auto tokenizer = Load(state.range(0));
  if (tokenizer == nullptr) {
    state.SkipWithError("the tokenizer cannot be loaded");
    return;
  }
  for (auto _ : state) {
    auto ids = tokenizer->Encode(text, EncodeOptions());
    benchmark::DoNotOptimize(ids);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
  state.SetLabel(kPipelines[state.range(0)]);
}

void BM_EncodeMixed(benchmark::State& state) { Encode(state, MixedText()); }
void BM_EncodeEnglish(benchmark::State& state) { Encode(state, EnglishText()); }
void BM_EncodeOneLetter(benchmark::State& state) { Encode(state, std::string(1'000'000, 'a')); }

void BM_DecodeStream(benchmark::State& state) {
  const auto tokenizer = Load(state.range(0));
  const std::string text = MixedText();
  const auto ids = tokenizer->Encode(text, EncodeOptions());
  for (auto _ : state) {
    IncrementalDetokenizer stream(*tokenizer, DecodeOptions());
    for (const int32_t id : *ids) {
      std::string piece = stream.Push(id);
      benchmark::DoNotOptimize(piece);
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids->size()));
  state.SetLabel(kPipelines[state.range(0)]);
}

void EveryPipeline(benchmark::internal::Benchmark* benchmark) {
  benchmark->DenseRange(0, std::size(kPipelines) - 1)->Unit(benchmark::kMillisecond);
}
BENCHMARK(BM_EncodeMixed)->Apply(EveryPipeline);
BENCHMARK(BM_EncodeEnglish)->Apply(EveryPipeline);
BENCHMARK(BM_EncodeOneLetter)->Apply(EveryPipeline);
BENCHMARK(BM_DecodeStream)->Apply(EveryPipeline);

}  // namespace
}  // namespace moesaic
