#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace moesaic {
namespace {

// One step of Knuth, Morris and Pratt's automaton: the length of the longest prefix of `stop` that
// the input ends with after `byte`.
template <typename Stop>
int32_t Advance(const Stop& stop, int32_t progress, char byte) {
  while (progress > 0 && stop.text[progress] != byte) progress = stop.border[progress - 1];
  return stop.text[progress] == byte ? progress + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops, bool include_stop)
    : include_stop_(include_stop) {
  for (std::string& text : stops) {
    if (text.empty()) continue;
    Stop stop{.text = std::move(text), .border = {}};
    stop.border.assign(stop.text.size(), 0);
    for (size_t i = 1; i < stop.text.size(); ++i) {
      stop.border[i] = Advance(stop, stop.border[i - 1], stop.text[i]);
    }
    stops_.push_back(std::move(stop));
  }
}

std::string StopMatcher::Push(std::string_view text) {
  if (matched()) return "";
  if (stops_.empty()) return std::string(text);
  size_t consumed = 0;
  while (consumed < text.size() && !matched()) {
    const char byte = text[consumed++];
    for (size_t s = 0; s < stops_.size(); ++s) {
      Stop& stop = stops_[s];
      stop.progress = Advance(stop, stop.progress, byte);
      if (stop.progress < static_cast<int32_t>(stop.text.size())) continue;
      if (!matched() || stop.text.size() > stops_[matched_].text.size()) {
        matched_ = static_cast<int32_t>(s);
      }
      stop.progress = 0;
    }
  }
  held_.append(text.substr(0, consumed));
  size_t keep = 0;
  if (matched()) {
    if (!include_stop_) held_.resize(held_.size() - stops_[matched_].text.size());
  } else {
    for (const Stop& stop : stops_) keep = std::max(keep, static_cast<size_t>(stop.progress));
  }
  std::string out = held_.substr(0, held_.size() - keep);
  held_.erase(0, out.size());
  return out;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace moesaic
