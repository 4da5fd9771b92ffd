#include "base/metrics.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(MetricsRegistryTest, RendersEveryKindAsText) {
  MetricsRegistry registry;
  registry.AddCounter("requests_total", "Requests", {{"reason", "stop"}}).Increment(2);
  registry.AddCounter("requests_total", "Requests", {{"reason", "length"}}).Increment();
  registry.AddGauge("running", "Running").Set(3);
  registry.AddHistogram("seconds", "Time", {0.1, 1.0}).Observe(0.5);
  const std::string text = registry.Render();
  EXPECT_THAT(text, HasSubstr("requests_total{reason=\"stop\"} 2"));
  EXPECT_THAT(text, HasSubstr("requests_total{reason=\"length\"} 1"));
  EXPECT_THAT(text, HasSubstr("running 3"));
  EXPECT_THAT(text, HasSubstr("seconds_bucket{le=\"1\"} 1"));
}

}  // namespace
}  // namespace moesaic
