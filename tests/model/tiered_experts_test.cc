#include "model/tiered_experts.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <random>
#include <set>

#include <gtest/gtest.h>

#include "base/checked_math.h"
#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "memory/cpu_device.h"
#include "memory/stripe_layout.h"
#include "memory/stripe_source.h"
#include "tests/checkpoint/test_files.h"
#include "tests/model/dummy_networks.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

constexpr ExpertPolicyKind kPolicies[] = {ExpertPolicyKind::kOnDemand, ExpertPolicyKind::kFifo,
                                          ExpertPolicyKind::kLru,      ExpertPolicyKind::kLfu,
                                          ExpertPolicyKind::kFuture,   ExpertPolicyKind::kBelady};

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// Says something about every expert that is not true: results may not depend on it.
class WrongForecast final : public UseForecast {
 public:
  int64_t NextUse(int32_t key, int64_t tick) const override {
    return key % 5 == 0 ? kNever : tick + 1 + (key * 7 + tick) % 13;
  }
};

PrefetchPlan RandomPlan(std::mt19937& random, const StripeKeys& keys, int64_t tick) {
  PrefetchPlan plan;
  for (int i = 0; i < 4; ++i) {
    plan.entries.push_back(
        {.expert = {.layer = static_cast<int32_t>(random() % keys.num_layers),
                    .index = static_cast<int32_t>(random() % keys.num_experts)},
         .prefetch_class = random() % 2 == 0 ? PrefetchClass::kNextLayer : PrefetchClass::kLater,
         .tick = tick + static_cast<int64_t>(random() % 6)});
  }
  return plan;
}

// Stripes in RAM of which some must be read, and some of those cannot be.
class FaultySource final : public RamStripeSource {
 public:
  using RamStripeSource::RamStripeSource;

  void Fail(ExpertId expert, int32_t from_stripe) {
    layer_ = expert.layer;
    index_ = expert.index;
    from_stripe_ = from_stripe;
  }
  void Mend() { from_stripe_ = 1 << 20; }

  const std::byte* HostStripe(StripeId id) const override {
    return id.expert.index % 2 == 1 ? RamStripeSource::HostStripe(id) : nullptr;
  }
  absl::Status StartRead(StripeId id, std::byte* slot, uint64_t token) override {
    if (id.expert.layer == layer_ && id.expert.index == index_ && id.stripe >= from_stripe_) {
      return absl::UnavailableError("the disk is gone");
    }
    return RamStripeSource::StartRead(id, slot, token);
  }

 private:
  std::atomic<int32_t> layer_ = 0;
  std::atomic<int32_t> index_ = 0;
  std::atomic<int32_t> from_stripe_ = 1 << 20;
};

// Layers of experts of many small stripes, run by one call and through the tier.
class StripesTest : public testing::Test {
 protected:
  static constexpr int64_t kHidden = 48;
  static constexpr int32_t kLayers = 2;
  static constexpr int32_t kExperts = 6;
  static constexpr int32_t kStripes = 19;  // over twice TieredExperts::MaxWorkStripes
  static constexpr int32_t kTopK = 3;
  static constexpr int32_t kMaxRows = 300;

  StripesTest() {
    const int64_t slot_bytes =
        RoundUp(static_cast<int64_t>(kernels_.packed_stripe_bytes(stripe_)), kStripeAlignmentBytes);
    store_ = *ExpertStore::Create({kLayers, kExperts, kStripes, slot_bytes});
    std::uniform_real_distribution<float> uniform(-0.1f, 0.1f);
    for (int32_t layer = 0; layer < kLayers; ++layer) {
      for (int32_t expert = 0; expert < kExperts; ++expert) {
        for (int32_t stripe = 0; stripe < kStripes; ++stripe) {
          auto* values = static_cast<float*>(store_.MutableStripe({{layer, expert}, stripe}));
          std::generate_n(values, slot_bytes / 4, [&] { return uniform(random_); });
        }
      }
    }
    input_.resize(kMaxRows * kHidden);
    residual_.resize(kMaxRows * kHidden);
    for (float& value : input_) value = 10.0f * uniform(random_);
    for (float& value : residual_) value = uniform(random_);
    const int64_t sums_rows = TieredExperts::SumsRows(kMaxRows, kTopK);
    sums_.resize(sums_rows * kHidden);
  }

