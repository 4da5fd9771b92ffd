#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moesaic {

// Finds stop strings in text that comes piece by piece. The result does not depend on where the
// pieces are cut: the stop string that is completed first wins, the longest of those completed by
// the same byte. Linear in the text for each stop string.
//
// Thread: one.
class StopMatcher {
 public:
  // `include_stop`: the matched stop string is part of the output.
  StopMatcher(std::vector<std::string> stops, bool include_stop);

  // The text that is now known to be output: text that may begin a stop string is held back. After
  // a match nothing more is returned.
  std::string Push(std::string_view text);
  // What was held back, once no more text comes.
  std::string Flush();

  bool matched() const { return matched_ >= 0; }
  const std::string& matched_stop() const { return stops_[matched_].text; }

 private:
  struct Stop {
    std::string text;
    std::vector<int32_t> border;  // [text.size()]: the longest border of each prefix
    int32_t progress = 0;         // bytes of `text` that the input now ends with
  };

  std::vector<Stop> stops_;
  const bool include_stop_;
  std::string held_;
  int32_t matched_ = -1;
};

}  // namespace moesaic
