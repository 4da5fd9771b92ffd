#include "base/machine_memory.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

namespace moesaic {
namespace {

constexpr int64_t kNoLimit = std::numeric_limits<int64_t>::max();

// The number in a limit file; kNoLimit for "max", or when there is no such file.
int64_t ReadLimit(const std::filesystem::path& file) {
  std::ifstream stream(file);
  int64_t limit = 0;
  return stream >> limit && limit > 0 ? limit : kNoLimit;
}

}  // namespace

int64_t ControlGroupMemoryLimit(const std::filesystem::path& proc_cgroup,
                                const std::filesystem::path& cgroup_root) {
  int64_t limit = kNoLimit;
  std::ifstream lines(proc_cgroup);
  // "4:memory:/a/b" in version 1, "0::/a/b" in version 2.
  for (std::string line; std::getline(lines, line);) {
    const size_t controllers = line.find(':');
    const size_t path =
        controllers == std::string::npos ? controllers : line.find(':', controllers + 1);
    if (path == std::string::npos) continue;
    const std::string names = line.substr(controllers + 1, path - controllers - 1);
    if (!names.empty() && ("," + names + ",").find(",memory,") == std::string::npos) continue;
    const std::filesystem::path root = names.empty() ? cgroup_root : cgroup_root / "memory";
    const char* file = names.empty() ? "memory.max" : "memory.limit_in_bytes";
    // Inside a container the path may be the host's, of which only the root is seen.
    std::filesystem::path group =
        std::filesystem::path(line.substr(path + 1)).lexically_normal().relative_path();
    while (true) {
      limit = std::min(limit, ReadLimit(root / group / file));
      if (group.empty()) break;
      group = group.parent_path();
    }
  }
  return limit;
}

int64_t MachineMemoryBytes() {
  const int64_t machine = static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return std::min(machine, ControlGroupMemoryLimit("/proc/self/cgroup", "/sys/fs/cgroup"));
}

}  // namespace moesaic
