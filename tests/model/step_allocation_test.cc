// No allocation on the request path: a step of a loaded model allocates nothing.

#include <atomic>
#include <cstdlib>
#include <new>
#include <numeric>
#include <tuple>

#include <gtest/gtest.h>

#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_runner.h"

namespace {

std::atomic<int64_t> allocations{0};

void* CountedAllocation(std::size_t bytes, std::size_t alignment) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void* operator new(std::size_t bytes) {
  return CountedAllocation(bytes, alignof(std::max_align_t));
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return CountedAllocation(bytes, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return CountedAllocation(bytes, alignof(std::max_align_t));
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

namespace moesaic {
namespace {

// Of how much of the experts is in memory, in percent; 0: without a tier.
class StepAllocationTest : public testing::TestWithParam<std::tuple<DTypeChoice, int64_t>> {};

TEST_P(StepAllocationTest, AStepAllocatesNothing) {
  const TempFolder folder;
  folder.Write("config.json", TinyQwen2Config().dump());
  ModelRunner::Options options;
  options.model.path = folder.path();
  options.model.load_format = LoadFormat::kDummy;
  options.model.dtype = std::get<0>(GetParam());
  options.model.max_batch_tokens = 320;
  const TempFolder packs;
  if (const int64_t percent = std::get<1>(GetParam()); percent > 0) {
    options.model.pack_dir = packs.path();
    options.model.expert_memory = int64_t{1} << 30;
    const auto whole = ModelRunner::Load(options);
    ASSERT_TRUE(whole.ok()) << whole.status();
    options.model.expert_memory =
        (*whole)->model().expert_memory()->metrics().budget_bytes * percent / 100;
  }
  const auto runner = ModelRunner::Load(options);
  ASSERT_TRUE(runner.ok()) << runner.status();
  Model& model = (*runner)->model();

  std::vector<int32_t> blocks(20);
  std::iota(blocks.rbegin(), blocks.rend(), 3);
  // Decode, both sides of 64 rows, and more than attention takes at a time; each again, as buffers
  // are shared by what ran before. The first warms the tier up.
  bool warm = std::get<1>(GetParam()) == 0;
  for (const int32_t rows : {1, 17, 90, 300, 1, 300, 17}) {
    Batch batch;
    for (int32_t i = 0; i < rows; ++i) {
      batch.tokens.push_back(i % 70);
      batch.positions.push_back(i);
    }
    batch.logits_rows = {rows - 1};
    batch.sequences = {{.num_rows = rows, .block_table = blocks}};
    const int64_t before = allocations.load();
    model.BeginStep(batch, (*runner)->kv());
    for (int32_t block = 0; block < 6; ++block) ASSERT_TRUE(model.RunBlock(block).ok());
    if (warm) {
      EXPECT_EQ(allocations.load(), before) << rows << " rows";
    }
    warm = true;
    EXPECT_EQ(model.logits().size(), 70u);
  }
  const int64_t before = allocations.load();
  const std::vector<int> counted(100);
  EXPECT_EQ(allocations.load(), before + 1) << "the counter counts";
}

INSTANTIATE_TEST_SUITE_P(DTypes,
                         StepAllocationTest,
                         testing::Combine(testing::Values(DTypeChoice::kFloat32,
                                                          DTypeChoice::kBFloat16),
                                          testing::Values(0, 40, 100)));

}  // namespace
}  // namespace moesaic
