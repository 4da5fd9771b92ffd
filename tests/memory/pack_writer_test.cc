// Also covers file_io.

#include "memory/pack_writer.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/clock.h"
#include "memory/file_io.h"
#include "tests/memory/pack_fixture.h"

namespace moesaic {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string Bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> Names(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

// A larger pack, so that a process can be killed in its middle.
PackIdentity LargeIdentity() {
  PackIdentity identity = TestIdentity();
  identity.shape = {
      .num_layers = 24, .num_experts = 8, .stripes_per_expert = 2, .slot_bytes = 64 << 10};
  identity.stripe_bytes = 64 << 10;
  return identity;
}

// Runs `body` in a process of its own; its exit status, or minus the signal that ended it.
int InChild(const std::function<int()>& body,
            absl::Duration kill_after = absl::InfiniteDuration()) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  if (kill_after != absl::InfiniteDuration()) {
    absl::SleepFor(kill_after);
    kill(child, SIGKILL);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

TEST(PackWriterTest, AFinishedPackIsOpenedAndNotWrittenAgain) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  ASSERT_TRUE(MakePack(folder.path() / "new" / "folder", identity).ok());
  const auto session = OpenOrCreatePack(folder.path() / "new" / "folder", identity, 2);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_NE(session->pack, nullptr);
  EXPECT_EQ(session->writer, nullptr);
  EXPECT_THAT(
      Names(folder.path() / "new" / "folder"),
      testing::UnorderedElementsAre(PackFileName(identity), PackFileName(identity) + ".lock"));
}

TEST(PackWriterTest, SeveralWorkersWriteTheSameFileAsOne) {
  const TempFolder one;
  const TempFolder two;
  const PackIdentity identity = TestIdentity();
  const auto first = *MakePack(one.path(), identity);
  PackSession session = *OpenOrCreatePack(two.path(), identity, 2);
  const PackGeometry geometry = *MakePackGeometry(identity.shape);
  for (int32_t layer = 0; layer < 3; ++layer) {
    const auto work = [&](int worker) {
      for (int64_t i = worker; i < geometry.layer_stripes(); i += 2) {
        const int64_t index = layer * geometry.layer_stripes() + i;
        FillStripe(index, session.writer->BeginStripe(geometry.Id(index), worker),
                   identity.stripe_bytes);
        EXPECT_TRUE(session.writer->FinishStripe(geometry.Id(index), worker).ok());
      }
    };
    std::thread other(work, 1);
    work(0);
    other.join();
    ASSERT_TRUE(session.writer->FinishLayer(layer).ok());
  }
  const auto second = session.writer->Finish();
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Bytes(first->path()), Bytes((*second)->path()));
}

TEST(PackWriterTest, AnUnfinishedPackIsNoPack) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
  ASSERT_NE(session.writer, nullptr);
  ASSERT_TRUE(PackLayer(identity, *session.writer, 0).ok());
  EXPECT_EQ(session.writer->Finish().status().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(fs::exists(folder.path() / PackFileName(identity)));
}

TEST(PackWriterTest, CommittedLayersAreKeptAndDamagedMarksAreNot) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const fs::path partial = folder.path() / (PackFileName(identity) + ".partial");
  for (int32_t layer = 0; layer < 2; ++layer) {
    PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    for (int32_t i = 0; i < 3; ++i) EXPECT_EQ(session.writer->HasLayer(i), i < layer);
    ASSERT_TRUE(PackLayer(identity, *session.writer, layer).ok());
  }
  const PackGeometry geometry = *MakePackGeometry(identity.shape);
  FlipBit(partial, geometry.RowOffset(0) + 5, 3);
  {
    PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    EXPECT_FALSE(session.writer->HasLayer(0));
    EXPECT_TRUE(session.writer->HasLayer(1));
  }
  // A header or length that is not this pack's: nothing of the file is used.
  fs::resize_file(partial, geometry.file_bytes - 1);
  PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
  EXPECT_FALSE(session.writer->HasLayer(1));
}

TEST(PackWriterTest, AnUnfinishedPackOfAnotherModelIsNotMixedIn) {
  const TempFolder folder;
  PackIdentity identity = TestIdentity();
  {
    PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    ASSERT_TRUE(PackLayer(identity, *session.writer, 0).ok());
  }
  identity.units_per_stripe = 128;  // the same file name
  PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
  ASSERT_NE(session.writer, nullptr);
  EXPECT_FALSE(session.writer->HasLayer(0));
}

