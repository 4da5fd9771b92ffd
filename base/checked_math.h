#pragma once

// Arithmetic on sizes that come from outside: no result rather than a wrapped one.

#include <concepts>
#include <optional>

namespace moesaic {

template <std::integral T>
[[nodiscard]] std::optional<T> CheckedAdd(T a, T b) {
  T result;
  if (__builtin_add_overflow(a, b, &result)) return std::nullopt;
  return result;
}

template <std::integral T>
[[nodiscard]] std::optional<T> CheckedMul(T a, T b) {
  T result;
  if (__builtin_mul_overflow(a, b, &result)) return std::nullopt;
  return result;
}

// Smallest multiple of `unit` that is >= value. The caller bounds `value`; `unit` > 0.
template <std::integral T>
[[nodiscard]] constexpr T RoundUp(T value, T unit) {
  return (value + unit - 1) / unit * unit;
}

template <std::integral T>
[[nodiscard]] constexpr T CeilDiv(T value, T unit) {
  return (value + unit - 1) / unit;
}

}  // namespace moesaic
