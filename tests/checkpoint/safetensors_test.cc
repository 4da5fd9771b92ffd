#include "checkpoint/safetensors.h"

#include <sys/stat.h>

#include <fstream>
#include <string>
#include <vector>

#include "base/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

absl::StatusOr<TensorMap> Parse(std::string_view bytes) {
  return ParseSafetensors(std::as_bytes(std::span(bytes)), "a.safetensors");
}

std::string Tensor(
    std::string_view name, std::string_view type, std::string_view shape, int begin, int end) {
  return StrCat("\"", name, "\":{\"dtype\":\"", type, "\",\"shape\":", shape, ",\"data_offsets\":[",
                begin, ",", end, "]}");
}

TEST(ParseSafetensors, ReadsTensors) {
  const std::string bytes = SafetensorsBytes(
      StrCat("{\"__metadata__\":{\"format\":\"pt\"},", Tensor("b", "BF16", "[2,1]", 8, 12), ",",
             Tensor("a", "F32", "[2]", 0, 8), ",", Tensor("c", "I64", "[]", 12, 20), ",",
             Tensor("d", "F16", "[3,0]", 20, 20), "}  "),
      "01234567abcdABCDEFGH");
  const auto tensors = Parse(bytes);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 4u);
  const TensorView& b = tensors->at("b");
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.dtype, DType::kBFloat16);
  EXPECT_THAT(b.shape, ElementsAre(2, 1));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b.data.data()), b.data.size()), "abcd");
  EXPECT_EQ(tensors->at("a").dtype, DType::kFloat32);
  EXPECT_EQ(tensors->at("a").data.size(), 8u);
  EXPECT_EQ(tensors->at("c").dtype, std::nullopt);
  EXPECT_EQ(tensors->at("c").stored_type, "I64");
  EXPECT_THAT(tensors->at("c").shape, IsEmpty());
  EXPECT_THAT(tensors->at("d").shape, ElementsAre(3, 0));
  EXPECT_TRUE(tensors->at("d").data.empty());
}

TEST(ParseSafetensors, EmptyFileOfNoTensors) {
  const auto tensors = Parse(SafetensorsBytes("{}", ""));
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  EXPECT_TRUE(tensors->empty());
}

struct BadFile {
  const char* problem;  // part of the message
  std::string header;
  std::string data = std::string(8, 'x');
};

class BadSafetensors : public testing::TestWithParam<BadFile> {};

TEST_P(BadSafetensors, IsRefused) {
  const auto tensors = Parse(SafetensorsBytes(GetParam().header, GetParam().data));
  ASSERT_EQ(tensors.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tensors.status().message()), HasSubstr(GetParam().problem));
  EXPECT_THAT(std::string(tensors.status().message()), HasSubstr("a.safetensors"));
}

std::string One(std::string_view type, std::string_view shape, std::string_view offsets) {
  return StrCat("{\"t\":{\"dtype\":", type, ",\"shape\":", shape, ",\"data_offsets\":", offsets,
                "}}");
}

