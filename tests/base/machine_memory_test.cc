#include "base/machine_memory.h"

#include <unistd.h>

#include <fstream>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace moesaic {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

class MachineMemoryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = testing::TempDir() + "/moesaic_cgroup_XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& file, const std::string& text) {
    std::filesystem::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  int64_t Limit() const { return ControlGroupMemoryLimit(root_ / "self", root_); }

  std::filesystem::path root_;
};

TEST_F(MachineMemoryTest, Version2TakesTheLeastOfAGroupAndThoseAroundIt) {
  Write("self", "0::/outer/inner\n");
  Write("outer/inner/memory.max", "max\n");
  EXPECT_EQ(Limit(), kNoLimit);
  Write("outer/memory.max", "5000000\n");
  EXPECT_EQ(Limit(), 5000000);
  Write("outer/inner/memory.max", "3000000\n");
  EXPECT_EQ(Limit(), 3000000);
  Write("memory.max", "1000000\n");  // a container sees its own group as the root
  EXPECT_EQ(Limit(), 1000000);
}

TEST_F(MachineMemoryTest, Version1ReadsTheMemoryControllerAlone) {
  Write("self", "5:cpu,cpuacct:/a\n4:hugetlb,memory:/docker/of/the/host\n1:name=systemd:/\n");
  Write("cpu/a/memory.limit_in_bytes", "7\n");
  EXPECT_EQ(Limit(), kNoLimit);
  Write("memory/memory.limit_in_bytes", "2000000\n");
  EXPECT_EQ(Limit(), 2000000);
}

TEST_F(MachineMemoryTest, WhatCannotBeReadIsNoLimit) {
  EXPECT_EQ(Limit(), kNoLimit);
  Write("self", "nonsense\n0:\n0::\n0::/../../x\n");
  EXPECT_EQ(Limit(), kNoLimit);
}

TEST_F(MachineMemoryTest, IsPartOfTheMachines) {
  EXPECT_GT(MachineMemoryBytes(), 0);
  EXPECT_LE(MachineMemoryBytes(),
            static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE));
}

}  // namespace
}  // namespace moesaic
