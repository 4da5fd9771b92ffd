#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace moesaic {

// Asks the server on this machine for its grpc.health.v1 status. OK when it serves; Unavailable
// with the reason otherwise. `bind` is the server's --bind: a wildcard is asked through loopback.
absl::Status AskHealth(const std::string& bind, int32_t port);

}  // namespace moesaic