TEST(PackWriterTest, DamagedStaleAndMarkedPacksAreWrittenAnew) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  const auto pack = *MakePack(folder.path(), identity);
  const std::string whole = Bytes(pack->path());
  const auto rebuild = [&] {
    const PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    EXPECT_EQ(session.pack, nullptr);
    ASSERT_NE(session.writer, nullptr);
  };
  FlipBit(pack->path(), 100, 1);
  rebuild();
  ASSERT_TRUE(MakePack(folder.path(), identity).ok());
  fs::resize_file(pack->path(), whole.size() / 2);
  rebuild();
  ASSERT_TRUE(MakePack(folder.path(), identity).ok());
  std::string newer = whole;
  newer[8] = 2;  // another version, with a checksum of its own
  std::ofstream(pack->path(), std::ios::binary) << newer;
  rebuild();
  ASSERT_TRUE(MakePack(folder.path(), identity).ok());
  pack->MarkDamaged();
  rebuild();
  ASSERT_TRUE(MakePack(folder.path(), identity).ok());
  EXPECT_FALSE(fs::exists(DamageMarkPath(pack->path())));
  EXPECT_EQ(Bytes(pack->path()), whole);
}

TEST(PackWriterTest, AProcessKilledAtAnyPointLeavesWhatTheNextOneFinishes) {
  const TempFolder folder;
  const PackIdentity identity = LargeIdentity();
  const TempFolder whole;
  const std::string expected = Bytes((*MakePack(whole.path(), identity))->path());
  const fs::path path = folder.path() / PackFileName(identity);
  std::mt19937 random(7);
  int killed = 0;
  int resumed = 0;
  for (int round = 0; round < 8; ++round) {
    for (int attempt = 0; attempt < 8 && !fs::exists(path); ++attempt) {
      const int exit_code = InChild(
          [&] {
            PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
            for (int32_t layer = 0; layer < identity.shape.num_layers; ++layer) {
              if (session.writer->HasLayer(layer)) continue;
              if (!PackLayer(identity, *session.writer, layer).ok()) return 1;
            }
            return session.writer->Finish().ok() ? 0 : 2;
          },
          absl::Microseconds(random() % 40000));
      EXPECT_TRUE(exit_code == 0 || exit_code == -SIGKILL) << exit_code;
      killed += exit_code == -SIGKILL;
    }
    {
      const PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
      if (session.writer != nullptr) resumed += session.writer->HasLayer(0);
    }
    const auto pack = MakePack(folder.path(), identity);
    ASSERT_TRUE(pack.ok()) << pack.status();
    ASSERT_TRUE(Bytes((*pack)->path()) == expected) << "round " << round;
    fs::remove(path);
  }
  EXPECT_GT(killed, 0);
  RecordProperty("resumed", resumed);
}

TEST(PackWriterTest, OfTwoProcessesOneWritesAndBothRead) {
  const TempFolder folder;
  const PackIdentity identity = LargeIdentity();
  const auto serve = [&] {
    const PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    if (session.writer == nullptr) return session.pack != nullptr ? 11 : 2;
    for (int32_t layer = 0; layer < identity.shape.num_layers; ++layer) {
      if (!PackLayer(identity, *session.writer, layer).ok()) return 1;
    }
    return session.writer->Finish().ok() ? 10 : 3;
  };
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    children.push_back(fork());
    if (children.back() == 0) _exit(serve());
  }
  int writers = 0;
  for (const pid_t child : children) {
    int status = 0;
    waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    EXPECT_THAT(WEXITSTATUS(status), testing::AnyOf(10, 11));
    writers += WEXITSTATUS(status) == 10;
  }
  EXPECT_EQ(writers, 1);
}