  void Start(int threads, int64_t slots, ExpertPolicyKind policy) {
    tiered_.reset();
    memory_.reset();
    pool_ = std::make_unique<ThreadPool>(threads);
    device_ = std::make_unique<CpuDevice>(pool_.get());
    source_ = std::make_unique<FaultySource>(store_);
    memory_ = *ExpertMemory::Create(*device_, *source_,
                                    *MakeExpertPolicy(policy, {kLayers, kExperts}, &forecast_),
                                    {.budget_bytes = slots * store_.shape().slot_bytes});
    tiered_ = std::make_unique<TieredExperts>(*memory_, sums_.data(),
                                              TieredExperts::SumsRows(kMaxRows, kTopK));
    workspace_.resize(kernels_.expert_ffn_workspace_bytes(stripe_, kStripes, kExperts, kMaxRows,
                                                          kMaxRows * kTopK, threads) +
                      64);
    tick_ = 0;
  }

  void Route(int32_t rows) {
    rows_ = rows;
    chosen_.clear();
    std::vector<int32_t> experts(kExperts);
    std::iota(experts.begin(), experts.end(), 0);
    std::vector<float> weights;
    for (int32_t row = 0; row < rows; ++row) {
      std::shuffle(experts.begin(), experts.end(), random_);
      chosen_.insert(chosen_.end(), experts.begin(), experts.begin() + kTopK);
      for (int k = 0; k < kTopK; ++k) weights.push_back(0.2f + 0.1f * static_cast<float>(k));
    }
    offsets_.resize(kExperts + 1);
    routed_rows_.resize(chosen_.size());
    routed_weights_.resize(chosen_.size());
    kernels::GroupRowsByExpert(rows, kTopK, kExperts, chosen_.data(), weights.data(),
                               offsets_.data(), routed_rows_.data(), routed_weights_.data());
  }

  // The output of one call with every stripe, and of the tier.
  void RunBoth(int32_t layer) {
    expected_ = output_ = residual_;
    void* workspace = workspace_.data() + 63;
    workspace = reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(workspace) & ~uintptr_t{63});
    kernels::ExpertFfnArgs args = {
        .shape = stripe_,
        .num_rows = rows_,
        .routed = {kExperts, offsets_.data(), routed_rows_.data(), routed_weights_.data()},
        .stripes_per_expert = kStripes,
        .stripes = store_.LayerStripes(layer).data(),
        .input = input_.data(),
        .output = expected_.data(),
        .workspace = workspace};
    Stream stream{.pool = pool_.get()};
    kernels_.expert_ffn(args, stream);
    failures_.clear();
    args.stripes = nullptr;
    args.output = output_.data();
    tiered_->Run(layer, tick_++ * kLayers + layer, args, kernels_.expert_ffn, stream, failures_);
    const ExpertMemoryMetrics metrics = memory_->metrics();
    EXPECT_LE(metrics.high_water_bytes, metrics.budget_bytes);
  }

  const kernels::KernelTable& kernels_ = kernels::CpuKernels(DetectIsa());
  const kernels::StripeShape stripe_ = {DType::kFloat32, kHidden, 64, true};
  const WrongForecast forecast_;
  std::mt19937 random_{7};
  ExpertStore store_;
  std::unique_ptr<ThreadPool> pool_;
  std::unique_ptr<CpuDevice> device_;
  std::unique_ptr<FaultySource> source_;
  std::unique_ptr<ExpertMemory> memory_;
  std::vector<float> sums_;
  std::unique_ptr<TieredExperts> tiered_;
  std::vector<std::byte> workspace_;
  std::vector<float> input_, residual_, expected_, output_;
  std::vector<int32_t> chosen_, offsets_, routed_rows_;
  std::vector<float> routed_weights_;
  int32_t rows_ = 0;
  int64_t tick_ = 0;
  std::vector<RowFailure> failures_;
};

TEST_F(StripesTest, ManyStripesGiveTheBitsOfOneCall) {
  for (const int threads : {1, 2}) {
    for (const int64_t slots : {2, 3, 20, 57, 228}) {
      for (const ExpertPolicyKind policy : kPolicies) {
        Start(threads, slots, policy);
        for (const int32_t rows : {1, 17, 2, 100, 300, 3}) {
          Route(rows);
          for (int32_t layer = 0; layer < kLayers; ++layer) {
            memory_->Prefetch(RandomPlan(random_, memory_->keys(), tick_ * kLayers));
            RunBoth(layer);
            ASSERT_TRUE(failures_.empty());
            ASSERT_TRUE(SameBits(output_, expected_))
                << threads << " threads, " << slots << " slots, " << ExpertPolicyName(policy)
                << ", " << rows << " rows, layer " << layer;
          }
        }
      }
    }
  }
}

