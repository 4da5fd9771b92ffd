#include "memory/packed_expert_store.h"

#include <cerrno>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "memory/file_io.h"
#include "tests/memory/pack_fixture.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

// A real reader some of whose reads end as on a failing disk.
class FaultyReader : public DiskReader {
 public:
  // `faults` reads that start at `offset` fail.
  FaultyReader(std::unique_ptr<DiskReader> reader, int64_t offset, int faults)
      : reader_(std::move(reader)), offset_(offset), faults_(faults) {}

  void Start(int64_t offset, std::byte* data, int64_t bytes, uint64_t token) override {
    if (offset == offset_ && faults_ > 0) {
      --faults_;
      failed_.push_back({.token = token, .status = SystemError(EIO, "disk")});
    } else {
      reader_->Start(offset, data, bytes, token);
    }
  }
  void Wait(absl::Time deadline, std::vector<Completion>& out) override {
    out.insert(out.end(), failed_.begin(), failed_.end());
    reader_->Wait(failed_.empty() ? deadline : absl::InfinitePast(), out);
    failed_.clear();
  }
  void Wake() override { reader_->Wake(); }
  int max_reads() const override { return reader_->max_reads(); }
  std::string description() const override { return reader_->description(); }

 private:
  const std::unique_ptr<DiskReader> reader_;
  const int64_t offset_;
  int faults_;
  std::vector<Completion> failed_;
};

class PackedExpertStoreTest : public testing::Test {
 protected:
  PackedExpertStoreTest() : pack_(*MakePack(folder_.path(), identity_)) {}

  std::unique_ptr<PackedExpertStore> Store(PackedExpertStore::Options options = {}) {
    auto store = PackedExpertStore::Create(pack_, options);
    EXPECT_TRUE(store.ok()) << store.status();
    return *std::move(store);
  }
  std::unique_ptr<PackedExpertStore> FaultyStore(int64_t index, int faults) {
    const PackGeometry& geometry = pack_->geometry();
    auto reader = std::make_unique<FaultyReader>(
        *DiskReader::Create(pack_->descriptor(), pack_->path().string(), {}),
        geometry.StripeOffset(index), faults);
    return *PackedExpertStore::Create(pack_, std::move(reader), {});
  }
  StripeId Id(int64_t index) const { return pack_->geometry().Id(index); }
  std::vector<std::byte> Bytes(const std::byte* slot) const {
    return {slot, slot + identity_.shape.slot_bytes};
  }
  // Reads stripes at once, each into its own slot; statuses by stripe index.
  std::vector<absl::Status> ReadAll(PackedExpertStore& store) {
    const int64_t count = pack_->geometry().num_stripes();
    const int64_t slot_bytes = identity_.shape.slot_bytes;
    const AlignedBuffer slots = *AlignedBuffer::Allocate(count * slot_bytes, "test");
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_TRUE(store.StartRead(Id(i), slots.data() + i * slot_bytes, i).ok());
    }
    std::vector<StripeSource::Completion> done;
    while (static_cast<int64_t>(done.size()) < count) {
      store.WaitCompletions(absl::InfiniteFuture(), done);
    }
    std::vector<absl::Status> statuses(count, absl::UnknownError("not finished"));
    for (StripeSource::Completion& completion : done) {
      const int64_t index = static_cast<int64_t>(completion.token);
      if (completion.status.ok()) {
        EXPECT_EQ(Bytes(slots.data() + index * slot_bytes), ExpectedSlot(identity_, index));
      }
      statuses[index] = completion.status;
    }
    return statuses;
  }

  const TempFolder folder_;
  const PackIdentity identity_ = TestIdentity();
  const std::shared_ptr<const ExpertPack> pack_;
};

TEST_F(PackedExpertStoreTest, EveryStripeIsReadFromTheDiskOrLiesInTheHostTier) {
  const int64_t slot_bytes = identity_.shape.slot_bytes;
  for (const int64_t host_stripes : {0, 1, 7, 23, 24, 1000}) {
    const auto store = Store({.host_bytes = host_stripes * slot_bytes + slot_bytes - 1});
    const int64_t expected = std::min<int64_t>(host_stripes, 24);
    EXPECT_EQ(store->host_stripes(), expected);
    EXPECT_EQ(store->host_bytes(), expected * slot_bytes);
    EXPECT_EQ(store->all_in_host(), expected == 24);
    int64_t held = 0;
    for (int64_t i = 0; i < 24; ++i) {
      const std::byte* host = store->HostStripe(Id(i));
      const void* listed = store->LayerStripes(Id(i).expert.layer)[i % 8];
      EXPECT_EQ(listed, host);
      if (host == nullptr) continue;
      ++held;
      EXPECT_EQ(Bytes(host), ExpectedSlot(identity_, i));
      EXPECT_EQ(reinterpret_cast<uintptr_t>(host) % 4096, 0u);
    }
    EXPECT_EQ(held, expected);
    for (const absl::Status& status : ReadAll(*store)) EXPECT_TRUE(status.ok()) << status;
  }
}

