#include "server/metrics_endpoint.h"

#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "base/str_cat.h"

namespace moesaic {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using tcp = asio::ip::tcp;

constexpr int kMaxConnections = 32;
constexpr size_t kMaxHeaderBytes = 8 << 10;
constexpr auto kTimeout = std::chrono::seconds(10);

http::response<http::string_body> Answer(const http::request<http::empty_body>& request,
                                         const MetricsEndpoint::Pages& pages) {
  HttpReply reply;
  const auto path = request.target().substr(0, request.target().find('?'));
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    reply = {.status = 405, .body = "only GET is answered here\n"};
  } else if (path == "/metrics") {
    reply = pages.metrics();
  } else if (path == "/healthz") {
    reply = pages.health();
  } else {
    reply = {.status = 404, .body = "there are /metrics and /healthz\n"};
  }
  http::response<http::string_body> response(static_cast<http::status>(reply.status),
                                             request.version());
  response.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
  response.keep_alive(request.keep_alive());
  response.content_length(reply.body.size());
  if (request.method() == http::verb::get) response.body() = std::move(reply.body);
  return response;
}

// One connection; kept alive by its pending operation.
class Session final : public std::enable_shared_from_this<Session> {
 public:
  Session(tcp::socket socket, const MetricsEndpoint::Pages& pages, std::shared_ptr<int> count)
      : stream_(std::move(socket)), pages_(pages), count_(std::move(count)) {
    ++*count_;
  }
  ~Session() { --*count_; }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(0);
    stream_.expires_after(kTimeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](beast::error_code error, size_t) {
                       if (!error) self->Write();
                     });
  }

 private:
  void Write() {
    response_ = Answer(parser_->get(), pages_);
    stream_.expires_after(kTimeout);
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, size_t) {
                        if (!error && self->response_.keep_alive()) self->Read();
                      });
  }

  beast::tcp_stream stream_;
  const MetricsEndpoint::Pages& pages_;
  const std::shared_ptr<int> count_;  // of connections; the endpoint's thread only
  beast::flat_buffer buffer_{kMaxHeaderBytes};
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::response<http::string_body> response_;
};

}  // namespace

class MetricsEndpoint::Listener {
 public:
  explicit Listener(Pages pages) : pages_(std::move(pages)) {}
  ~Listener() {
    context_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(const std::string& bind, int32_t port) {
    beast::error_code error;
    const asio::ip::address address = asio::ip::make_address(bind, error);
    if (error) {
      return absl::InvalidArgumentError(
          StrCat("--bind: got \"", bind, "\", expected an IPv4 or IPv6 address"));
    }
    const tcp::endpoint endpoint(address, static_cast<uint16_t>(port));
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      return absl::UnavailableError(StrCat("cannot listen on ", bind, ":", port,
                                           " (--bind, --metrics-port): ", error.message()));
    }
    port_ = acceptor_.local_endpoint(error).port();
    Accept();
    thread_ = std::thread([this] { context_.run(); });
    return absl::OkStatus();
  }

  int32_t port() const { return port_; }

 private:
  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      // One too many is closed at once.
      if (!error && *connections_ < kMaxConnections) {
        std::make_shared<Session>(std::move(socket), pages_, connections_)->Read();
      }
      Accept();
    });
  }

  const Pages pages_;
  const std::shared_ptr<int> connections_ = std::make_shared<int>(0);
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  int32_t port_ = 0;
  std::thread thread_;
};

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<Listener> listener)
    : listener_(std::move(listener)) {}
MetricsEndpoint::~MetricsEndpoint() = default;

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(const std::string& bind,
                                                                        int32_t port,
                                                                        Pages pages) {
  auto listener = std::make_unique<Listener>(std::move(pages));
  if (absl::Status status = listener->Listen(bind, port); !status.ok()) return status;
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(listener)));
}

int32_t MetricsEndpoint::port() const { return listener_->port(); }

}  // namespace moesaic
