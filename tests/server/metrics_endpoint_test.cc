#include "server/metrics_endpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>

namespace moesaic {
namespace {

using boost::asio::ip::tcp;
using testing::HasSubstr;
using testing::StartsWith;

class MetricsEndpointTest : public testing::Test {
 protected:
  MetricsEndpointTest() {
    auto endpoint = MetricsEndpoint::Start(
        "127.0.0.1", 0,
        {.metrics = [] { return HttpReply{.status = 200, .body = "some_metric 1\n"}; },
         .health =
             [this] { return HttpReply{.status = healthy_ ? 200 : 503, .body = "state\n"}; }});
    EXPECT_TRUE(endpoint.ok()) << endpoint.status();
    endpoint_ = *std::move(endpoint);
  }

  tcp::socket Connect() {
    tcp::socket socket(context_);
    socket.connect(
        {boost::asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(endpoint_->port())});
    return socket;
  }
  // Everything the server answers until it closes the connection.
  std::string Ask(const std::string& request) {
    tcp::socket socket = Connect();
    boost::system::error_code error;
    boost::asio::write(socket, boost::asio::buffer(request), error);
    std::string answer;
    boost::asio::read(socket, boost::asio::dynamic_buffer(answer), error);
    return answer;
  }
  static std::string Get(const std::string& path) {
    return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  }

  std::atomic<bool> healthy_{true};
  std::unique_ptr<MetricsEndpoint> endpoint_;
  boost::asio::io_context context_;
};

TEST_F(MetricsEndpointTest, ServesMetricsAndHealth) {
  const std::string metrics = Ask(Get("/metrics"));
  EXPECT_THAT(metrics, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(metrics, HasSubstr("some_metric 1"));
  EXPECT_THAT(Ask(Get("/metrics?x=1")), HasSubstr("some_metric 1"));
  EXPECT_THAT(Ask(Get("/healthz")), StartsWith("HTTP/1.1 200"));
  healthy_ = false;
  EXPECT_THAT(Ask(Get("/healthz")), StartsWith("HTTP/1.1 503"));
}

TEST_F(MetricsEndpointTest, RefusesEverythingElse) {
  EXPECT_THAT(Ask(Get("/secret")), StartsWith("HTTP/1.1 404"));
  EXPECT_THAT(Ask("DELETE /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
              StartsWith("HTTP/1.1 405"));
  EXPECT_THAT(Ask("\x16\x03\x01 not http\r\n\r\n"), testing::IsEmpty());
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(100000, 'a') + "\r\n\r\n"),
              testing::Not(HasSubstr("some_metric")));
  EXPECT_THAT(Ask(Get("/metrics")), HasSubstr("some_metric 1"));
}

TEST_F(MetricsEndpointTest, ConnectionsAreBoundedAndCloseWithTheEndpoint) {
  std::vector<tcp::socket> idle;
  for (int i = 0; i < 100; ++i) idle.push_back(Connect());
  // One over the bound is closed without an answer.
  EXPECT_EQ(Ask(Get("/metrics")), "");
  idle.clear();
  while (Ask(Get("/metrics")).empty()) {
  }
  idle.push_back(Connect());
  endpoint_.reset();
}

TEST_F(MetricsEndpointTest, ReportsAPortThatIsTakenAndABadAddress) {
  EXPECT_EQ(MetricsEndpoint::Start("127.0.0.1", endpoint_->port(), {}).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(MetricsEndpoint::Start("nowhere", 0, {}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace moesaic
