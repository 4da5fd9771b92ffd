#include "base/metrics.h"

#include <map>

#include <prometheus/text_serializer.h>

namespace moesaic {
namespace {

std::map<std::string, std::string> ToMap(const MetricsRegistry::Labels& labels) {
  return {labels.begin(), labels.end()};
}

}  // namespace

MetricsRegistry::MetricsRegistry() : registry_(std::make_shared<prometheus::Registry>()) {}
MetricsRegistry::~MetricsRegistry() = default;

prometheus::Counter& MetricsRegistry::AddCounter(const std::string& name,
                                                 const std::string& help,
                                                 const Labels& labels) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(*registry_).Add(ToMap(labels));
}

prometheus::Gauge& MetricsRegistry::AddGauge(const std::string& name,
                                             const std::string& help,
                                             const Labels& labels) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(*registry_).Add(ToMap(labels));
}

prometheus::Histogram& MetricsRegistry::AddHistogram(const std::string& name,
                                                     const std::string& help,
                                                     const std::vector<double>& upper_bounds,
                                                     const Labels& labels) {
  return prometheus::BuildHistogram()
      .Name(name)
      .Help(help)
      .Register(*registry_)
      .Add(ToMap(labels), upper_bounds);
}

std::string MetricsRegistry::Render() const {
  return prometheus::TextSerializer().Serialize(registry_->Collect());
}

}  // namespace moesaic
