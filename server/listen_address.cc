#include "server/listen_address.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "base/str_cat.h"

namespace moesaic {
namespace {

// 0, or the errno of what failed.
int TryListen(const addrinfo& address) {
  const int descriptor = socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor < 0) return errno;
  const int on = 1;  // as gRPC sets it: a connection that lingers takes no port
  int error = 0;
  if (setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      bind(descriptor, address.ai_addr, address.ai_addrlen) != 0 || listen(descriptor, 1) != 0) {
    error = errno;
  }
  close(descriptor);
  return error;
}

}  // namespace

absl::Status CheckListenAddress(const std::string& bind, int32_t port) {
  addrinfo hints = {};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(bind.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) {
    return absl::InvalidArgumentError(
        StrCat("--bind: got \"", bind, "\", expected an IPv4 or IPv6 address"));
  }
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> address(found, &freeaddrinfo);
  if (const int error = TryListen(*address); error != 0) {
    return absl::UnavailableError(StrCat("cannot listen on ", bind, ":", port,
                                         " (--bind, --grpc-port): ", std::strerror(error)));
  }
  return absl::OkStatus();
}

}  // namespace moesaic
