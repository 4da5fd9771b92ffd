#include "checkpoint/checkpoint.h"

#include <cstring>
#include <string>
#include <vector>

#include "base/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/checkpoint/test_files.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

// A file of float32 vectors [2], one per name, filled with the name's first letter.
std::string Vectors(const std::vector<std::string>& names) {
  std::string header = "{";
  std::string data;
  for (const std::string& name : names) {
    header += StrCat(header.size() == 1 ? "" : ",", "\"", name,
                     "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[", data.size(), ",",
                     data.size() + 8, "]}");
    data += std::string(8, name[0]);
  }
  return SafetensorsBytes(header + "}", data);
}

std::string Index(std::string_view weight_map, std::string_view total_size = "24") {
  return StrCat("{\"metadata\":{\"total_size\":", total_size, "},\"weight_map\":{", weight_map,
                "}}");
}

constexpr char kTwoShards[] =
    R"("a":"one.safetensors","b":"one.safetensors","c":"sub/two.safetensors")";

class CheckpointTest : public testing::Test {
 protected:
  void WriteShards(std::string_view index) {
    folder_.Write("one.safetensors", Vectors({"a", "b"}));
    folder_.Write("sub/two.safetensors", Vectors({"c"}));
    folder_.Write("model.safetensors.index.json", index);
  }

  void ExpectInvalid(std::string_view problem) {
    const auto checkpoint = Checkpoint::Open(folder_.path());
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(checkpoint.status().message()), HasSubstr(std::string(problem)));
  }

  const TempFolder folder_;
};

TEST_F(CheckpointTest, SingleFile) {
  folder_.Write("model.safetensors", Vectors({"a", "b"}));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Contains("a"));
  EXPECT_TRUE((*checkpoint)->Contains("b"));
  EXPECT_FALSE((*checkpoint)->Contains("c"));
  const auto tensor = (*checkpoint)->Find("b");
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(std::memcmp(tensor->data.data(), "bbbbbbbb", 8), 0);
  (*checkpoint)->Release(*tensor);
  EXPECT_EQ(std::memcmp(tensor->data.data(), "bbbbbbbb", 8), 0);
  EXPECT_THAT((*checkpoint)->names(), testing::ElementsAre("a", "b"));
  const absl::Status missing = (*checkpoint)->Find("c").status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_EQ(missing.message(),
            StrCat((folder_.path() / "model.safetensors").string(), ": there is no tensor \"c\""));
}

TEST_F(CheckpointTest, FilesAreListedWithWhatTellsThemApart) {
  WriteShards(Index(kTwoShards));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::vector<Checkpoint::FileInfo> files = (*checkpoint)->Files();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(files[0].name, "one.safetensors");
  EXPECT_EQ(files[1].name, "sub/two.safetensors");
  const std::string bytes = Vectors({"c"});
  EXPECT_EQ(files[1].info.bytes, bytes.size());
  EXPECT_EQ(files[1].info.header.size(), bytes.size() - 8);
  EXPECT_EQ(std::memcmp(files[1].info.header.data(), bytes.data(), bytes.size() - 8), 0);
  EXPECT_GT(files[1].info.modified_ns, int64_t{1'500'000'000} * 1'000'000'000);
}

TEST_F(CheckpointTest, FindWeightChecksTypeAndShape) {
  folder_.Write("model.safetensors",
                SafetensorsBytes(R"({"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},
                                     "i":{"dtype":"I64","shape":[1],"data_offsets":[8,16]}})",
                                 std::string(16, 'x')));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const std::vector<int64_t> shape = {1, 2};
  const std::vector<int64_t> other = {2, 1};
  const std::vector<int64_t> one = {1};
  EXPECT_TRUE((*checkpoint)->FindWeight("w", shape).ok());
  EXPECT_THAT(std::string((*checkpoint)->FindWeight("w", other).status().message()),
              HasSubstr("/model.safetensors: tensor \"w\" has shape [1, 2], config.json asks for "
                        "[2, 1]"));
  EXPECT_THAT(std::string((*checkpoint)->FindWeight("i", one).status().message()),
              HasSubstr("/model.safetensors: tensor \"i\" is stored as I64"));
  EXPECT_TRUE(absl::IsNotFound((*checkpoint)->FindWeight("none", one).status()));
}

TEST_F(CheckpointTest, Sharded) {
  WriteShards(Index(kTwoShards));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(std::memcmp((*checkpoint)->Find("a")->data.data(), "aaaaaaaa", 8), 0);
  EXPECT_EQ(std::memcmp((*checkpoint)->Find("c")->data.data(), "cccccccc", 8), 0);
}

