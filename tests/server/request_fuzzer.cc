// Requests of both protocols, as bytes from the wire. Whatever they hold, decoding and checking end
// with a status, and what is accepted is within the limits that the engine relies on.

#include <google/protobuf/message_lite.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/admission.h"
#include "server/kserve_codec.h"
#include "server/sampling_json.h"
#include "server/sampling_proto.h"
#include "tests/server/fake_engine.h"
#include "tokenizer/utf8.h"

namespace moesaic {
namespace {

constexpr int32_t kMaxModelLen = 512;

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckAccepted(const ServedModel& model, GenerationRequest& request) {
  std::vector<int32_t> prompt;
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.prompt)) {
    prompt = *ids;
  } else {
    const auto encoded =
        model.tokenizer->Encode(std::get<std::string>(request.prompt), request.encode);
    if (!encoded.ok()) return;
    prompt = *encoded;
  }
  if (!CheckRequest(model, prompt, request).ok()) return;
  Require(!prompt.empty() && prompt.size() < kMaxModelLen);
  for (const int32_t id : prompt) Require(id >= 0 && id < model.config.vocab_size);
  const SamplingParams& params = request.params;
  Require(params.n >= 1 && params.n <= model.limits.max_n);
  Require(params.max_tokens >= 1 && prompt.size() + params.max_tokens <= kMaxModelLen);
  Require(params.temperature >= 0 && params.top_p > 0 && params.top_p <= 1 && params.top_k >= 0);
  Require(params.stop.size() <= static_cast<size_t>(model.limits.max_stop_strings));
}

}  // namespace
}  // namespace moesaic

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace moesaic;
  static const ServedModel* const model = new ServedModel(MakeFakeModel(1, 1, kMaxModelLen));
  // Malformed messages are expected; the library's log of them is not.
  static const google::protobuf::LogSilencer silencer;
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 3) {
    case 0: {
      inference::ModelInferRequest message;
      if (!message.ParseFromString(bytes)) return 0;
      auto call = DecodeInferRequest(message, *model);
      if (!call.ok()) return 0;
      if (const auto* text = std::get_if<std::string>(&call->request.prompt)) {
        Require(!FindInvalidUtf8(*text));
      }
      CheckAccepted(*model, call->request);
      return 0;
    }
    case 1: {
      v1::GenerateRequest message;
      if (!message.ParseFromString(bytes)) return 0;
      auto request = DecodeGenerateRequest(message, model->defaults);
      if (request.ok()) CheckAccepted(*model, *request);
      return 0;
    }
    default: {
      GenerationRequest request;
      request.prompt = std::vector<int32_t>{1};
      if (ParseSamplingJson(bytes, "fuzz", request).ok()) CheckAccepted(*model, request);
      return 0;
    }
  }
}