TEST_F(StripesTest, OnlyRowsOfAnExpertThatFailsAreFailed) {
  for (const int64_t slots : {2, 20, 228}) {
    for (const int32_t from_stripe : {0, 11, kStripes - 1}) {
      for (const int32_t rows : {1, 5, 300}) {
        Start(2, slots, ExpertPolicyKind::kLfu);
        source_->Fail({1, 2}, from_stripe);
        Route(rows);
        RunBoth(0);
        EXPECT_TRUE(failures_.empty());
        EXPECT_TRUE(SameBits(output_, expected_));
        RunBoth(1);
        std::set<int32_t> failed;
        for (const RowFailure& failure : failures_) {
          EXPECT_TRUE(absl::IsUnavailable(failure.status)) << failure.status;
          failed.insert(failure.row);
        }
        for (int32_t row = 0; row < rows; ++row) {
          const auto first = chosen_.begin() + row * kTopK;
          const bool uses = std::find(first, first + kTopK, 2) != first + kTopK;
          EXPECT_EQ(failed.contains(row), uses) << row;
          if (uses) continue;
          const size_t at = static_cast<size_t>(row) * kHidden;
          EXPECT_TRUE(SameBits(std::span(output_).subspan(at, kHidden),
                               std::span(expected_).subspan(at, kHidden)))
              << slots << " slots, from " << from_stripe << ", row " << row << " of " << rows;
        }
        source_->Mend();
        RunBoth(1);
        EXPECT_TRUE(failures_.empty());
        EXPECT_TRUE(SameBits(output_, expected_));
      }
    }
  }
}

// Whole models of every family, each over one pack.
class TieredModelTest : public testing::TestWithParam<int> {
 protected:
  TieredModelTest() {
    folder_.Write("config.json", Networks()[GetParam()].config.dump());
    options_.model.path = folder_.path();
    options_.model.load_format = LoadFormat::kDummy;
    options_.model.max_batch_tokens = 320;
    options_.model.use_forecast = &forecast_;
    options_.kv_blocks = 64;
  }

  // Prompts of 1, 17, 100 and 300 rows, then steps of mixed requests; the logits of all.
  static absl::StatusOr<std::vector<float>> Play(ModelRunner& runner) {
    std::vector<ModelRunner::Sequence> sequences(5);
    std::vector<float> logits;
    std::mt19937 random(3);
    const auto step = [&](const std::vector<int32_t>& counts) -> absl::Status {
      std::vector<std::vector<int32_t>> tokens(counts.size());
      std::vector<ModelRunner::Rows> parts;
      for (size_t i = 0; i < counts.size(); ++i) {
        for (int32_t k = 0; k < counts[i]; ++k) {
          tokens[i].push_back(static_cast<int32_t>(random() % 130));
        }
        if (counts[i] > 0) parts.push_back({&sequences[i], tokens[i]});
      }
      ExpertMemory* memory = runner.model().expert_memory();
      std::mt19937 plan_random(static_cast<uint32_t>(logits.size()));
      if (memory != nullptr) memory->Prefetch(RandomPlan(plan_random, memory->keys(), 0));
      MOESAIC_ASSIGN_OR_RETURN(const std::span<const float> part, runner.Step(parts));
      EXPECT_TRUE(runner.model().failures().empty());
      logits.insert(logits.end(), part.begin(), part.end());
      return absl::OkStatus();
    };
    for (const std::vector<int32_t>& counts : {std::vector<int32_t>{1},
                                               {0, 17},
                                               {0, 0, 100},
                                               {0, 0, 0, 300},
                                               {1, 1, 1, 1},
                                               {1, 1, 1, 1},
                                               {1, 0, 40, 1, 33},
                                               {1, 1, 1, 1, 1},
                                               {0, 1}}) {
      MOESAIC_RETURN_IF_ERROR(step(counts));
    }
    return logits;
  }

  const TempFolder folder_;
  const TempFolder packs_;
  const WrongForecast forecast_;
  ModelRunner::Options options_;
};

