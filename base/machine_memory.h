#pragma once

#include <cstdint>
#include <filesystem>

namespace moesaic {

// Bytes of RAM that this process may use: the machine's, or the limit of its control group, as a
// container has one, if that is less.
int64_t MachineMemoryBytes();

// The least memory limit of the groups that `proc_cgroup` (/proc/self/cgroup) names and of those
// around them, under `cgroup_root` (/sys/fs/cgroup) in either version's layout; the largest int64
// when there is none.
int64_t ControlGroupMemoryLimit(const std::filesystem::path& proc_cgroup,
                                const std::filesystem::path& cgroup_root);

}  // namespace moesaic
