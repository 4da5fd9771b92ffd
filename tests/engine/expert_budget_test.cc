#include "engine/expert_budget.h"

#include <cstdlib>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/str_cat.h"
#include "kernels/kernel_table.h"
#include "memory/expert_memory.h"
#include "memory/expert_store.h"
#include "model/weight_loader.h"
#include "model/weight_plan.h"
#include "tests/checkpoint/test_files.h"
#include "tests/model/dummy_networks.h"

namespace moesaic {
namespace {

using testing::HasSubstr;
using Kind = ExpertBudget::Kind;

constexpr int64_t kPlenty = int64_t{64} << 30;

class ExpertBudgetTest : public testing::Test {
 protected:
  ExpertBudgetTest() {
    folder_.Write("config.json", Networks()[0].config.dump());
    config_ = *LoadModelConfig(folder_.path());
    const ModelWeights plan = PlanWeights(config_, DType::kFloat32, kernels_);
    shape_ = plan.experts.store_shape;
    total_ = *ExpertStore::TotalBytes(shape_);
    options_.pack_dir = folder_.path() / "packs";
  }

  absl::Status Resolve(int64_t machine_bytes = kPlenty, int64_t kv_bytes = 0) {
    model_ = {};
    return ResolveExpertTier(options_, config_, kernels_, kv_bytes, machine_bytes, model_);
  }

  const kernels::KernelTable& kernels_ = kernels::CpuKernels(DetectIsa());
  const TempFolder folder_;
  ModelConfig config_;
  ExpertStore::Shape shape_;
  int64_t total_ = 0;
  ExpertTierOptions options_;
  ModelOptions model_;
};

TEST_F(ExpertBudgetTest, AutoKeepsAllExpertsInMemoryWhereTheyFit) {
  ASSERT_TRUE(Resolve().ok());
  EXPECT_TRUE(model_.pack_dir.empty());
  EXPECT_EQ(model_.expert_memory, 0);
  EXPECT_EQ(model_.host_memory, 0);
}

TEST_F(ExpertBudgetTest, AutoTakesWhatTheMachineLeaves) {
  // What the machine must have for auto to keep everything: less by half the experts is too little.
  int64_t low = 0;
  int64_t high = kPlenty;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (Resolve(middle).ok() && model_.pack_dir.empty() ? high : low) = middle;
  }
  ASSERT_TRUE(Resolve(high - total_ / 2).ok());
  EXPECT_EQ(model_.pack_dir, options_.pack_dir);
  EXPECT_GT(model_.expert_memory, total_ / 4);
  EXPECT_LT(model_.expert_memory, total_);
  const int64_t before = model_.expert_memory;
  // What the KV cache takes is not there for experts.
  ASSERT_TRUE(Resolve(high - total_ / 2, total_ / 8).ok());
  EXPECT_EQ(model_.expert_memory, before - total_ / 8);
  const absl::Status status = Resolve(1 << 20);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("this machine leaves"));
}

TEST_F(ExpertBudgetTest, APercentageIsOfAllExperts) {
  options_.expert_memory = {.kind = Kind::kPercent, .percent = 25.0};
  options_.policy = ExpertPolicyKind::kLru;
  ASSERT_TRUE(Resolve().ok());
  EXPECT_EQ(model_.expert_memory, total_ / 4);
  EXPECT_EQ(model_.expert_policy, ExpertPolicyKind::kLru);
  EXPECT_EQ(model_.pack_dir, options_.pack_dir);
  options_.expert_memory.percent = 100.0;
  ASSERT_TRUE(Resolve().ok());
  EXPECT_TRUE(model_.pack_dir.empty());
}

TEST_F(ExpertBudgetTest, BytesAreTakenAsTheyAre) {
  options_.expert_memory = {.kind = Kind::kBytes, .bytes = total_ / 2 + 5};
  ASSERT_TRUE(Resolve().ok());
  EXPECT_EQ(model_.expert_memory, total_ / 2 + 5);
  options_.expert_memory.bytes = kPlenty;
  ASSERT_TRUE(Resolve().ok());
  EXPECT_TRUE(model_.pack_dir.empty());
  // A host tier that was asked for is used, and neither is larger than the experts.
  options_.host_memory = kPlenty;
  ASSERT_TRUE(Resolve().ok());
  EXPECT_EQ(model_.expert_memory, total_);
  EXPECT_EQ(model_.host_memory, total_);
}

TEST_F(ExpertBudgetTest, TooLittleIsRefusedNamingTheSmallestThatWorks) {
  const int64_t minimum = ExpertMemory::MinimumBudgetBytes(shape_.slot_bytes);
  options_.expert_memory = {.kind = Kind::kBytes, .bytes = minimum - 1};
  const absl::Status status = Resolve();
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("expert-memory"));
  EXPECT_THAT(std::string(status.message()), HasSubstr(StrCat(minimum)));
  options_.expert_memory.bytes = minimum;
  EXPECT_TRUE(Resolve().ok());
  options_.expert_memory = {.kind = Kind::kPercent, .percent = 0.001};
  EXPECT_TRUE(absl::IsInvalidArgument(Resolve()));
}

TEST_F(ExpertBudgetTest, ThePackFolderIsTheUsersCacheUnlessSaid) {
  const auto set = [](const char* name, const char* value) {
    if (value == nullptr) {
      unsetenv(name);
    } else {
      setenv(name, value, 1);
    }
  };
  set("XDG_CACHE_HOME", "/cache");
  set("HOME", "/home/me");
  EXPECT_EQ(DefaultPackDir(), "/cache/moesaic/packs");
  options_.pack_dir.clear();
  options_.expert_memory = {.kind = Kind::kPercent, .percent = 50.0};
  ASSERT_TRUE(Resolve().ok());
  EXPECT_EQ(model_.pack_dir, "/cache/moesaic/packs");
  set("XDG_CACHE_HOME", "relative");
  EXPECT_EQ(DefaultPackDir(), "/home/me/.cache/moesaic/packs");
  set("XDG_CACHE_HOME", nullptr);
  EXPECT_EQ(DefaultPackDir(), "/home/me/.cache/moesaic/packs");
  set("HOME", nullptr);
  EXPECT_EQ(DefaultPackDir(), "/var/tmp/moesaic/packs");
}

}  // namespace
}  // namespace moesaic
