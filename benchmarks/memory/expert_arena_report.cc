#include <algorithm>
#include <array>
#include <cstdio>
#include <list>
#include <map>
#include <random>
#include <utility>

#include "base/checked_math.h"
#include "benchmarks/memory/memory_report.h"
#include "memory/stripe_layout.h"

namespace moesaic {
namespace {

constexpr int64_t kBudget = int64_t{4} << 30;
constexpr uint32_t kSeed = 1;

double MiB(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// An expert's unit: a row of gate and up, a column of down, in bfloat16.
int64_t UnitBytes(const ModelConfig& config) { return int64_t{3} * 2 * config.hidden_size; }

struct ExpertBytes {
  int64_t expert = 0;  // without padding
  int64_t slot = 0;
  int64_t stripes = 0;
  double waste() const {
    return 100.0 * (1.0 - static_cast<double>(expert) / static_cast<double>(slot * stripes));
  }
};

ExpertBytes OwnLayout(const ModelConfig& config) {
  const StripeLayout layout = ChooseStripeLayout(
      {.dtype = DType::kBFloat16, .hidden = config.hidden_size, .units = config.expert_units});
  return {config.expert_units * UnitBytes(config),
          RoundUp(layout.units_per_stripe * UnitBytes(config), kStripeAlignmentBytes),
          layout.num_stripes};
}

// The same expert in slots of a given size: as many multiples of 64 units as fit a slot.
ExpertBytes InSlots(const ModelConfig& config, int64_t slot) {
  const int64_t units = slot / UnitBytes(config) / 64 * 64;
  if (units == 0) return {};
  return {config.expert_units * UnitBytes(config), slot,
          CeilDiv<int64_t>(config.expert_units, units)};
}

// Experts of two models asked for at random, the least recently used giving way. Returns the mean
// share of the budget that holds experts, once it has been full.
class BestFitAllocator {
 public:
  explicit BestFitAllocator(int64_t budget) : budget_(budget) {}

  void Use(int64_t key, int64_t bytes) {
    if (const auto found = where_.find(key); found != where_.end()) {
      recent_.splice(recent_.begin(), recent_, found->second.second);
      return;
    }
    int64_t offset = Find(bytes);
    while (offset < 0) {
      const int64_t victim = recent_.back();
      recent_.pop_back();
      const int64_t at = where_.at(victim).first;
      used_ -= blocks_.at(at);
      blocks_.erase(at);
      where_.erase(victim);
      offset = Find(bytes);
    }
    blocks_[offset] = bytes;
    used_ += bytes;
    recent_.push_front(key);
    where_[key] = {offset, recent_.begin()};
  }
  int64_t used() const { return used_; }

 private:
  int64_t Find(int64_t bytes) const {
    int64_t end = 0;
    int64_t best = -1;
    int64_t best_gap = budget_ + 1;
    const auto consider = [&](int64_t begin) {
      const int64_t gap = begin - end;
      if (gap >= bytes && gap < best_gap) {
        best = end;
        best_gap = gap;
      }
    };
    for (const auto& [offset, size] : blocks_) {
      consider(offset);
      end = offset + size;
    }
    consider(budget_);
    return best;
  }

  const int64_t budget_;
  int64_t used_ = 0;
  std::map<int64_t, int64_t> blocks_;  // offset to bytes
  std::list<int64_t> recent_;
  std::map<int64_t, std::pair<int64_t, std::list<int64_t>::iterator>> where_;
};

struct Mixture {
  int64_t bytes;
  int64_t experts;
};

double BestFitShare(const Mixture& a, const Mixture& b) {
  constexpr int kRequests = 20000;
  BestFitAllocator allocator(kBudget);
  std::mt19937 random(kSeed);
  double sum = 0;
  for (int i = 0; i < kRequests; ++i) {
    // Each model asks for half of the bytes.
    const bool first =
        random() % static_cast<uint64_t>(a.bytes + b.bytes) < static_cast<uint64_t>(b.bytes);
    const Mixture& model = first ? a : b;
    const int64_t key = static_cast<int64_t>(random()) % model.experts;
    allocator.Use(first ? key : -1 - key, model.bytes);
    if (i >= kRequests / 2) sum += static_cast<double>(allocator.used());
  }
  return 100.0 * sum / (0.5 * kRequests) / static_cast<double>(kBudget);
}

void PrintFamilies() {
  std::printf(
      "Per family, bfloat16. Working budget: what a layer can stream through while the next part "
      "is "
      "copied, two stripes or two experts. Resident: experts in %lld MiB beside that.\n\n",
      static_cast<long long>(kBudget >> 20));
  std::printf(
      "| model | expert | stripe | stripes | waste | working budget: stripes | whole slots, best "
      "fit "
      "| resident: stripes | whole slots, best fit "
      "|\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
  for (const NamedModel& model : PublishedModels()) {
    const ExpertBytes bytes = OwnLayout(model.config);
    const int64_t resident_stripes = kBudget / bytes.slot - 2;
    const double resident =
        static_cast<double>(resident_stripes) / static_cast<double>(bytes.stripes);
    const int64_t whole = std::max<int64_t>(0, kBudget / bytes.expert - 2);
    std::printf(
        "| %s | %.2f MiB | %.2f MiB | %lld | %.1f %% | %.1f MiB | %.1f MiB | %.1f | %lld |\n",
        model.name.c_str(), MiB(bytes.expert), MiB(bytes.slot),
        static_cast<long long>(bytes.stripes), bytes.waste(), MiB(2 * bytes.slot),
        MiB(2 * bytes.expert), resident, static_cast<long long>(whole));
  }
}

// The size of slot, among multiples of 64 units of either model from 0.75 to 4.5 MiB, that wastes
// least; the larger of equals, for fewer copies.
int64_t CommonSlot(const ModelConfig& a, const ModelConfig& b) {
  int64_t best = 0;
  double best_waste = 200;
  for (const ModelConfig* model : {&a, &b}) {
    const int64_t step = RoundUp<int64_t>(64 * UnitBytes(*model), kStripeAlignmentBytes);
    for (int64_t slot = step; slot <= 9 << 19; slot += step) {
      if (slot < 3 << 18) continue;
      const ExpertBytes in_a = InSlots(a, slot);
      const ExpertBytes in_b = InSlots(b, slot);
      if (in_a.stripes == 0 || in_b.stripes == 0) continue;
      const double waste = std::max(in_a.waste(), in_b.waste());
      if (waste < best_waste || (waste == best_waste && slot > best)) {
        best = slot;
        best_waste = waste;
      }
    }
  }
  return best;
}

void PrintPairs() {
  std::printf(
      "\nTwo models in one arena of %lld MiB. Share: bytes of experts over the budget when both "
      "ask "
      "for half of the bytes, uniformly at random (seed %u), and the least recently used gives "
      "way; "
      "a whole-expert slot is as large as the larger expert.\n\n",
      static_cast<long long>(kBudget >> 20), kSeed);
  std::printf(
      "| models | slot | waste, each | working budget: stripes | whole experts | share: stripes | "
      "whole slots, each | best fit |\n|---|---:|---:|---:|---:|---:|---:|---:|\n");
  const std::vector<NamedModel> models = PublishedModels();
  for (const auto& [i, j, experts_i, experts_j] : {std::array<int, 4>{0, 1, 48 * 128, 32 * 8},
                                                   {2, 1, 16 * 64, 32 * 8},
                                                   {2, 3, 16 * 64, 24 * 60},
                                                   {0, 3, 48 * 128, 24 * 60}}) {
    const int64_t slot = CommonSlot(models[i].config, models[j].config);
    const ExpertBytes a = InSlots(models[i].config, slot);
    const ExpertBytes b = InSlots(models[j].config, slot);
    const int64_t larger = std::max(a.expert, b.expert);
    const int64_t slots_bytes = kBudget / slot * slot;
    const double slots_share = static_cast<double>(slots_bytes) / static_cast<double>(kBudget);
    // Half of the slots' bytes are each model's.
    const double waste = (a.waste() + b.waste()) / 2;
    const int64_t whole_slots = kBudget / larger;
    const double whole = 100.0 * static_cast<double>(whole_slots) / static_cast<double>(kBudget);
    std::printf(
        "| %s with %s | %.2f MiB | %.1f, %.1f %% | %.1f MiB | %.1f MiB | %.1f %% | %.1f, %.1f %% | "
        "%.1f "
        "%% |\n",
        models[i].name.c_str(), models[j].name.c_str(), MiB(slot), a.waste(), b.waste(),
        MiB(2 * slot), MiB(2 * larger), slots_share * (100.0 - waste),
        whole * static_cast<double>(a.expert), whole * static_cast<double>(b.expert),
        BestFitShare({a.expert, experts_i}, {b.expert, experts_j}));
  }
  std::printf("\n");
}

}  // namespace

void PrintExpertArena() {
  PrintFamilies();
  PrintPairs();
}

}  // namespace moesaic
