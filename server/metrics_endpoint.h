#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace moesaic {

// What an HTTP GET answers.
struct HttpReply {
  int status = 200;
  std::string body;  // text/plain
};

// The HTTP door for operators: GET /metrics (Prometheus text) and /healthz, on a thread of its own.
// Connections, their idle time and the bytes of a request are bounded; anything else than a GET of
// these two is refused.
//
// Owner: main. The functions are called on the endpoint's thread until the destructor returns.
class MetricsEndpoint {
 public:
  struct Pages {
    std::function<HttpReply()> metrics;
    std::function<HttpReply()> health;
  };

  // Unavailable when the port cannot be had; 0 takes a free one.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(const std::string& bind,
                                                                int32_t port,
                                                                Pages pages);
  ~MetricsEndpoint();

  int32_t port() const;

 private:
  class Listener;

  explicit MetricsEndpoint(std::unique_ptr<Listener> listener);

  std::unique_ptr<Listener> listener_;
};

}  // namespace moesaic
