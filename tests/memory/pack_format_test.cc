#include "memory/pack_format.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/memory/pack_fixture.h"

namespace moesaic {
namespace {

using testing::HasSubstr;

TEST(PackFormatTest, HeadersComeBackAsTheyWent) {
  for (const DType dtype : {DType::kFloat32, DType::kBFloat16, DType::kFloat16}) {
    for (const bool complete : {false, true}) {
      PackIdentity identity = TestIdentity();
      identity.dtype = dtype;
      identity.gated = complete;
      const std::vector<std::byte> bytes =
          SerializePackHeader({.identity = identity, .complete = complete});
      EXPECT_EQ(bytes.size(), static_cast<size_t>(kPackHeaderBytes));
      const absl::StatusOr<PackHeader> header = ParsePackHeader(bytes, "pack");
      ASSERT_TRUE(header.ok()) << header.status();
      EXPECT_TRUE(header->identity == identity);
      EXPECT_EQ(header->complete, complete);
    }
  }
}

TEST(PackFormatTest, EveryFlippedBitAndEveryCutIsNoticed) {
  const std::vector<std::byte> bytes =
      SerializePackHeader({.identity = TestIdentity(), .complete = true});
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::vector<std::byte> damaged = bytes;
    damaged[i / 8] ^= static_cast<std::byte>(1 << (i % 8));
    EXPECT_TRUE(absl::IsDataLoss(ParsePackHeader(damaged, "pack").status())) << i;
  }
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_TRUE(absl::IsDataLoss(ParsePackHeader(std::span(bytes).first(size), "pack").status()));
  }
}

TEST(PackFormatTest, ValuesThatNoPackHasAreRefusedDespiteARightChecksum) {
  const auto parse = [](auto change) {
    PackIdentity identity = TestIdentity();
    change(identity);
    return ParsePackHeader(SerializePackHeader({.identity = identity}), "pack").status();
  };
  EXPECT_TRUE(parse([](PackIdentity&) {}).ok());
  constexpr int32_t kMax = std::numeric_limits<int32_t>::max();
  for (const absl::Status& status :
       {parse([](PackIdentity& identity) { identity.hidden = 0; }),
        parse([](PackIdentity& identity) { identity.units = -1; }),
        parse([](PackIdentity& identity) { identity.scale_block = -1; }),
        parse([](PackIdentity& identity) { identity.stripe_bytes = 8193; }),
        parse([](PackIdentity& identity) { identity.shape.slot_bytes = 8200; }),
        parse([](PackIdentity& identity) { identity.shape.num_layers = 0; }),
        parse([](PackIdentity& identity) { identity.inner_order = ""; }),
        parse([](PackIdentity& identity) { identity.inner_order = "../x"; }),
        parse([](PackIdentity& identity) {
          identity.shape.num_layers = identity.shape.num_experts = kMax;
          identity.shape.stripes_per_expert = kMax;
        })}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  }
}

TEST(PackFormatTest, EveryStripeAndRowHasItsPlace) {
  const PackIdentity identity = TestIdentity();
  const absl::StatusOr<PackGeometry> geometry = MakePackGeometry(identity.shape);
  ASSERT_TRUE(geometry.ok());
  EXPECT_EQ(geometry->num_stripes(), 24);
  EXPECT_EQ(geometry->layer_stripes(), 8);
  EXPECT_EQ(geometry->data_offset % 4096, 0);
  EXPECT_GE(geometry->data_offset, geometry->RowOffset(2) + geometry->row_bytes());
  EXPECT_EQ(geometry->file_bytes, geometry->data_offset + 24 * 8192);
  for (int64_t index = 0; index < 24; ++index) {
    EXPECT_EQ(geometry->Index(geometry->Id(index)), index);
  }
  EXPECT_EQ(geometry->Index({{1, 2}, 1}), 13);
  EXPECT_EQ(PackFileName(identity),
            "experts-0123456789abcdef000000000000002a-bfloat16-panel32.pack");
}

TEST(PackFormatTest, ChecksumsTellPlacesApart) {
  const std::vector<std::byte> slot(8192);
  EXPECT_NE(StripeChecksum(0, slot), StripeChecksum(1, slot));
  const PackIdentity identity = TestIdentity();
  PackIdentity other = identity;
  other.model.low = 43;
  const std::vector<uint64_t> sums(8);
  EXPECT_NE(RowChecksum(identity, 0, sums), RowChecksum(identity, 1, sums));
  EXPECT_NE(RowChecksum(identity, 0, sums), RowChecksum(other, 0, sums));
  EXPECT_NE(RowChecksum(identity, 0, sums), 0u);  // an empty row is not a committed one
}

}  // namespace
}  // namespace moesaic
