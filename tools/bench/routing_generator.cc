#include "tools/bench/routing_generator.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic::bench {
namespace {

// SplitMix64: small, seeded by any number, and the same everywhere, as the standard library's
// distributions are not.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    state_ += 0x9e3779b97f4a7c15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<__uint128_t>(Next()) * bound) >> 64);
  }
  bool Chance(double probability) {
    return static_cast<double>(Next() >> 11) < probability * 9007199254740992.0;  // 2^53
  }

 private:
  uint64_t state_;
};

struct Stream {
  uint64_t request = 0;
  int32_t position = 0;
  int32_t end = 0;  // its last position + 1
  int32_t topic = 0;
  std::vector<int32_t> ranks;  // [layer, top_k] of the token before; -1 where there is none
};

class Generator {
 public:
  Generator(const RoutingGeneratorOptions& options, const RoutingTraceHeader& header)
      : options_(options), header_(header), random_(options.seed) {
    // Whole numbers, so that the last place of another machine's pow() changes no draw.
    for (int32_t rank = 0; rank < header.num_experts; ++rank) {
      weights_.push_back(
          std::max<uint64_t>(1, std::llround(std::ldexp(std::pow(rank + 1, -options.zipf), 32))));
    }
    rank_to_expert_.resize(static_cast<size_t>(options.topics) * header.num_layers);
    for (std::vector<int32_t>& order : rank_to_expert_) {
      order.resize(header.num_experts);
      std::iota(order.begin(), order.end(), 0);
      for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_.Below(i)]);
    }
    taken_.resize(header.num_experts);
  }

  absl::Status Run(RoutingTraceWriter& writer) {
    std::vector<Stream> streams(options_.streams);
    uint64_t requests = 0;
    std::vector<RoutingRun> runs(streams.size());
    const auto top_k = static_cast<size_t>(header_.top_k);
    std::vector<int32_t> ranks(streams.size() * top_k);
    std::vector<int32_t> experts(ranks.size());
    for (int64_t step = 0; step < options_.steps; ++step) {
      for (size_t s = 0; s < streams.size(); ++s) {
        Stream& stream = streams[s];
        if (stream.position == stream.end) {
          stream.request = requests++;
          stream.position = 0;
          stream.end = options_.request_tokens;
          // The first requests end at different times, so that not all streams change at once.
          if (step == 0) {
            stream.end -= static_cast<int32_t>(random_.Below(options_.request_tokens));
          }
          stream.topic = static_cast<int32_t>(random_.Below(options_.topics));
          stream.ranks.assign(static_cast<size_t>(header_.num_layers) * top_k, -1);
          MOESAIC_RETURN_IF_ERROR(
              writer.AddRequest(stream.request, StrCat("topic-", stream.topic)));
        } else if (random_.Chance(options_.drift)) {
          stream.topic = static_cast<int32_t>(random_.Below(options_.topics));
        }
        runs[s] = {stream.request, stream.position++, 1};
      }
      for (int32_t layer = 0; layer < header_.num_layers; ++layer) {
        for (size_t s = 0; s < streams.size(); ++s) {
          const std::span<int32_t> row = std::span(ranks).subspan(s * top_k, top_k);
          ChooseRanks(layer, std::span(streams[s].ranks).subspan(layer * top_k, top_k), row);
          const std::vector<int32_t>& order =
              rank_to_expert_[static_cast<size_t>(streams[s].topic) * header_.num_layers + layer];
          for (size_t k = 0; k < top_k; ++k) experts[s * top_k + k] = order[row[k]];
        }
        MOESAIC_RETURN_IF_ERROR(writer.Append(step, layer, runs, experts, {}));
      }
    }
    return absl::OkStatus();
  }

 private:
  // `row` holds the ranks that the token chose in the layer before, unless this is the first;
  // `last` those of the token before in this layer, and gets the new ones.
  void ChooseRanks(int32_t layer, std::span<int32_t> last, std::span<int32_t> row) {
    uint64_t left = std::accumulate(weights_.begin(), weights_.end(), uint64_t{0});
    std::fill(taken_.begin(), taken_.end(), false);
    const auto take = [&](int32_t rank) {
      taken_[rank] = true;
      left -= weights_[rank];
      return rank;
    };
    // Choices that keep to a rank come first: a draw takes another when its rank is taken, they
    // could not.
    for (size_t k = 0; k < row.size(); ++k) {
      int32_t kept = -1;
      if (random_.Chance(options_.repeat)) {
        kept = last[k];
      } else if (layer > 0 && random_.Chance(options_.correlation)) {
        kept = row[k];
      }
      row[k] = kept >= 0 && !taken_[kept] ? take(kept) : -1;
    }
    for (int32_t& rank : row) {
      if (rank >= 0) continue;
      uint64_t draw = random_.Below(left);
      int32_t next = 0;
      while (taken_[next] || draw >= weights_[next]) {
        if (!taken_[next]) draw -= weights_[next];
        ++next;
      }
      rank = take(next);
    }
    std::copy(row.begin(), row.end(), last.begin());
  }

  const RoutingGeneratorOptions& options_;
  const RoutingTraceHeader& header_;
  Random random_;
  std::vector<uint64_t> weights_;                     // [rank]
  std::vector<std::vector<int32_t>> rank_to_expert_;  // [topic, layer][rank]
  std::vector<bool> taken_;                           // [rank], of the row at hand
};

}  // namespace

absl::Status GenerateRouting(const RoutingGeneratorOptions& options, RoutingTraceWriter& writer) {
  const auto check = [](const char* what, double value, double min, double max) {
    if (value >= min && value <= max) return absl::OkStatus();
    return absl::InvalidArgumentError(
        StrCat(what, ": got ", value, ", expected ", min, " to ", max));
  };
  MOESAIC_RETURN_IF_ERROR(check("streams", options.streams, 1, 4096));
  MOESAIC_RETURN_IF_ERROR(check("steps", options.steps, 1, 1e7));
  MOESAIC_RETURN_IF_ERROR(check("request tokens", options.request_tokens, 1, 1e7));
  MOESAIC_RETURN_IF_ERROR(check("zipf", options.zipf, 0, 4));
  MOESAIC_RETURN_IF_ERROR(check("topics", options.topics, 1, 1000));
  MOESAIC_RETURN_IF_ERROR(check("drift", options.drift, 0, 1));
  MOESAIC_RETURN_IF_ERROR(check("correlation", options.correlation, 0, 1));
  MOESAIC_RETURN_IF_ERROR(check("repeat", options.repeat, 0, 1));
  return Generator(options, writer.header()).Run(writer);
}

}  // namespace moesaic::bench
