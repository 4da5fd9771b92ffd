#include "engine/step_builder.h"

#include <memory>
#include <numeric>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace moesaic {
namespace {

using testing::ElementsAre;

class StepBuilderTest : public testing::Test {
 protected:
  StepBuilderTest() : cache_(*KvCache::Create(kShape, 16 * kShape.BlockBytes())) {}

  // A request whose first sequence has `computed` of its `prompt_tokens` tokens in the cache.
  std::unique_ptr<ActiveRequest> MakeRequest(int32_t prompt_tokens, int32_t computed) {
    auto request = std::make_unique<ActiveRequest>();
    request->request.prompt.resize(prompt_tokens);
    std::iota(request->request.prompt.begin(), request->request.prompt.end(), 100);
    auto sequence = std::make_unique<Sequence>();
    sequence->request = request.get();
    sequence->tokens = request->request.prompt;
    sequence->computed_tokens = computed;
    blocks_.Reserve(sequence->kv, 0, computed, copies_);
    request->sequences.push_back(std::move(sequence));
    return request;
  }

  static constexpr KvShape kShape{.num_layers = 1, .num_kv_heads = 1, .head_dim = 1};
  KvCache cache_;
  KvBlockManager blocks_{16, true, 0};
  StepBuilder builder_{blocks_, cache_};
  std::vector<KvBlockCopy> copies_;
};

TEST_F(StepBuilderTest, PacksRowsWithoutPadding) {
  const auto decoding = MakeRequest(21, 20);
  const auto prefill = MakeRequest(40, 2);
  const auto last_chunk = MakeRequest(3, 0);
  builder_.Add(*decoding->sequences[0], 1);
  builder_.Add(*prefill->sequences[0], 3);
  builder_.Add(*last_chunk->sequences[0], 3);

  const Batch& batch = builder_.batch();
  EXPECT_THAT(batch.tokens, ElementsAre(120, 102, 103, 104, 100, 101, 102));
  EXPECT_THAT(batch.positions, ElementsAre(20, 2, 3, 4, 0, 1, 2));
  // A row is wanted where a sequence's known tokens end.
  EXPECT_THAT(batch.logits_rows, ElementsAre(0, 6));
  ASSERT_EQ(batch.sequences.size(), 3u);
  EXPECT_EQ(batch.sequences[1].first_row, 1);
  EXPECT_EQ(batch.sequences[1].num_rows, 3);
  EXPECT_EQ(batch.sequences[1].context_tokens, 2);
  EXPECT_EQ(batch.sequences[0].block_table.size(), 2u);
  ASSERT_EQ(builder_.scheduled().size(), 3u);
  EXPECT_EQ(builder_.scheduled()[1].num_logits, 0);
  EXPECT_EQ(builder_.scheduled()[2].first_logits, 1);
  EXPECT_EQ(builder_.scheduled()[2].num_logits, 1);

  builder_.Clear();
  EXPECT_EQ(builder_.batch().num_rows(), 0);
  EXPECT_TRUE(builder_.scheduled().empty());
}

TEST_F(StepBuilderTest, PromptLogprobsWantTheRowsNotYetCollected) {
  const auto request = MakeRequest(30, 8);
  request->request.params.prompt_logprobs = 0;
  request->prompt_logprobs.resize(10);
  Sequence& sequence = *request->sequences[0];
  EXPECT_EQ(LogitsFrom(sequence), 10);
  builder_.Add(sequence, 5);
  EXPECT_THAT(builder_.batch().logits_rows, ElementsAre(2, 3, 4));
  request->prompt_logprobs.resize(29);
  EXPECT_EQ(LogitsFrom(sequence), 29);
}

TEST_F(StepBuilderTest, CopiesASharedBlockBeforeItIsWritten) {
  const auto request = MakeRequest(21, 20);
  request->request.params.n = 2;
  request->sequences.resize(2);
  Sequence& first = *request->sequences[0];
  EXPECT_EQ(ViewOf(first, blocks_).slots, 1 + 1);
  EXPECT_EQ(ViewOf(first, blocks_).extra_blocks, 0);
  request->sequences[1] = std::make_unique<Sequence>();
  Sequence& second = *request->sequences[1];
  second.request = request.get();
  second.tokens = first.tokens;
  second.computed_tokens = 20;
  blocks_.Fork(first.kv, second.kv);
  EXPECT_EQ(ViewOf(first, blocks_).slots, 1);
  EXPECT_EQ(ViewOf(first, blocks_).extra_blocks, 1);
  EXPECT_EQ(ViewOf(first, blocks_).blocks_held, 2);

  const int32_t shared = first.kv.blocks[1];
  static_cast<float*>(cache_.k(0))[shared * kKvBlockTokens + 3] = 7.0f;
  builder_.Add(first, 1);
  builder_.Add(second, 1);
  builder_.CopySharedBlocks();
  EXPECT_NE(first.kv.blocks[1], shared);
  EXPECT_EQ(second.kv.blocks[1], shared);
  EXPECT_EQ(static_cast<float*>(cache_.k(0))[first.kv.blocks[1] * kKvBlockTokens + 3], 7.0f);
  EXPECT_THAT(builder_.batch().logits_rows, ElementsAre(0, 1));
}

}  // namespace
}  // namespace moesaic
