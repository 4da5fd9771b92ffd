#pragma once

#include <memory>
#include <string>
#include <vector>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

namespace moesaic {

// The process's metrics; each is declared beside the code it measures. Made in main and passed
// down. Thread: any. The references returned live as long as the registry.
class MetricsRegistry {
 public:
  using Labels = std::vector<std::pair<std::string, std::string>>;

  MetricsRegistry();
  ~MetricsRegistry();
  MetricsRegistry(const MetricsRegistry&) = delete;
  MetricsRegistry& operator=(const MetricsRegistry&) = delete;

  // The same name with other labels adds a series to the family.
  prometheus::Counter& AddCounter(const std::string& name,
                                  const std::string& help,
                                  const Labels& labels = {});
  prometheus::Gauge& AddGauge(const std::string& name,
                              const std::string& help,
                              const Labels& labels = {});
  prometheus::Histogram& AddHistogram(const std::string& name,
                                      const std::string& help,
                                      const std::vector<double>& upper_bounds,
                                      const Labels& labels = {});

  // The text format of a /metrics scrape.
  std::string Render() const;

 private:
  std::shared_ptr<prometheus::Registry> registry_;
};

}  // namespace moesaic