TEST_F(CheckpointTest, WholeFileComesBeforeIndex) {
  WriteShards(Index(kTwoShards));
  folder_.Write("model.safetensors", Vectors({"z"}));
  const auto checkpoint = Checkpoint::Open(folder_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_TRUE((*checkpoint)->Contains("z"));
  EXPECT_FALSE((*checkpoint)->Contains("a"));
}

TEST_F(CheckpointTest, NoWeights) {
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(folder_.path()).status()));
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(folder_.path() / "none").status()));
}

TEST_F(CheckpointTest, LyingIndexes) {
  WriteShards("[]");
  ExpectInvalid("weight_map");
  WriteShards(R"({"weight_map":{}})");
  ExpectInvalid("weight_map");
  WriteShards(Index(R"("a":1)"));
  ExpectInvalid("no file name for \"a\"");
  WriteShards(Index(R"("a":"one.safetensors","c":"one.safetensors")"));
  ExpectInvalid("\"c\" is in one.safetensors, but it is not");
  WriteShards(Index(kTwoShards, "25"));
  ExpectInvalid("total_size is 25, the tensors take 24");
  WriteShards(Index(kTwoShards, "\"24\""));
  ExpectInvalid("total_size is not a number");
  WriteShards(Index(R"("a":"one.safetensors","a":"one.safetensors")"));
  ExpectInvalid("duplicate key");
}

TEST_F(CheckpointTest, MissingAndBrokenShards) {
  WriteShards(Index(R"("a":"three.safetensors")"));
  EXPECT_TRUE(absl::IsNotFound(Checkpoint::Open(folder_.path()).status()));
  WriteShards(Index(kTwoShards));
  folder_.Write("sub/two.safetensors", Vectors({"c"}).substr(0, 20));
  ExpectInvalid("two.safetensors: truncated");
}

TEST_F(CheckpointTest, TensorInTwoShards) {
  WriteShards(Index(kTwoShards));
  folder_.Write("sub/two.safetensors", Vectors({"c", "a"}));
  ExpectInvalid("\"a\" is in both one.safetensors and sub/two.safetensors");
}

TEST_F(CheckpointTest, ShardsOutsideTheFolder) {
  const TempFolder outside;
  const std::string secret = outside.Write("secret.safetensors", Vectors({"a"})).string();
  for (const std::string& name :
       {secret, std::string("../secret.safetensors"), std::string("sub/../../secret.safetensors"),
        std::string(), std::string("one.safetensors\\u0000")}) {
    WriteShards(Index(StrCat("\"a\":\"", name, "\"")));
    ExpectInvalid("not a path inside the model folder");
  }
  WriteShards(Index(R"("a":"link.safetensors")"));
  fs::create_symlink(secret, folder_.path() / "link.safetensors");
  ExpectInvalid("outside the model folder");
  WriteShards(Index(R"("a":"linked/secret.safetensors")"));
  fs::create_directory_symlink(outside.path(), folder_.path() / "linked");
  ExpectInvalid("outside the model folder");
  fs::create_symlink(secret, folder_.path() / "model.safetensors");
  ExpectInvalid("outside the model folder");
}

TEST_F(CheckpointTest, LinksInsideTheFolder) {
  folder_.Write("real/weights.safetensors", Vectors({"a"}));
  fs::create_symlink("real/weights.safetensors", folder_.path() / "model.safetensors");
  EXPECT_TRUE(Checkpoint::Open(folder_.path()).ok());
}

TEST_F(CheckpointTest, FolderItselfMayBeALink) {
  folder_.Write("real/model.safetensors", Vectors({"a"}));
  fs::create_directory_symlink("real", folder_.path() / "link");
  EXPECT_TRUE(Checkpoint::Open(folder_.path() / "link").ok());
}

TEST_F(CheckpointTest, HuggingFaceCache) {
  folder_.Write("blobs/0123abcd", Vectors({"a"}));
  folder_.Write("other/4567", Vectors({"a"}));
  const fs::path snapshot = folder_.path() / "snapshots" / "main";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/0123abcd", snapshot / "model.safetensors");
  EXPECT_TRUE(Checkpoint::Open(snapshot).ok());
  fs::remove(snapshot / "model.safetensors");
  fs::create_symlink("../../other/4567", snapshot / "model.safetensors");
  EXPECT_FALSE(Checkpoint::Open(snapshot).ok());
}

}  // namespace
}  // namespace moesaic