TEST_P(TieredModelTest, EveryBudgetAndPolicyGivesTheBitsOfTheResidentModel) {
  for (const DTypeChoice dtype : {DTypeChoice::kFloat32, DTypeChoice::kBFloat16}) {
    options_.model.dtype = dtype;
    options_.model.pack_dir.clear();
    const auto resident = ModelRunner::Load(options_);
    ASSERT_TRUE(resident.ok()) << resident.status();
    ASSERT_EQ((*resident)->model().expert_memory(), nullptr);
    const auto expected = Play(**resident);
    ASSERT_TRUE(expected.ok()) << expected.status();

    options_.model.pack_dir = packs_.path();
    options_.model.host_memory = 0;
    options_.model.expert_memory = int64_t{1} << 30;
    const auto whole = ModelRunner::Load(options_);
    ASSERT_TRUE(whole.ok()) << whole.status();
    const ExpertMemoryMetrics all = (*whole)->model().expert_memory()->metrics();
    const int64_t total = all.budget_bytes;
    int combination = 0;
    for (const int64_t budget : {2 * all.slot_bytes, total / 4, total / 2, total}) {
      for (const ExpertPolicyKind policy : kPolicies) {
        ++combination;
        options_.num_threads = 1 + combination % 2;
        options_.model.host_memory = total / 2 * (combination % 3);
        options_.model.expert_memory = budget;
        options_.model.expert_policy = policy;
        const auto runner = ModelRunner::Load(options_);
        ASSERT_TRUE(runner.ok()) << runner.status();
        const auto logits = Play(**runner);
        ASSERT_TRUE(logits.ok()) << logits.status();
        EXPECT_TRUE(SameBits(*logits, *expected))
            << budget << " of " << total << " bytes, " << ExpertPolicyName(policy);
        const ExpertMemoryMetrics metrics = (*runner)->model().expert_memory()->metrics();
        EXPECT_LE(metrics.high_water_bytes, budget);
        EXPECT_LE(metrics.budget_bytes, budget);
      }
    }
  }
}

TEST_P(TieredModelTest, DamageUnderAServingModelFailsOnlyTheRowsItTouches) {
  options_.model.dtype = DTypeChoice::kFloat32;
  const auto resident = ModelRunner::Load(options_);
  options_.model.pack_dir = packs_.path();
  options_.model.expert_memory = int64_t{1} << 20;
  const auto probe = ModelRunner::Load(options_);
  ASSERT_TRUE(probe.ok()) << probe.status();
  options_.model.expert_memory = 2 * (*probe)->model().expert_memory()->metrics().slot_bytes;
  const auto tiered = ModelRunner::Load(options_);
  ASSERT_TRUE(resident.ok() && tiered.ok()) << tiered.status();

  std::filesystem::path pack;
  for (const auto& entry : std::filesystem::directory_iterator(packs_.path())) {
    if (entry.path().extension() == ".pack") pack = entry.path();
  }
  // In the last layer, so that most rows get past it.
  const auto offset =
      static_cast<int64_t>(std::filesystem::file_size(pack) - options_.model.expert_memory / 4);
  const auto flip = [&] {
    std::fstream file(pack, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const int byte = file.get();
    file.seekp(offset);
    file.put(static_cast<char>(byte ^ 1));
  };
  // Rows of their own sequences: none sees another's state.
  constexpr int32_t kRows = 12;
  const auto step = [&](ModelRunner& runner) {
    std::vector<ModelRunner::Sequence> sequences(kRows);
    std::vector<int32_t> tokens(kRows);
    std::iota(tokens.begin(), tokens.end(), 20);
    std::vector<ModelRunner::Rows> parts;
    for (int32_t i = 0; i < kRows; ++i) {
      parts.push_back({&sequences[i], std::span(tokens).subspan(i, 1)});
    }
    const auto logits = runner.Step(parts);
    EXPECT_TRUE(logits.ok()) << logits.status();
    for (ModelRunner::Sequence& sequence : sequences) runner.Free(sequence);
    return std::vector<float>(logits->begin(), logits->end());
  };
  const std::vector<float> expected = step(**resident);
  flip();
  const std::vector<float> damaged = step(**tiered);
  std::set<int32_t> failed;
  for (const RowFailure& failure : (*tiered)->model().failures()) {
    EXPECT_TRUE(absl::IsDataLoss(failure.status)) << failure.status;
    failed.insert(failure.row);
  }
  EXPECT_FALSE(failed.empty());
  EXPECT_LT(failed.size(), static_cast<size_t>(kRows));
  for (int32_t row = 0; row < kRows; ++row) {
    if (failed.contains(row)) continue;
    EXPECT_TRUE(SameBits(std::span(damaged).subspan(row * 130, 130),
                         std::span(expected).subspan(row * 130, 130)))
        << row;
  }
  flip();
  EXPECT_TRUE(SameBits(step(**tiered), expected));
  EXPECT_TRUE((*tiered)->model().failures().empty());
}

INSTANTIATE_TEST_SUITE_P(Families, TieredModelTest, testing::Range(0, 4), [](const auto& param) {
  return std::string(Networks()[param.param].name);
});

}  // namespace
}  // namespace moesaic