INSTANTIATE_TEST_SUITE_P(
    Headers,
    BadSafetensors,
    testing::Values(
        BadFile{"start with '{'", " {}"},
        BadFile{"start with '{'", "[]"},
        BadFile{"start with '{'", ""},
        BadFile{"byte", "{\"t\":"},
        BadFile{"byte", "{} {}"},
        BadFile{"byte", "{\"\xff\": 1}"},
        BadFile{"duplicate key", "{" + Tensor("t", "F32", "[1]", 0, 4) + "," +
                                     Tensor("t", "F32", "[1]", 4, 8) + "}"},
        BadFile{"duplicate key",
                R"({"t":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})"},
        BadFile{"deeper", One("\"F32\"", "[[[2]]]", "[0,8]")},
        BadFile{"__metadata__", R"({"__metadata__":[]})"},
        BadFile{"__metadata__", R"({"__metadata__":{"a":1}})"},
        BadFile{"not described", R"({"t":1})"},
        BadFile{"and no more", R"({"t":{"dtype":"F32","shape":[2]}})"},
        BadFile{"and no more",
                R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"extra":1}})"},
        BadFile{"dtype is not", One("1", "[2]", "[0,8]")},
        BadFile{"unknown dtype", One("\"F31\"", "[2]", "[0,8]")},
        BadFile{"shape is not", One("\"F32\"", "2", "[0,8]")},
        BadFile{"not a size", One("\"F32\"", "[-2]", "[0,8]")},
        BadFile{"not a size", One("\"F32\"", "[2.0]", "[0,8]")},
        BadFile{"not a size", One("\"F32\"", "[18446744073709551615]", "[0,8]")},
        BadFile{"dimensions", One("\"F32\"", "[2,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,8]")},
        BadFile{"fits", One("\"F32\"", "[4294967296,4294967296]", "[0,8]")},
        BadFile{"fits", One("\"F32\"", "[4611686018427387904]", "[0,8]")},
        BadFile{"fits", One("\"F4\"", "[1]", "[0,8]")},
        BadFile{"not a pair", One("\"F32\"", "[2]", "[0,4,8]")},
        BadFile{"not sizes", One("\"F32\"", "[2]", "[-1,8]")},
        BadFile{"not in order", One("\"F32\"", "[2]", "[8,0]")},
        BadFile{"truncated", One("\"F32\"", "[3]", "[0,12]")},
        BadFile{"its shape takes 8 bytes", One("\"F32\"", "[2]", "[0,4]")},
        BadFile{"hole", "{" + Tensor("t", "F32", "[1]", 4, 8) + "}"},
        BadFile{"hole",
                "{" + Tensor("s", "U8", "[1]", 0, 1) + "," + Tensor("t", "F32", "[1]", 4, 8) + "}"},
        BadFile{"overlaps", "{" + Tensor("s", "F32", "[2]", 0, 8) + "," +
                                Tensor("t", "F32", "[1]", 4, 8) + "}"},
        BadFile{"end at byte 4", "{" + Tensor("t", "F32", "[1]", 0, 4) + "}"},
        BadFile{"end at byte 0", "{}"}));

TEST(ParseSafetensors, LyingLengths) {
  EXPECT_FALSE(Parse("").ok());
  EXPECT_FALSE(Parse("1234567").ok());
  std::string bytes = SafetensorsBytes("{}", "");
  bytes.pop_back();
  EXPECT_THAT(std::string(Parse(bytes).status().message()), HasSubstr("truncated"));
  bytes[7] = '\xff';  // a header of 2^63 bytes and more
  EXPECT_THAT(std::string(Parse(bytes).status().message()), HasSubstr("not a safetensors file"));
}

TEST(ParseSafetensors, EveryTruncationIsRefused) {
  const std::string bytes =
      SafetensorsBytes("{" + Tensor("t", "F32", "[2]", 0, 8) + "}", "01234567");
  ASSERT_TRUE(Parse(bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(Parse(std::string_view(bytes).substr(0, size)).ok()) << size;
  }
}

TEST(SafetensorsFile, OpensAndReleases) {
  const TempFolder folder;
  const size_t count = size_t{1} << 20;
  const auto path = folder.Write(
      "a.safetensors",
      SafetensorsBytes("{" + Tensor("t", "U8", StrCat("[", count, "]"), 0, count) + "}",
                       std::string(count, 'x')));
  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const std::span<const std::byte> data = (*file)->tensors().at("t").data;
  const auto resident_file_bytes = [] {
    std::ifstream in("/proc/self/smaps");
    int64_t total = 0;
    bool inside = false;
    for (std::string line; std::getline(in, line);) {
      if (line.find("a.safetensors") != std::string::npos) inside = true;
      if (inside && line.starts_with("Rss:")) {
        total += std::stoll(line.substr(4)) * 1024;
        inside = false;
      }
    }
    return total;
  };
  const auto sum = [&] {
    int64_t total = 0;
    for (const std::byte byte : data) total += static_cast<int>(byte);
    return total;
  };
  EXPECT_EQ(sum(), static_cast<int64_t>(count) * 'x');
  EXPECT_GE(resident_file_bytes(), static_cast<int64_t>(count));
  (*file)->Release(data);
  EXPECT_EQ(resident_file_bytes(), 0);
  (*file)->Release({});
  EXPECT_EQ(sum(), static_cast<int64_t>(count) * 'x') << "released pages can be read again";
}

TEST(SafetensorsFile, RefusesWhatIsNoFile) {
  const TempFolder folder;
  EXPECT_TRUE(absl::IsNotFound(SafetensorsFile::Open(folder.path() / "none").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SafetensorsFile::Open(folder.path()).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(SafetensorsFile::Open(folder.Write("e", "")).status()));
  const auto pipe = folder.path() / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(SafetensorsFile::Open(pipe).status()));
}

}  // namespace
}  // namespace moesaic
