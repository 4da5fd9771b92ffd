#pragma once

#include <string>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace moesaic {

// absl::StrCat that also takes std::string_view: the distribution's Abseil was built with a type of
// its own.
template <typename... Args>
std::string StrCat(const Args&... args) {
  const auto adapt = [](const auto& arg) -> decltype(auto) {
    if constexpr (std::is_same_v<std::decay_t<decltype(arg)>, std::string_view>) {
      return absl::string_view(arg.data(), arg.size());
    } else {
      return (arg);
    }
  };
  return absl::StrCat(adapt(args)...);
}

}  // namespace moesaic
