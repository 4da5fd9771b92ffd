// Loading with the experts in a pack on the disk: the same model, and nothing packed twice.

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/expert_pack.h"
#include "model/weight_loader.h"
#include "tests/model/checkpoint_writer.h"
#include "tests/model/model_runner.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

const std::vector<int32_t> kPrompt = {1, 5, 69, 0, 33, 12, 12, 7, 40, 3};
constexpr int64_t kPlenty = int64_t{1} << 30;

class PackedExpertsTest : public testing::Test {
 protected:
  PackedExpertsTest() {
    folder_.Write("config.json", TinyQwen2Config().dump());
    WriteSafetensors(folder_, TinyQwen2Tensors(DType::kFloat32, /*fused=*/false));
    options_.model.path = folder_.path();
    options_.model.max_batch_tokens = 64;
    options_.kv_blocks = 8;
    expected_ = *Logits();
    options_.model.pack_dir = packs_.path();
    options_.model.host_memory = kPlenty;
  }

  absl::StatusOr<std::vector<float>> Logits() {
    MOESAIC_ASSIGN_OR_RETURN(const auto runner, ModelRunner::Load(options_));
    return runner->Logits(kPrompt);
  }
  fs::path Pack() const {
    for (const auto& entry : fs::directory_iterator(packs_.path())) {
      if (entry.path().extension() == ".pack") return entry.path();
    }
    return {};
  }
  // Overwrites a tensor's data and keeps the file's time, so that only a reader of the data
  // notices.
  void Scribble(const std::string& tensor) {
    TestTensors tensors = TinyQwen2Tensors(DType::kFloat32, false);
    for (auto& [name, value] : tensors) {
      if (name.find(tensor) != std::string::npos) {
        std::fill(value.bytes.begin(), value.bytes.end(), '\x7f');
      }
    }
    const fs::path file = folder_.path() / "model.safetensors";
    const auto time = fs::last_write_time(file);
    WriteSafetensors(folder_, tensors);
    fs::last_write_time(file, time);
  }

  const TempFolder folder_;
  const TempFolder packs_;
  ModelRunner::Options options_;
  std::vector<float> expected_;
};

TEST_F(PackedExpertsTest, ThePackGivesTheSameBitsAndIsUsedAgain) {
  const auto first = Logits();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(*first, expected_);
  const fs::path pack = Pack();
  ASSERT_FALSE(pack.empty());
  const auto time = fs::last_write_time(pack);
  // The checkpoint's experts are not read again, its dense tensors are.
  Scribble(".experts.");
  const auto second = Logits();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(*second, expected_);
  EXPECT_EQ(fs::last_write_time(pack), time);
  Scribble("lm_head");
  EXPECT_NE(*Logits(), expected_);
}

TEST_F(PackedExpertsTest, EveryInstructionSetReadsTheSamePack) {
  for (const Isa isa : {Isa::kPortable, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (isa > DetectIsa()) continue;
    options_.isa = isa;
    ASSERT_TRUE(Logits().ok());
    const auto packed = Logits();
    options_.model.pack_dir.clear();
    EXPECT_EQ(*packed, *Logits());
    options_.model.pack_dir = packs_.path();
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(packs_.path()), {}), 2);  // the pack, its lock
}

TEST_F(PackedExpertsTest, AnotherTypeOrModelGetsAnotherPack) {
  ASSERT_TRUE(Logits().ok());
  options_.model.dtype = DTypeChoice::kBFloat16;
  const auto rounded = Logits();
  ASSERT_TRUE(rounded.ok()) << rounded.status();
  EXPECT_NE(*rounded, expected_);
  options_.model.dtype = DTypeChoice::kAuto;
  options_.model.load_format = LoadFormat::kDummy;
  const auto first = Logits();
  options_.model.dummy_seed = 1;
  const auto second = Logits();
  EXPECT_NE(*first, *second);
  options_.model.pack_dir.clear();
  EXPECT_EQ(*second, *Logits());
}

TEST_F(PackedExpertsTest, ADamagedPackIsPackedAnewAtTheStart) {
  ASSERT_TRUE(Logits().ok());
  const fs::path pack = Pack();
  const int64_t size = static_cast<int64_t>(fs::file_size(pack));
  const auto flip = [&](int64_t offset) {
    std::fstream file(pack, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const int byte = file.get();
    file.seekp(offset);
    file.put(static_cast<char>(byte ^ 1));
  };
  for (const int64_t offset : {int64_t{9}, int64_t{4096}, size / 2, size - 1}) {
    flip(offset);
    const auto logits = Logits();
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(*logits, expected_) << offset;
  }
  fs::resize_file(pack, size / 2);
  EXPECT_EQ(*Logits(), expected_);
}

TEST_F(PackedExpertsTest, OnlyTheHostTierIsInMemory) {
  const auto config = LoadModelConfig(folder_.path());
  const kernels::KernelTable& kernels = kernels::CpuKernels(DetectIsa());
  ThreadPool pool(2);
  ModelOptions options = options_.model;
  const auto whole = LoadWeights(options, *config, kernels, {.pool = &pool});
  ASSERT_TRUE(whole.ok()) << whole.status();
  options.host_memory = whole->experts.store_shape.slot_bytes;
  const auto one = LoadWeights(options, *config, kernels, {.pool = &pool});
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->experts.store.bytes(), 0);
  EXPECT_EQ(one->experts.bytes(), options.host_memory);
  EXPECT_EQ(whole->bytes() - one->bytes(), whole->experts.bytes() - options.host_memory);
  EXPECT_NE(one->experts.LayerStripes(0)[0], nullptr);
  EXPECT_EQ(one->experts.LayerStripes(0).back(), nullptr);
  // A model cannot run over experts that are not there.
  options_.model.host_memory = options.host_memory;
  EXPECT_TRUE(absl::IsResourceExhausted(Logits().status()));
}

TEST_F(PackedExpertsTest, ALoadKilledAtAnyPointIsFinishedByTheNext) {
  for (int round = 0; round < 12; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      static_cast<void>(Logits());
      _exit(0);
    }
    usleep(round * 2500);
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    const auto logits = Logits();
    ASSERT_TRUE(logits.ok()) << logits.status();
    EXPECT_EQ(*logits, expected_);
    fs::remove(Pack());
  }
}

TEST_F(PackedExpertsTest, AFolderThatCannotBeMadeIsNamed) {
  folder_.Write("file", "");
  options_.model.pack_dir = folder_.path() / "file" / "packs";
  const absl::Status status = Logits().status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("file/packs"));
}

}  // namespace
}  // namespace moesaic