TEST_F(PackedExpertStoreTest, EveryLayerGetsItsShareOfTheHostTierAndTheGivenStripesComeFirst) {
  const int64_t slot_bytes = identity_.shape.slot_bytes;
  auto store = Store({.host_bytes = 6 * slot_bytes});
  for (int32_t layer = 0; layer < 3; ++layer) {
    for (int32_t expert = 0; expert < 4; ++expert) {
      EXPECT_EQ(store->HostStripe({{layer, expert}, 1}) != nullptr, expert == 0);
    }
  }
  const std::vector<StripeId> first = {{{2, 3}, 1}, {{1, 1}, 0}, {{2, 3}, 1}};
  store = Store({.host_bytes = 3 * slot_bytes, .host_order = first});
  EXPECT_NE(store->HostStripe(first[0]), nullptr);
  EXPECT_NE(store->HostStripe(first[1]), nullptr);
  EXPECT_NE(store->HostStripe({{0, 0}, 0}), nullptr);
  const std::vector<StripeId> none = {{{3, 0}, 0}};
  EXPECT_FALSE(
      PackedExpertStore::Create(pack_, {.host_bytes = slot_bytes, .host_order = none}).ok());
}

TEST_F(PackedExpertStoreTest, ReadsByThreadsAreTheSame) {
  const auto store = Store({.reader = {.method = DiskReader::Method::kThreads}});
  EXPECT_THAT(store->reader().description(), HasSubstr("threads"));
  for (const absl::Status& status : ReadAll(*store)) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(PackedExpertStoreTest, ADamagedStripeIsNeverServedAndTheOthersAre) {
  for (const int64_t damaged : {0, 13, 23}) {
    FlipBit(pack_->path(), pack_->geometry().StripeOffset(damaged) + 8191, 7);
    const auto store = Store();
    const std::vector<absl::Status> statuses = ReadAll(*store);
    for (int64_t i = 0; i < 24; ++i) {
      if (i != damaged) {
        EXPECT_TRUE(statuses[i].ok()) << statuses[i];
        continue;
      }
      EXPECT_TRUE(absl::IsDataLoss(statuses[i])) << statuses[i];
      EXPECT_THAT(std::string(statuses[i].message()), HasSubstr(pack_->Describe(i)));
    }
    EXPECT_TRUE(std::filesystem::remove(DamageMarkPath(pack_->path())));
    // In the host tier's way it ends the start.
    EXPECT_TRUE(
        absl::IsDataLoss(PackedExpertStore::Create(pack_, {.host_bytes = 1 << 20}).status()));
    EXPECT_TRUE(std::filesystem::exists(DamageMarkPath(pack_->path())));
    std::filesystem::remove(DamageMarkPath(pack_->path()));
    FlipBit(pack_->path(), pack_->geometry().StripeOffset(damaged) + 8191, 7);
  }
}

TEST_F(PackedExpertStoreTest, StripesInEachOthersPlacesAreDamaged) {
  std::fstream file(pack_->path(), std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(pack_->geometry().StripeOffset(3));
  const std::vector<std::byte> other = ExpectedSlot(identity_, 4);
  file.write(reinterpret_cast<const char*>(other.data()), static_cast<int64_t>(other.size()));
  file.close();
  EXPECT_TRUE(absl::IsDataLoss(ReadAll(*Store())[3]));
}

TEST_F(PackedExpertStoreTest, AFileCutShortWhileItIsServedFailsItsLastStripesAlone) {
  const auto store = Store();
  std::filesystem::resize_file(pack_->path(), pack_->geometry().StripeOffset(20) + 4096);
  const std::vector<absl::Status> statuses = ReadAll(*store);
  for (int64_t i = 0; i < 24; ++i) {
    EXPECT_EQ(statuses[i].ok(), i < 20) << statuses[i];
    EXPECT_EQ(absl::IsDataLoss(statuses[i]), i >= 20) << statuses[i];
  }
}

TEST_F(PackedExpertStoreTest, OneReadErrorIsRetriedAndTwoFailTheReadAlone) {
  for (const absl::Status& status : ReadAll(*FaultyStore(5, 1))) EXPECT_TRUE(status.ok()) << status;
  const auto store = FaultyStore(5, 2);
  const std::vector<absl::Status> statuses = ReadAll(*store);
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(statuses[i].ok(), i != 5) << statuses[i];
  EXPECT_TRUE(absl::IsUnavailable(statuses[5])) << statuses[5];
  EXPECT_THAT(std::string(statuses[5].message()), HasSubstr(pack_->Describe(5)));
  // The disk may have answered wrongly about a file that is whole.
  EXPECT_FALSE(std::filesystem::exists(DamageMarkPath(pack_->path())));
  // The disk has recovered.
  for (const absl::Status& status : ReadAll(*store)) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(PackedExpertStoreTest, ReadsGoOnAfterTheFileWasDeletedOrReplaced) {
  const auto store = Store();
  std::filesystem::remove(pack_->path());
  folder_.Write(pack_->path().filename(), "something else");
  for (const absl::Status& status : ReadAll(*store)) EXPECT_TRUE(status.ok()) << status;
}

TEST_F(PackedExpertStoreTest, TooManyReadsAtATimeAreRefused) {
  const auto store = Store({.reader = {.max_reads = 2}});
  EXPECT_EQ(store->max_reads_in_flight(), 2);
  const AlignedBuffer slots = *AlignedBuffer::Allocate(3 * 8192, "test");
  EXPECT_TRUE(store->StartRead(Id(0), slots.data(), 0).ok());
  EXPECT_TRUE(store->StartRead(Id(1), slots.data() + 8192, 1).ok());
  EXPECT_FALSE(store->StartRead(Id(2), slots.data() + 16384, 2).ok());
}

TEST_F(PackedExpertStoreTest, WakeEndsAWait) {
  const auto store = Store();
  std::vector<StripeSource::Completion> done;
  std::thread waker([&] { store->Wake(); });
  store->WaitCompletions(absl::InfiniteFuture(), done);
  waker.join();
  EXPECT_TRUE(done.empty());
}

}  // namespace
}  // namespace moesaic
