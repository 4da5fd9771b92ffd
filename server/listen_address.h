#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace moesaic {

// Whether a server could listen at `bind`:`port` now. gRPC itself does not tell its caller why it
// cannot. InvalidArgument when `bind` is no IP address, Unavailable with the system's reason
// otherwise.
absl::Status CheckListenAddress(const std::string& bind, int32_t port);

}  // namespace moesaic
