// Any JSON file of a model folder. An accepted document must survive printing and parsing again.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "checkpoint/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto json = moesaic::ParseJson(text, "fuzz");
  if (!json.ok()) return 0;
  const auto again = moesaic::ParseJson(json->dump(), "printed");
  if (!again.ok() || *again != *json) std::abort();
  for (const char* field : {"a", "b", ""}) {
    (void)moesaic::JsonInt(*json, field, "fuzz", -5, 5, 0);
    (void)moesaic::JsonNumber(*json, field, "fuzz");
    (void)moesaic::JsonBool(*json, field, "fuzz");
    (void)moesaic::JsonString(*json, field, "fuzz");
  }
  return 0;
}
