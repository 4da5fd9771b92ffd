#pragma once

namespace moesaic {

// MOESAIC_VERSION is the project's version in CMakeLists.txt.
inline constexpr char kVersion[] = MOESAIC_VERSION;

}  // namespace moesaic
