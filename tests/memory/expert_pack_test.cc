#include "memory/expert_pack.h"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/memory/pack_fixture.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(ExpertPackTest, HoldsEveryStripeAsItWasPacked) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto pack = MakePack(folder.path(), identity);
  ASSERT_TRUE(pack.ok()) << pack.status();
  std::ifstream file((*pack)->path(), std::ios::binary);
  const PackGeometry& geometry = (*pack)->geometry();
  std::vector<std::byte> slot(identity.shape.slot_bytes);
  for (int64_t index = 0; index < geometry.num_stripes(); ++index) {
    EXPECT_EQ(geometry.StripeOffset(index) % 4096, 0);
    file.seekg(geometry.StripeOffset(index));
    file.read(reinterpret_cast<char*>(slot.data()), static_cast<std::streamsize>(slot.size()));
    EXPECT_EQ(slot, ExpectedSlot(identity, index)) << index;
    EXPECT_TRUE((*pack)->Verify(index, slot).ok());
    const absl::Status other = (*pack)->Verify((index + 1) % geometry.num_stripes(), slot);
    EXPECT_TRUE(absl::IsDataLoss(other)) << other;
    slot[8191] ^= std::byte{1};  // also of the padding
    EXPECT_FALSE((*pack)->Verify(index, slot).ok());
  }
  EXPECT_EQ(file.get(), EOF);
  EXPECT_EQ((*pack)->Describe(13), (*pack)->path().string() + ": layer 1, expert 2, stripe 1");
}

TEST(ExpertPackTest, AnyOtherIdentityIsStale) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto path = (*MakePack(folder.path(), identity))->path();
  const auto open = [&](auto change) {
    PackIdentity other = identity;
    change(other);
    return ExpertPack::Open(path, other).status();
  };
  EXPECT_TRUE(open([](PackIdentity&) {}).ok());
  for (const absl::Status& status :
       {open([](PackIdentity& other) { other.model.low ^= 1; }),
        open([](PackIdentity& other) { other.dtype = DType::kFloat32; }),
        open([](PackIdentity& other) { other.inner_order = "panel64"; }),
        open([](PackIdentity& other) { other.units_per_stripe = 128; }),
        open([](PackIdentity& other) { other.scale_block = 32; }),
        open([](PackIdentity& other) { other.shape.slot_bytes = 12288; })}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path.string()));
  }
}

TEST(ExpertPackTest, EveryDamageOutsideTheStripesIsFoundWhenItIsOpened) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto pack = *MakePack(folder.path(), identity);
  const PackGeometry& geometry = pack->geometry();
  // The table ends in padding, which nothing reads.
  const int64_t table_end = geometry.RowOffset(identity.shape.num_layers);
  for (int64_t offset = 0; offset < table_end; offset += offset < 256 ? 1 : 37) {
    FlipBit(pack->path(), offset, static_cast<int>(offset % 8));
    const absl::Status status = ExpertPack::Open(pack->path(), identity).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << offset << ": " << status;
    FlipBit(pack->path(), offset, static_cast<int>(offset % 8));
  }
  EXPECT_TRUE(ExpertPack::Open(pack->path(), identity).ok());
}

TEST(ExpertPackTest, EveryOtherLengthIsFoundWhenItIsOpened) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto pack = *MakePack(folder.path(), identity);
  const int64_t whole = pack->geometry().file_bytes;
  std::filesystem::resize_file(pack->path(), whole + 1);
  EXPECT_TRUE(absl::IsDataLoss(ExpertPack::Open(pack->path(), identity).status()));
  for (int64_t length = whole - 1; length > 0; length -= 1009) {
    std::filesystem::resize_file(pack->path(), length);
    const absl::Status status = ExpertPack::Open(pack->path(), identity).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << length << ": " << status;
  }
  std::filesystem::resize_file(pack->path(), 0);
  EXPECT_TRUE(absl::IsDataLoss(ExpertPack::Open(pack->path(), identity).status()));
}

TEST(ExpertPackTest, WhatIsNotAFileIsRefused) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto path = folder.path() / PackFileName(identity);
  EXPECT_TRUE(absl::IsNotFound(ExpertPack::Open(path, identity).status()));
  std::filesystem::create_directory(path);
  EXPECT_FALSE(ExpertPack::Open(path, identity).ok());
}

}  // namespace
}  // namespace moesaic