TEST(PackWriterTest, AFullDiskIsSaidWithFolderAndBytes) {
  const TempFolder folder;
  const PackIdentity identity = LargeIdentity();
  const PackGeometry geometry = *MakePackGeometry(identity.shape);
  // A file system without enough room, where this test may mount one; else a limit on file size.
  const bool mounted = mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=1m") == 0;
  const int exit_code = InChild([&] {
    if (!mounted) {
      signal(SIGXFSZ, SIG_IGN);
      const rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    const absl::Status status = OpenOrCreatePack(folder.path(), identity, 1).status();
    const std::string message(status.message());
    if (!absl::IsResourceExhausted(status)) return 1;
    if (message.find(folder.path().string()) == std::string::npos) return 2;
    if (message.find(std::to_string(geometry.file_bytes)) == std::string::npos) return 3;
    return fs::exists(folder.path() / (PackFileName(identity) + ".partial")) ? 4 : 0;
  });
  EXPECT_EQ(exit_code, 0) << (mounted ? "tmpfs" : "RLIMIT_FSIZE");
  if (mounted) umount(folder.path().c_str());
}

TEST(PackWriterTest, ALimitOnFileSizeIsAFullDisk) {
  const TempFolder folder;
  const PackIdentity identity = LargeIdentity();
  const int exit_code = InChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    return absl::IsResourceExhausted(OpenOrCreatePack(folder.path(), identity, 1).status()) ? 0 : 1;
  });
  EXPECT_EQ(exit_code, 0);
  EXPECT_TRUE(MakePack(folder.path(), identity).ok());
}

TEST(PackWriterTest, ADiskThatFillsUpWhilePackingIsSaidAndResumed) {
  const TempFolder folder;
  const PackIdentity identity = LargeIdentity();
  // Room reserved at the start is lost again when the file is cut short behind the writer's back
  // and may not grow: each write past the limit fails as on a full disk.
  const int exit_code = InChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
    if (!PackLayer(identity, *session.writer, 0).ok()) return 1;
    const PackGeometry geometry = *MakePackGeometry(identity.shape);
    const rlim_t room = geometry.StripeOffset(geometry.layer_stripes() + 3);
    const rlimit limit = {.rlim_cur = room, .rlim_max = room};
    setrlimit(RLIMIT_FSIZE, &limit);
    const absl::Status status = PackLayer(identity, *session.writer, 1);
    if (!absl::IsResourceExhausted(status)) return 2;
    if (status.message().find(folder.path().string()) == std::string::npos) return 3;
    return 0;
  });
  EXPECT_EQ(exit_code, 0);
  const PackSession session = *OpenOrCreatePack(folder.path(), identity, 1);
  EXPECT_TRUE(session.writer->HasLayer(0));
  EXPECT_FALSE(session.writer->HasLayer(1));
}

TEST(PackWriterTest, FoldersThatCannotBeUsedAreNamed) {
  const TempFolder folder;
  const PackIdentity identity = TestIdentity();
  folder.Write("file", "");
  const absl::Status not_a_folder =
      OpenOrCreatePack(folder.path() / "file" / "packs", identity, 1).status();
  EXPECT_FALSE(not_a_folder.ok());
  EXPECT_THAT(std::string(not_a_folder.message()), HasSubstr((folder.path() / "file").string()));

  const fs::path closed = folder.path() / "closed";
  ASSERT_TRUE(MakePack(closed, identity).ok());
  PackIdentity other = identity;
  other.model.low ^= 1;
  const auto as_nobody = [&](mode_t mode, const PackIdentity& wanted) {
    chmod(folder.path().c_str(), 0755);
    chmod(closed.c_str(), mode);
    return InChild([&] {
      if (getuid() == 0 && seteuid(65534) != 0) return 100;
      const absl::StatusOr<PackSession> session = OpenOrCreatePack(closed, wanted, 1);
      if (session.ok()) return session->pack != nullptr ? 1 : 2;
      if (session.status().message().find(closed.string()) == std::string::npos) return 3;
      return absl::IsPermissionDenied(session.status()) ? 4 : 5;
    });
  };
  EXPECT_EQ(as_nobody(0555, identity), 1);  // read-only, but all is there
  EXPECT_EQ(as_nobody(0555, other), 4);
  EXPECT_EQ(as_nobody(0000, identity), 4);
  // A damaged pack that cannot be replaced is refused, not served.
  chmod(closed.c_str(), 0755);
  FlipBit(closed / PackFileName(identity), 100, 1);
  EXPECT_EQ(as_nobody(0555, identity), 4);
  chmod(closed.c_str(), 0755);
}

TEST(FileIoTest, ErrorsKeepTheirKindAndName) {
  EXPECT_TRUE(absl::IsNotFound(SystemError(ENOENT, "a")));
  EXPECT_TRUE(absl::IsPermissionDenied(SystemError(EROFS, "a")));
  EXPECT_TRUE(absl::IsResourceExhausted(SystemError(ENOSPC, "a")));
  EXPECT_TRUE(absl::IsUnavailable(SystemError(EIO, "a")));
  EXPECT_THAT(std::string(SystemError(EIO, "file").message()), HasSubstr("file: "));
}

}  // namespace
}  // namespace moesaic
